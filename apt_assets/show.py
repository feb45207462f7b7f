"""Rows of a stage, for people to look at."""

import json
from typing import Any

import apt_assets.assets  # noqa: F401 - declares the stages
from apt_assets.engine.stages import BASE, STAGES
from apt_assets.experiment import UsageError
from apt_assets.partitions import key_of
from apt_assets.project import Project

# Which table of a stage is meant when only the stage is named.
MAIN_TABLE = {
    "domain_dataset": "train",
    "adapter_checkpoint": "training_log",
    "benchmark_scores": "domain_items",
    "base_scores": "domain_items",
}


def rows_of(project: Project, name: str, iteration: str, limit: int) -> tuple[list[str], list[tuple[Any, ...]], int]:
    """(columns, first rows, number of rows) of a stage or of one of its tables.

    Raises UsageError if there is no such stage, table or iteration, naming those there are.
    """
    from schemas import read_table

    key = (
        iteration
        if iteration == BASE
        else key_of(int(iteration))
        if iteration.isdigit() and 0 < int(iteration) <= 9999
        else ""
    )
    if not key:
        raise UsageError(f"iteration: give a number such as 1, or base; got {iteration!r}")
    manifests = {s: project.store.pointed(project.experiment.name, key, s) for s in STAGES}
    present = {s: m for s, m in manifests.items() if m is not None}
    if not present:
        opened = ", ".join(project.store.iterations(project.experiment.name)) or "none"
        raise UsageError(f"iteration {key} of {project.experiment.name} has nothing yet; opened: {opened}")
    tables = {
        file.removesuffix(".parquet"): m for m in present.values() for file in m.files if file.endswith(".parquet")
    }
    table = MAIN_TABLE.get(name, name)
    if name in present and f"{table}.parquet" in present[name].files:
        rows = read_table(project.store.verify(present[name]) / f"{table}.parquet")
    elif name in tables:
        rows = read_table(project.store.verify(tables[name]) / f"{name}.parquet")
    elif name in present:
        folder, files = project.store.verify(present[name]), present[name].files
        content = {k: v for f in files if f.endswith(".json") for k, v in json.loads((folder / f).read_text()).items()}
        return ["key", "value"], [(k, json.dumps(v)) for k, v in content.items()][:limit], len(content)
    else:
        raise UsageError(f"{name!r} of {key} is not there; there are: {', '.join([*present, *sorted(tables)])}")
    return rows.columns, rows.head(limit).rows(), rows.height
