from apt_assets.engine.stage import stage
from apt_assets.engine.step import Step
from apt_assets.settings.experiment import UsageError


@stage(
    inputs=["landing_files"],
    settings=["data.validation", "data.test", "data.near_duplicate_words"],
    libraries=["polars", "pyarrow"],
    outputs=[
        "train.parquet",
        "validation.parquet",
        "test.parquet",
        "rejected_answers.parquet",
        "provenance.parquet",
        "quarantine.parquet",
    ],
    main_table="train",
    group="1_data",
    kinds=["polars", "pandera"],
)
def domain_dataset(step: Step) -> None:
    """The iteration's questions with gold answers: train (mining and pool), validation (the gate)
    and test (reported only), split by content hash of the prompt. Wrong answers that came with training rows are in
    rejected_answers.parquet. Rows that are not usable, and training
    rows that are near duplicates of held-out ones, are in quarantine.parquet with file, field and reason.
    """
    from apt_assets.landing.records import read_landed
    from apt_assets.method.domain import build_domain

    data, paths = step.settings.data, step.landed()
    parts = (part for path in paths for part in read_landed(path))
    tables = build_domain(parts, data.validation, data.test, data.near_duplicate_words)
    if tables["train"].height == 0:
        raise UsageError(
            f"no training rows in {step.project.landing} ({len(paths)} files, "
            f"{tables['quarantine'].height} bad rows): land data with `apt-assets land FILE`"
        )
    for name, table in tables.items():
        step.write(table, name)
        step.facts[f"{name}_rows"] = table.height
    step.facts["files"] = [path.name for path in paths]
