"""What `land` and `run` say of rows that landed and are not in the data set."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from apt_assets.method.left_out import BAD, REASONS, in_words
from apt_assets.report.terminal import print_table

if TYPE_CHECKING:
    import polars as pl

    from apt_assets.project import Project

MOST_BYTES = 32 << 20  # of landed files that `land` looks through: some 200,000 rows, and a few seconds


@dataclass(frozen=True)
class LeftOut:
    """counts: why rows are left out -> how many, those apart that landing refuses. rows: Quarantine, with the
    reasons of those that are not mere repetitions."""

    counts: dict[str, int]
    rows: "pl.DataFrame"

    def of_file(self, name: str | None) -> dict[str, int]:
        """The counts of one landed file."""
        import polars as pl

        from apt_assets.method.left_out import left_out

        its = self.rows.filter(pl.col("file") == (name or ""))
        return left_out(its, its.height, 0)


def left_out_of_landed(project: "Project") -> LeftOut | None:
    """What the next iteration will leave out of all that has landed; None: too much has landed for a quick look."""
    import polars as pl

    from apt_assets.assets.domain_dataset import domain_of

    paths = [project.landing / name for name in project.landed()]
    if sum(path.stat().st_size for path in paths) > MOST_BYTES:
        return None
    tables, counts = domain_of(project.experiment, paths)
    expected = pl.any_horizontal(pl.col("reason").str.starts_with(start) for start in REASONS)
    return LeftOut({kind: n for kind, n in counts.items() if kind != BAD}, tables["quarantine"].filter(expected))


def print_left_out(found: LeftOut | None) -> None:
    """Print what the data set leaves out of all that has landed, and the first such rows."""
    if found is not None and found.rows.height:
        shown = found.rows.head(20).select("file", "field", "reason", "raw").rows()
        print_table(("left out of", "field", "reason", "row"), [(*row[:3], row[3][:60]) for row in shown])
    for line in lines_of_landed(found):
        print(line)


def lines_of_landed(found: LeftOut | None) -> list[str]:
    if found is None:
        return [
            f"more than {MOST_BYTES >> 20} MiB have landed: `run` says which rows the data set leaves out, such as two "
            "answers to one question"
        ]
    lines = [f"of all that has landed, {line}" for line in in_words(found.counts)]
    return [*lines, "after `run`, `apt-assets show quarantine ITERATION` lists them"] if found.rows.height else lines


def lines_of_run(project: "Project") -> list[str]:
    """The same of the last iteration, as its data set was last made."""
    opened = project.store.iterations(project.experiment.name)
    manifest = project.store.pointed(project.experiment.name, opened[-1], "domain_dataset") if opened else None
    counts = manifest.facts.get("left_out", {}) if manifest else {}
    lines = [f"iteration {opened[-1]}: {line}" for line in in_words(counts)]
    return [*lines, f"`apt-assets show quarantine {int(opened[-1])}` lists them"] if lines else []
