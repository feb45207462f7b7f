"""Rows of a stage, for people to look at."""

import json
from typing import TYPE_CHECKING, Any

from apt_assets.engine.stage import STAGES
from apt_assets.project import Project
from apt_assets.settings.experiment import UsageError
from apt_assets.settings.iterations import BASE, key_of
from apt_assets.settings.reader import nearest

if TYPE_CHECKING:
    import polars as pl

    from resources.store.manifest import Manifest


def parse_key(iteration: str) -> str:
    """ "1", "0001" or "base" as a key. Raises UsageError for anything else."""
    if iteration == BASE:
        return BASE
    number = number_in(iteration)
    if number is None:
        raise UsageError(f"iteration: give a number such as 1, or base; got {iteration!r}")
    return key_of(number)


def number_in(text: str) -> int | None:
    """A number from 1 to 9999; None: it is none, however long."""
    digits = text.lstrip("0")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 4 else None


def asked(number: str | None, iterations: int | None) -> int | None:
    """How many iterations `run N` or `run --iterations N` asks for; None: neither was given. Raises UsageError."""
    if number is None:
        return iterations
    if iterations is not None:
        raise UsageError(f"iterations: {number} and --iterations {iterations} were both given; give one")
    count = number_in(number)
    if count is None:
        force = f"; to compute a stage once more: --force {number}" if number in STAGES else ""
        raise UsageError(f"iterations: give a number from 1 to 9999, such as 3; got {number!r}{force}")
    return count


def require_stage(key: str, name: str) -> None:
    """Raise UsageError if iteration `key`, or BASE, has no stage of that name; it names those there are."""
    names = [stage.name for stage in STAGES.values() if stage.partitioned == (key != BASE)]
    if name not in names:
        raise UsageError(f"{name!r} is not a stage of {key}{nearest(name, names)}; there are: {', '.join(names)}")


def stage_at(project: Project, named: str) -> tuple[str, str]:
    """(iteration, stage) of "STAGE" or "STAGE@ITERATION"; without an iteration the last one that was opened, or base.

    Raises UsageError for a stage or an iteration that is not there.
    """
    name, _, iteration = named.partition("@")
    opened = project.store.iterations(project.experiment.name)
    of_base = name in STAGES and not STAGES[name].partitioned
    key = parse_key(iteration) if iteration else BASE if of_base or not opened else opened[-1]
    require_stage(key, name)
    require_opened(project, key)
    return key, name


def require_opened(project: Project, key: str) -> None:
    """Raise UsageError if there is no such iteration yet."""
    opened = project.store.iterations(project.experiment.name)
    if key not in (BASE, *opened):
        raise UsageError(f"iteration {key} was not opened yet (opened: {', '.join(opened) or 'none'})")


def rows_of(project: Project, name: str, iteration: str, limit: int) -> tuple[list[str], list[tuple[Any, ...]], int]:
    """(columns, first rows, number of rows) of `table_of`."""
    rows = table_of(project, name, iteration)
    return rows.columns, rows.head(limit).rows(), rows.height


def table_of(project: Project, name: str, iteration: str) -> "pl.DataFrame":
    """The rows of a stage, or of one of its tables, as it was last computed; of a stage without tables what its JSON
    says, as key and value.

    Raises UsageError if there is no such stage, table or iteration, naming those there are.
    """
    import polars as pl

    key = parse_key(iteration)
    manifests = {s: project.store.pointed(project.experiment.name, key, s) for s in STAGES}
    present = {s: m for s, m in manifests.items() if m is not None}
    if not present:
        opened = ", ".join(project.store.iterations(project.experiment.name)) or "none"
        raise UsageError(
            f"iteration {key} of {project.experiment.name} has nothing yet (opened: {opened}): "
            "`apt-assets run` computes it"
        )
    tables = {
        file.removesuffix(".parquet"): m for m in present.values() for file in m.files if file.endswith(".parquet")
    }
    table = (STAGES[name].main_table if name in STAGES else None) or name
    if name in present and f"{table}.parquet" in present[name].files:
        rows = as_now(project, present[name], table)
    elif name in tables:
        rows = as_now(project, tables[name], name)
    elif name in present:
        folder, files = project.artifact(present[name]), present[name].files
        content = {k: v for f in files if f.endswith(".json") for k, v in json.loads((folder / f).read_text()).items()}
        said = [(key, json.dumps(value)) for key, value in content.items()]
        return pl.DataFrame(said, {"key": pl.String, "value": pl.String}, orient="row")
    else:
        names = [*present, *sorted(tables)]
        raise UsageError(f"{name!r} of {key} is not there{nearest(name, names)}; there are: {', '.join(names)}")
    if "record" in rows.columns:
        rows = with_lines(project, rows).sort("file", "line")
    return rows


def as_now(project: Project, manifest: "Manifest", table: str) -> "pl.DataFrame":
    """A table of an artifact. Raises UsageError for one of an early version, which had other columns."""
    from resources.store.tables import TableError, read_table

    try:
        return read_table(project.artifact(manifest) / f"{table}.parquet")
    except TableError as error:
        raise UsageError(
            f"{table} of {manifest.iteration} is of another version ({error}): `apt-assets run` computes it anew"
        ) from None


def with_lines(project: Project, rows: "pl.DataFrame") -> "pl.DataFrame":
    """Provenance or quarantine with the line on which each row stands now, in place of its record.

    Looked up in the landed files and not kept: a shuffled file is the same data, but its lines moved.
    Of rows that say the same the first line; 0 means the file as a whole, null that the row is gone.
    """
    import polars as pl

    from apt_assets.landing.records import read_landed, records_of

    standing = {"record": pl.String, "line": pl.Int64}
    found = [pl.DataFrame(schema={**standing, "file": pl.String})]
    for file in rows["file"].unique().sort():
        path = project.landing / file
        for part in read_landed(path) if path.is_file() else ():
            bad = list(zip(records_of(part.rejects), (reject.line for reject in part.rejects), strict=True))
            rejects = pl.DataFrame(bad, standing, orient="row")
            for here in (part.rows.select(*standing), part.corrections.select(*standing), rejects):
                found.append(here.with_columns(file=pl.lit(file)))
    lines = pl.concat(found).group_by("file", "record").agg(pl.col("line").min())
    place = rows.columns.index("record")
    rows = rows.join(lines, on=["file", "record"], how="left", maintain_order="left")
    return rows.insert_column(place, rows.drop_in_place("line")).drop("record")
