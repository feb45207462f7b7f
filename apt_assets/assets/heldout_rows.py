import json

from apt_assets.assets.domain_dataset import DECIDES, domain_of
from apt_assets.engine.stage import stage
from apt_assets.engine.step import Step


@stage(
    inputs=["landing_folder"],
    settings=DECIDES,
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
    from resources.assessors.labels import labels_of

    tables, _ = domain_of(step.settings, step.landed())
    for split in ("validation", "test"):
        step.write(tables[split], split)
        step.facts[f"{split}_rows"] = tables[split].height
    (step.out / "labels.json").write_text(json.dumps({"labels": labels_of(tables["train"]["answer"].to_list())}))
