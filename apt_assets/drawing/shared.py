"""Plots that more than one stage has."""

from typing import Any

from apt_assets.drawing import plots
from apt_assets.engine.stage import Look, Plot


def confusion(look: Look) -> dict[str, Any] | None:
    from apt_assets.method import measures

    items, labels = look.scored(look.shown, "domain_items"), look.labels()
    if items is None or items.height == 0 or not labels:
        return None
    return {"table": measures.confusion(items, labels), "name": look.shown}


CONFUSION = Plot(
    "confusion", "Gold against said label, held-out rows", confusion, lambda data: plots.confusion_table(**data)
)
