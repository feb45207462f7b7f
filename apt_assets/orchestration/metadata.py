"""What a materialisation shows in Dagster: what it is, a look at its rows, plots, columns, links.

Everything is read from the store, so a reused stage shows the same as a computed one.
"""

import base64
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from apt_assets.engine.plan import Unsettled, made_by
from apt_assets.engine.stage import STAGES
from apt_assets.project import Project
from apt_assets.promotion import LoopPlanner, undecided
from apt_assets.report import markdown
from apt_assets.report.findings import with_cases
from apt_assets.report.look import ProjectLook
from apt_assets.report.money import shown_in_dagster
from apt_assets.report.results import passages_of, start_of
from apt_assets.report.tables import interval
from apt_assets.settings.iterations import BASE, number_of
from resources.store.manifest import Manifest

if TYPE_CHECKING:
    import polars as pl

ROWS, CHARACTERS = 8, 120  # of a preview
ORIGIN = ("kind", "prompt", "chosen", "rejected", "grade", "weight", "case", "rank", "similarity")


def metadata(
    project: Project, planner: LoopPlanner, iteration: str, status: str, manifest: Manifest, seconds: float
) -> dict[str, Any]:
    """All of it: reused or computed, preview, plots, links, counts, work, cost, identity, columns."""
    opened = project.store.iterations(project.experiment.name)
    keys = opened if iteration == BASE else [iteration]
    look = ProjectLook(project, planner, keys, iteration, [key for key in opened if key <= iteration])
    shown: dict[str, Any] = {"status": status}
    if not manifest.collected:
        try:
            shown.update(of_table(project, manifest))
            shown.update(plots(look, manifest.stage))
            if manifest.stage == "preference_pairs":
                shown["where_pairs_come_from"] = dg.MetadataValue.md(origins(look, iteration))
        except Exception as error:  # a look at a stage must not fail it
            shown["preview"] = f"cannot be shown: {type(error).__name__}: {error}"
    shown["links"] = dg.MetadataValue.md(links(iteration, manifest))
    if manifest.run_id:
        shown["computed_by_run"] = dg.MetadataValue.dagster_run(manifest.run_id)
    if {"policy", "previous_adapter"} & set(STAGES[manifest.stage].producers()):
        earlier = promoted_before(look, iteration)
        shown["starts_from"] = f"adapter of iteration {earlier}" if earlier else start_of(planner)
        if earlier:
            shown["previous_adapter"] = dg.MetadataValue.url(page("promoted_adapter", earlier))
    if manifest.not_repeatable:
        shown["not_repeatable"] = manifest.not_repeatable
    for kind, done in manifest.work.items():
        if isinstance(done, int):
            shown[kind] = done
        else:
            shown[f"{kind}_reused"], shown[f"{kind}_computed"] = done["reused"], done["computed"]
    return shown | {
        **facts(manifest),
        "seconds_to_compute": manifest.seconds,
        "seconds_now": round(seconds, 3),
        **shown_in_dagster(project, planner, status, manifest),
        "computed_for": manifest.iteration,
        "fingerprint": manifest.fingerprint,
        "inputs": manifest.inputs,
    }


def facts(manifest: Manifest) -> dict[str, Any]:
    """The stage's counts and rates; of scores the means, which Dagster draws by partition, and a table."""
    found = {name: fact for name, fact in manifest.facts.items() if name != "vectors_mark"}
    if "general" not in found:
        return found
    shares = {
        **{
            f"{split}_{kind}": share
            for split in ("validation", "test")
            for kind, share in found["domain"][split].items()
        },
        **{f"general_{task}": scored["accuracy"] for task, scored in found["general"].items()},
    }
    rows = [(name, interval(share), share["n"]) for name, share in shares.items()]
    means = {name: share["mean"] for name, share in shares.items() if share["n"]}
    perplexities = {f"word_perplexity_{task}": its["word_perplexity"] for task, its in passages_of(found).items()}
    return {
        "scores": dg.MetadataValue.md(as_markdown(("percent", "mean [95 % interval]", "rows"), rows)),
        **means,
        **perplexities,
    }


def promoted_before(look: ProjectLook, iteration: str) -> str | None:
    try:
        return look.planner.promoted_before(iteration)
    except Unsettled:
        return None


# -- rows and columns ------------------------------------------------------------------------------


def of_table(project: Project, manifest: Manifest) -> dict[str, Any]:
    """Number of rows, the first of them, the columns and where those come from, of a stage's main table."""
    stage = STAGES[manifest.stage]
    name = stage.main_table or stage.name
    if f"{name}.parquet" not in manifest.files:
        return {}

    from resources.store.tables import read_table
    from schemas.tables import TABLES

    rows = read_table(project.store.open(manifest) / f"{name}.parquet")
    lineage = {
        name: [dg.TableColumnDep(*source.split(".")) for source in given] for name, given in stage.lineage.items()
    }
    shown = {
        "dagster/row_count": rows.height,
        "preview": dg.MetadataValue.md(preview(rows)),
        "dagster/column_schema": dg.TableSchema(
            [
                dg.TableColumn(
                    column,
                    str(field.dtype),
                    description=field.description,
                    constraints=dg.TableColumnConstraints(nullable=field.nullable, unique=field.unique),
                )
                for column, field in TABLES[name].to_schema().columns.items()
            ]
        ),
    }
    return shown | ({"dagster/column_lineage": dg.TableColumnLineage(lineage)} if lineage else {})


def preview(rows: "pl.DataFrame") -> str:
    """The first rows as a Markdown table; what is in a cell stays text."""
    more = f"\n\n{rows.height - ROWS} more rows: `apt-assets show`" if rows.height > ROWS else ""
    return as_markdown(rows.columns, rows.head(ROWS).rows()) + more


def as_markdown(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    return markdown.table(columns, [[as_cell(value) for value in row] for row in rows])


def as_cell(value: Any) -> str:
    """A value as inline code, in which Markdown and HTML are text; numbers as they are."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if not isinstance(value, str):
        return "" if value is None else str(value)
    short = value if len(value) <= CHARACTERS else value[: CHARACTERS - 1] + "…"
    plain = "".join(c if c.isprintable() else " " for c in short).replace("`", "'").replace("|", "¦")
    return f"`{plain}`" if plain.strip() else ""


# -- plots -----------------------------------------------------------------------------------------


def plots(look: ProjectLook, stage: str) -> dict[str, Any]:
    """The stage's plots, as images in Markdown."""
    found = {plot: plot.data(look) for plot in STAGES[stage].plots}
    return {plot.name: as_image(plot.name, plot.draw(data)) for plot, data in found.items() if data}


def as_image(name: str, svg: str) -> Any:
    return dg.MetadataValue.md(f"![{name}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})")


def origins(look: ProjectLook, iteration: str) -> str:
    """Pairs of each kind with the bad case, the answer, its grade and the similarity that led to them, and
    links to the tables these stand in, and to the adapter that answered."""
    pairs = look.table(iteration, "preference_pairs")
    if pairs is None:
        return "; ".join(look.notes)
    rows = with_cases(look, iteration, pairs)
    columns = [name for name in ORIGIN if name in rows.columns]
    earlier = promoted_before(look, iteration)
    start = start_of(look.planner)
    without = "none, the base model" if start == "the base model" else start
    answered_by = f"[iteration {earlier}]({page('promoted_adapter', earlier)})" if earlier else without
    tables = ("eval_predictions", "bad_cases", "neighbors", "similar_predictions", "doubtful_golds")
    linked = ", ".join(f"[{name}]({page(name, iteration)})" for name in tables)
    shown = as_markdown(columns, rows.select(columns).rows())
    return f"{shown}\n\nMore in {linked}. Adapter that answered: {answered_by}."


# -- links -----------------------------------------------------------------------------------------


def page(asset: str, iteration: str) -> str:
    """Where the Dagster UI shows a partition of an asset."""
    return f"/assets/{asset}" if iteration == BASE else f"/assets/{asset}?partition={iteration}"


def links(iteration: str, manifest: Manifest) -> str:
    """The partitions that this one was made from, and those made from it."""
    stage = STAGES[manifest.stage]
    above = [name for name in stage.input_stages() if STAGES[name].asset]
    below = [s.name for s in STAGES.values() if stage.name in s.input_stages() and s.asset]
    parts = []
    for what, names in (("made from", above), ("used by", below)):
        if names:
            shown = (f"[{name}]({page(name, made_by(iteration, name)[0])})" for name in names)
            parts.append(f"{what} {', '.join(shown)}")
    return "; ".join(parts) or "nothing in the graph"


NOT_CHECKED = {"comparison": "not checked: the experiment asks for none, or there is nothing to compare"}


def check_metadata(check: dict[str, Any], iteration: str, verdict: dict[str, Any]) -> dict[str, Any]:
    """What a gate check shows: the comparison in a sentence, what follows from it, and its numbers."""
    from apt_assets.method.check import Check

    scores, pairs, training = (
        f"[{what}]({page(stage, iteration)})"
        for what, stage in (
            ("scores", "benchmark_scores"),
            ("pairs", "preference_pairs"),
            ("training", "adapter_checkpoint"),
        )
    )
    follows = "The adapter is promoted: the next iteration starts from it."
    if verdict["passed"] and verdict["scale"] != 1:
        follows = (
            f"The adapter is promoted at {verdict['scale']:g} of its scale, at which this holds: as it was trained, it "
            "was refused. The next iteration starts from it."
        )
    if undecided(verdict):
        follows = (
            f"It waits for a person: `apt-assets approve {number_of(iteration)} --by NAME --reason TEXT`, or with "
            "`--refuse`; or `apt-assets review`; or the job `approve` here, in its Launchpad. Then materialise "
            "promoted_adapter; the loop driver does that by itself."
        )
    if not verdict["passed"]:
        follows = (
            "Nothing is promoted: the loop stops, and what was promoted before stays in use. To go on, land new data "
            f"(`apt-assets land FILE`), or change a setting and run again. Its {scores}, {pairs} and {training} tell "
            "why it fell short; `apt-assets report` shows what was lost, row by row."
        )
    return {
        "comparison": Check(**check).sentence(),
        "what_follows": dg.MetadataValue.md(follows),
        **check,
    }
