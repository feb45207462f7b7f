from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apt_assets.engine.stage import stage
from apt_assets.engine.step import Step
from apt_assets.settings.experiment import UsageError

if TYPE_CHECKING:
    import polars as pl

DECIDES = ["data.validation", "data.test", "data.near_duplicate_words", "assessor.gold_checks"]


def domain_of(settings: Any, paths: Iterable[Path]) -> "tuple[dict[str, pl.DataFrame], dict[str, int]]":
    """(the tables of build_domain, why rows are left out -> how many) of landed files. settings: an
    Experiment, or a stage's view of DECIDES."""
    from apt_assets.landing.records import Landed, read_landed
    from apt_assets.landing.side_fields import SPLITS
    from apt_assets.method.domain import build_domain
    from apt_assets.method.left_out import left_out
    from resources.assessors.golds import ungradable

    accepted = 0

    def counted(part: Landed) -> Landed:
        nonlocal accepted
        accepted += part.rows.height
        return part

    data = settings.data
    tables = build_domain(
        (counted(part) for path in paths for part in read_landed(path)),
        data.validation,
        data.test,
        data.near_duplicate_words,
        ungradable(settings.assessor.gold_checks),
    )
    return tables, left_out(tables["quarantine"], accepted, sum(tables[split].height for split in SPLITS))


@stage(
    inputs=["landing_files"],
    settings=DECIDES,
    libraries=["polars", "pyarrow"],
    outputs=[
        "train.parquet",
        "validation.parquet",
        "test.parquet",
        "rejected_answers.parquet",
        "provenance.parquet",
        "corrections.parquet",
        "quarantine.parquet",
    ],
    main_table="train",
    group="1_data",
    kinds=["polars", "pandera"],
)
def domain_dataset(step: Step) -> None:
    """The iteration's questions with gold answers: train (mining and pool), validation (the gate)
    and test (reported only), split by content hash of the prompt. Wrong answers that came with training rows are in
    rejected_answers.parquet. Rows that are not usable, among them those whose answer the assessor cannot grade, and
    training rows that are near duplicates of held-out ones, are in quarantine.parquet with file, field and reason. What
    people decided about the rows that are here is in corrections.parquet.
    """
    from apt_assets.method.left_out import in_words

    paths = step.landed()
    tables, left_out = domain_of(step.settings, paths)
    if tables["train"].height == 0:
        reasons = "".join(f"; {line}" for line in in_words(left_out))
        raise UsageError(
            f"no training rows in {step.project.landing} ({len(paths)} files, "
            f"{tables['quarantine'].height} bad rows): land data with `apt-assets land FILE`{reasons}"
        )
    for name, table in tables.items():
        step.write(table, name)
        step.facts[f"{name}_rows"] = table.height
    step.facts["left_out"] = left_out
    step.facts["files"] = [path.name for path in paths]
