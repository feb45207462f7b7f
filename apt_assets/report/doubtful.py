"""The golds that may be wrong, for people: what stands against them, and where to correct them."""

from typing import Any

from apt_assets.report.html import Table, rows_of
from apt_assets.report.look import ProjectLook

SHOWN = 10  # of an iteration
# Of DoubtfulGolds and Provenance -> as the page has it, in its order.
COLUMNS = {
    "doubt": "doubt",
    "kind": "kind",
    "prompt": "question",
    "answer": "gold",
    "prediction": "the policy said",
    "other": "similar rows have",
    "votes_other": "votes for that",
    "votes": "votes for the gold",
    "file": "file",
    "line": "line",
}


def doubtful_golds(look: ProjectLook, key: str) -> dict[str, Any] | None:
    """{ranked, over, left_out, softened, rows} of an iteration: how many golds there are of what was answered wrong,
    how many of more doubt than DOUBTFUL, how many rows `pairs.max_doubt` left out, and how many pairs it softened, by
    the pairs that are there; rows: the SHOWN most doubtful, with the line on which each stands now. None: they were
    not ranked."""
    import polars as pl

    from apt_assets.method.doubt import DOUBTFUL
    from apt_assets.report.show import with_lines

    ranked = look.table(key, "doubtful_golds", "doubtful")
    if ranked is None:
        return None
    pairs = look.manifest(key, "preference_pairs")
    facts = pairs.facts if pairs else {}
    rows = ranked.head(SHOWN)
    if (origin := look.table(key, "domain_dataset", "provenance")) is not None:
        lines = with_lines(look.project, origin.join(rows, on="row_id", how="semi")).select("row_id", "file", "line")
        rows = rows.join(lines, on="row_id", how="left", maintain_order="left")
    over = ranked.filter(pl.col("doubt") > DOUBTFUL).height
    dealt_with = {name: facts.get(name, 0) for name in ("left_out", "softened")}
    return {"ranked": ranked.height, "over": over, **dealt_with, "rows": rows.to_dicts()}


def section(found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """What the page shows of each iteration."""
    return [{"iteration": key, "counts": counts(its), "rows": table(its["rows"])} for key, its in found.items()]


def counts(its: dict[str, Any]) -> str:
    from apt_assets.method.doubt import DOUBTFUL

    left_out = f"; {its['left_out']} rows are left out of the pairs" if its["left_out"] else ""
    softened = f"; {its['softened']} pairs count less in training" if its["softened"] else ""
    return f"{its['over']} of {its['ranked']} golds have a doubt over {DOUBTFUL:g}{left_out}{softened}"


def table(rows: list[dict[str, Any]]) -> Table:
    named = [{shown: row[name] for name, shown in COLUMNS.items() if name in row} for row in rows]
    return rows_of(named, list(COLUMNS.values()))
