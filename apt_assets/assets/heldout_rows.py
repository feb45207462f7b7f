import json

from apt_assets.engine.stage import stage
from apt_assets.engine.step import Step


@stage(
    inputs=["landing_folder"],
    settings=["data.validation", "data.test", "data.near_duplicate_words"],
    libraries=["polars", "pyarrow"],
    outputs=["validation.parquet", "test.parquet", "labels.json"],
    main_table="validation",
    group="6_evaluation",
    kinds=["polars", "pandera"],
    partitioned=False,
)
def heldout_rows(step: Step) -> None:
    """The held-out rows of all files landed by now, and the labels that compete in their grades: what base_scores
    are of. An edit that touches neither of them leaves the base scores fresh.
    """
    from apt_assets.landing.records import read_landed
    from apt_assets.method.domain import build_domain
    from resources.assessors.labels import labels_of

    data = step.settings.data
    parts = (part for path in step.landed() for part in read_landed(path))
    tables = build_domain(parts, data.validation, data.test, data.near_duplicate_words)
    for split in ("validation", "test"):
        step.write(tables[split], split)
        step.facts[f"{split}_rows"] = tables[split].height
    (step.out / "labels.json").write_text(json.dumps({"labels": labels_of(tables["train"]["answer"].to_list())}))
