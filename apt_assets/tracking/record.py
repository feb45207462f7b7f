"""The record of an iteration: what every tracker is told of it."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apt_assets.project import Project
from apt_assets.promotion import LoopPlanner
from apt_assets.report.findings import settings_of
from apt_assets.report.look import ProjectLook
from apt_assets.report.results import facts
from apt_assets.settings.iterations import BASE
from apt_assets.tracking.outcome import Outcome
from resources.store.digest import digest_json


@dataclass(frozen=True)
class Record:
    """An iteration as trackers show it.

    experiment: its name. outcome: see there.
    settings: dotted key -> value, of every setting that can decide a result.
    scores: name -> number. Shares are 0 to 1, with their 95 % interval as NAME_low and NAME_high and the rows that
        they are of as NAME_n; of the gate's checks the difference with its bounds; bad cases, pairs.
    curve: by optimiser step, name -> number, `step` among them; empty where gc removed the training log.
    tags: what is said in words: the gate's verdict, and the digests by which the store has the artifacts.
    report: the page of all iterations, as it is now.
    adapter: a folder with the promoted adapter and its card, where a tracker keeps adapters and gc did not remove it.
    """

    experiment: str
    outcome: Outcome
    settings: dict[str, Any]
    scores: dict[str, float]
    curve: list[dict[str, float]]
    tags: dict[str, str]
    report: Path
    adapter: Path | None = None

    @property
    def name(self) -> str:
        """Of the run: the experiment, the iteration, and so much of the digest that no two are alike."""
        return f"{self.experiment}-{self.outcome.iteration}-{self.outcome.digest[:12]}"


def record_of(
    project: Project, planner: LoopPlanner, outcome: Outcome, report: Path, adapter: Path | None = None
) -> Record:
    """Everything in it is read from manifests and artifacts of the store."""
    key = outcome.iteration
    verdict = planner.verdict(key)
    assert verdict is not None, "an outcome has one"
    look = ProjectLook(project, planner, [key], key)
    log = look.table(key, "adapter_checkpoint", "training_log")
    rows = [] if log is None else log.to_dicts()
    counted = {
        "bad_cases": facts(planner, key, "bad_cases").get("rows"),
        "pairs": facts(planner, key, "adapter_checkpoint").get("pairs"),
    }
    scored = {
        **facts(planner, key, planner.scored_by(key)),
        "base": facts(planner, BASE, "base_scores"),
        "gate": {check["name"]: check for check in verdict["checks"]},
        "counts": {name: count for name, count in counted.items() if count is not None},
    }
    return Record(
        experiment=project.experiment.name,
        outcome=outcome,
        settings={one["key"]: one["value"] for one in settings_of(project.experiment)},
        scores=dict(numbers(scored)),
        curve=[{name: value for name, value in row.items() if value is not None} for row in rows],
        tags=tags_of(project, outcome, verdict),
        report=report,
        adapter=adapter,
    )


def tags_of(project: Project, outcome: Outcome, verdict: dict[str, Any]) -> dict[str, str]:
    """apt.digest is what an outcome is known by; apt.artifact.STAGE the digest under which the store has it, as
    `apt-assets explain` shows it."""
    return {
        "apt.experiment": project.experiment.name,
        "apt.iteration": outcome.iteration,
        "apt.digest": outcome.digest,
        "apt.gate": "promoted" if outcome.promoted else "refused",
        "apt.gate.reason": verdict["reason"],
        "apt.gate.scale": f"{verdict['scale']:g}",
        **{f"apt.artifact.{stage}": f"sha256:{digest}" for stage, digest in outcome.artifacts.items()},
    }


def numbers(found: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """(name/of/it, number) of every number in nested mappings. A mean, with its bounds, is told under the name of
    what it is the mean of."""
    plain = {key: re.sub(r"[^0-9A-Za-z_.-]", "_", key) for key in found}
    met = Counter(plain.values())
    for key, value in found.items():
        # What would be one name for a tracker is told apart by a digest.
        name = f"{prefix}{plain[key]}{'' if met[plain[key]] == 1 else f'-{digest_json(key)[:8]}'}"
        if isinstance(value, dict) and "mean" in value:
            yield name, value["mean"]
            yield from ((f"{name}_{part}", value[part]) for part in ("low", "high", "n") if part in value)
        elif isinstance(value, dict):
            yield from numbers(value, f"{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name, value


def in_words(value: Any) -> str:
    """A setting's value as trackers take it that know only text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
