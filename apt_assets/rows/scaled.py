"""One adapter at smaller scales: scored as at its own, row by row, on what decides the gate."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apt_assets.rows.benchmark import scores_of
from apt_assets.rows.policy import Adapter
from apt_assets.settings.iterations import ADAPTER_PARTS
from resources.store.digest import digest_file

if TYPE_CHECKING:
    import polars as pl

    from apt_assets.engine.step import Step
    from apt_assets.method.gate import Scores


@contextmanager
def scaled(adapter: Adapter, factor: float) -> Iterator[Adapter]:
    """The adapter with its update multiplied by `factor`; its files are gone afterwards."""
    from resources.model.adapter import scale

    with tempfile.TemporaryDirectory() as folder:
        scale(adapter.folder, factor, Path(folder))
        yield Adapter(Path(folder), {part: digest_file(Path(folder) / part) for part in ADAPTER_PARTS})


def scores_at(
    step: "Step", adapter: Adapter, factor: float, heldout: "dict[str, pl.DataFrame]", labels: list[str]
) -> "Scores":
    step.tell(f"the adapter at {factor:g} of its scale")
    with scaled(adapter, factor) as smaller:
        return scores_of(step, smaller, heldout, labels)


def point(factor: float, verdict: dict[str, Any]) -> dict[str, Any]:
    """{scale, passed, reason, domain, general, ...} of the curve: what each check found of the adapter at a scale."""
    found = {check["name"]: check["candidate"] for check in verdict["checks"]}
    return {"scale": factor, "passed": verdict["passed"], "reason": verdict["reason"], **found}
