"""The trace of one stage: what it was computed from, whether that still holds, and what happened."""

from collections.abc import Iterator
from typing import Any

from apt_assets.engine.plan import StagePlan, Unsettled, shorten
from apt_assets.engine.stage import STAGES
from apt_assets.engine.step import FILLING
from apt_assets.loop.work import work_of
from apt_assets.project import Project
from apt_assets.promotion import LoopPlanner
from apt_assets.report.terminal import escaped


def explain(project: Project, name: str, iteration: str) -> dict[str, Any]:
    """{stage, iteration, status, causes, work, ...}: the plan, the trace of the artifact, its
    upstream tree and its journal.

    trace: what the artifact that is there was computed from; None if there is none. upstream: one
    entry per input, with the same of its producer below. journal: the events of this stage, oldest
    first.
    """
    planner = project.planner()
    plan = planner.stage(iteration, name)
    manifest = plan.manifest
    trace = None
    if manifest is not None:
        trace = {
            key: getattr(manifest, key)
            for key in (
                "fingerprint", "data_version", "iteration", "run_id", "created", "seconds", "work",
                "settings", "inputs", "identities", "libraries", "code", "files", "collected", "not_repeatable",
            )
        }  # fmt: skip
    return {
        "iteration": iteration,
        "stage": name,
        "status": plan.status,
        "causes": plan.causes,
        "work": work_of(project, planner, plan).amounts,
        "trace": trace,
        "upstream": upstream(planner, plan),
        "journal": list(journal(project, name, iteration)),
    }


def upstream(planner: LoopPlanner, plan: StagePlan) -> list[dict[str, Any]]:
    """What the stage reads, by input: where it comes from, its version, its status, and the same below."""
    entries = []
    for given in STAGES[plan.stage].inputs:
        entry: dict[str, Any] = {"input": given, "version": plan.inputs.get(given)}
        if (source := source_of(planner, plan.iteration, given)) is not None:
            below = planner.stage(*source)
            entry |= {"iteration": source[0], "stage": source[1], "status": below.status, "causes": below.causes}
            entry["upstream"] = upstream(planner, below) if source[0] == plan.iteration else []
        entries.append(entry)
    return entries


def source_of(planner: LoopPlanner, iteration: str, given: str) -> tuple[str, str] | None:
    """(iteration, stage) that an input comes from; None if it comes from outside the store."""
    try:
        return planner.producer(iteration, given.split("/")[0])
    except Unsettled:
        return None


def journal(project: Project, name: str, iteration: str) -> Iterator[dict[str, Any]]:
    """What happened to one stage of one iteration of this experiment, oldest first."""
    for event in project.store.events():
        own = event.get("experiment", project.experiment.name) == project.experiment.name
        if own and event.get("stage") == name and event.get("iteration") == iteration and event["event"] != FILLING:
            yield event


def as_text(found: dict[str, Any], events: int = 10) -> str:
    """What `explain` found, for people; the last `events` of the journal."""
    lines = [f"{found['stage']} of {found['iteration']} is {found['status']}"]
    lines += [f"  because {cause}" for cause in found["causes"]]
    if trace := found["trace"]:
        by = f"by run {trace['run_id'][:8]}" if trace["run_id"] else ""
        lines += [
            "",
            f"computed {trace['created']} {by} for iteration {trace['iteration']} in {trace['seconds']:.1f} s",
            f"  fingerprint {trace['fingerprint'][:16]}   data version {trace['data_version'][:16]}",
        ]
        if trace["not_repeatable"]:
            lines += [f"  another cold run may differ: {', '.join(trace['not_repeatable'])}"]
        lines += [f"  work        {kind.replace('_', ' ')}: {n}" for kind, n in trace["work"].items()]
        lines += [f"  setting     {key} = {shorten(value)}" for key, value in trace["settings"].items()]
        for kind in ("identities", "libraries"):
            lines += [f"  {kind[:-3] + 'y':<11} {key} {shorten(value)}" for key, value in trace[kind].items()]
        lines += [f"  code        {len(trace['code'])} modules (--json lists them)"]
    lines += ["", "from", *tree(found["upstream"], "  ")]
    lines += ["", f"journal ({len(found['journal'])} events, the last {events})"]
    for event in found["journal"][-events:]:
        reason = event.get("reason") or ""
        text = "; ".join(reason) if isinstance(reason, list) else reason
        text = f"{event['by']}: {text}" if "by" in event else text
        lines.append(f"  {event['time']} {event['event']:<11} {text}".rstrip())
    return str(escaped("\n".join(lines)))


def tree(entries: list[dict[str, Any]], indent: str) -> Iterator[str]:
    seen = set()
    for entry in entries:
        version = shorten(entry["version"]) if entry["version"] else "not settled"
        if "stage" not in entry:
            yield f"{indent}{entry['input']}  {version}"
            continue
        yield f"{indent}{entry['input']}  {version}  <- {entry['stage']} of {entry['iteration']}, {entry['status']}"
        if entry["stage"] not in seen:
            yield from tree(entry["upstream"], indent + "  ")
        seen.add(entry["stage"])
