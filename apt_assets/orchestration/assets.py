"""Stages as Dagster assets: names, dependencies, partitions, checks. What they compute is elsewhere.

Dagster's own memory is never what decides to recompute: each step asks the planner, and reuses the
verified artifact if its fingerprint is known.
"""

import warnings
from collections.abc import Iterator
from typing import Any

import dagster as dg

from apt_assets.engine.display import Display
from apt_assets.engine.execute import NothingToTrain, Outcome, StageBlocked, run_stage
from apt_assets.engine.plan import BELOW
from apt_assets.engine.progress import Progress, throttled
from apt_assets.engine.stage import Stage
from apt_assets.orchestration.ledger import FOR_EVERY_ITERATION, Ledger, code_version, dependencies
from apt_assets.orchestration.metadata import check_metadata, metadata
from apt_assets.project import Project
from apt_assets.settings.iterations import BASE, is_key, key_of, number_of
from resources.store import locks

# Notices of Dagster's beta and preview API are for whoever maintains this, not for its users.
warnings.simplefilter("ignore", dg.BetaWarning)
warnings.simplefilter("ignore", dg.PreviewWarning)

ITERATIONS = dg.DynamicPartitionsDefinition(name="iteration")
# One run of the loop at a time: iteration t+1 needs what t promoted. The limit is in dagster.yaml.
POOL = "apt_loop"
LOG_SECONDS = 5.0  # between two log lines that tell how far a part of a stage is

SOURCES = {
    "landing_files": (
        "data",
        "The landed files that an iteration uses, by what their rows say. An iteration keeps the list of files "
        "that were there when it was opened; an edit or a withdrawal of one shows up here as a new data version.",
    ),
    "landing_folder": ("data", "All files landed by now: what base_scores are of."),
    "base_model": ("policy", "The base model, by the content of its files: overwriting one in place shows up here."),
    "initial_adapter": (
        "policy",
        "The adapter that the loop starts from (policy.initial_adapter), by the content of its two files; none: it "
        "starts from the base model.",
    ),
    "encoder": ("retrieval", "The sentence encoder, by the content of its files."),
    "grader": ("mining", "The local model that grades by a rubric, by the content of its files; none if none does."),
    "benchmark_tasks": ("evaluation", "The general tasks that the experiment names, and their data, by content."),
    "previous_adapter": (
        "policy",
        "The loop edge. Iteration t starts from the adapter that the last passed gate before t promoted, but an "
        "arrow promoted_adapter -> policy would be a cycle between asset keys, which Dagster refuses. So the edge "
        "is an event: when the gate of t has decided, its step logs an observation of previous_adapter[t+1] whose "
        "data version is that of the adapter, and Dagster then shows policy[t+1] as stale with this asset as the "
        'cause. Before the first promotion it is the initial adapter, or "none", the base model. Observing it by '
        "hand reads the same answer from the store. "
        "See docs/adr/0001-the-loop-edge.md.",
    ),
    "reference_scores": (
        "evaluation",
        "The other loop edge, made in the same way: the domain scores that the gate compares with, which are those "
        "of the adapter promoted before this iteration, or else base_scores.",
    ),
}


def source_assets(project: Project) -> list[Any]:
    """What comes from outside the graph, as observable source assets."""
    return [source_asset(project, name, *about) for name, about in SOURCES.items()]


def source_asset(project: Project, name: str, group: str, description: str) -> Any:
    if name not in FOR_EVERY_ITERATION:

        @dg.observable_source_asset(name=name, group_name=group, description=description)
        def source(context) -> dg.DataVersion:
            return dg.DataVersion(Ledger(project, context.instance).source_version(name, BASE) or "unknown")

        return source

    @dg.observable_source_asset(name=name, partitions_def=ITERATIONS, group_name=group, description=description)
    def partitioned_source(context) -> dg.DataVersionsByPartition:
        ledger = Ledger(project, context.instance)
        # Anyone can add a partition in the UI, and one that is no iteration must not keep the others from view.
        keys = filter(is_key, context.instance.get_dynamic_partitions("iteration"))
        versions = {key: ledger.source_version(name, key) for key in keys}
        return dg.DataVersionsByPartition({k: v for k, v in versions.items() if v is not None})

    return partitioned_source


def stage_asset(project: Project, stage: Stage, display: Display) -> dg.AssetsDefinition:
    """One stage as an asset, partitioned by iteration unless the stage says otherwise."""

    @dg.asset(
        name=stage.name,
        deps=dependencies(stage),
        partitions_def=ITERATIONS if stage.partitioned else None,
        code_version=code_version(project, stage),
        group_name=stage.group,
        kinds=set(stage.kinds),
        owners=project.experiment.owners,
        description=stage.description,
        pool=POOL,
        # An iteration without bad cases leaves these out, and Dagster skips what is below.
        output_required="bad_cases" not in BELOW[stage.name],
    )
    def asset(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        iteration = key_of(number_of(context.partition_key)) if stage.partitioned else BASE
        if stage.name == "promoted_adapter" and project.planner().verdict(iteration) is None:
            # The checks may have been left out of the run's selection; the gate may not.
            run(project, iteration, "gate", context, display)
        try:
            outcome = run(project, iteration, stage.name, context, display)
        except NothingToTrain as nothing:
            context.log.info(f"{nothing}: the loop ends here")
            display.line(f"{nothing}: the loop ends here")
            return
        if stage.name == "promoted_adapter":
            announce(project, iteration, context)
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(outcome.manifest.data_version),
            metadata=metadata(project, project.planner(), iteration, outcome.status, outcome.manifest, outcome.seconds),
        )

    return asset


def gate_checks(project: Project, display: Display) -> dg.AssetChecksDefinition:
    """The gate as two blocking checks on benchmark_scores: a refusal stops promoted_adapter."""
    specs = [
        dg.AssetCheckSpec(
            name=f"{name}_gate",
            asset="benchmark_scores",
            additional_deps=["base_scores"],
            partitions_def=ITERATIONS,
            blocking=True,
            description=description,
        )
        for name, description in (
            ("domain", "Validation accuracy is not below that of the promoted adapter (else: roll back)."),
            ("general", "General accuracy is not below that of base_scores by more than the tolerance."),
        )
    ]

    @dg.multi_asset_check(name="gate", specs=specs, pool=POOL)
    def gate(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        iteration = key_of(number_of(context.partition_key))
        run(project, iteration, "gate", context, display)
        verdict = project.planner().verdict(iteration)
        assert verdict is not None, "the gate was computed just now"
        if not verdict["passed"]:
            announce(project, iteration, context)
        for check in verdict["checks"]:
            yield dg.AssetCheckResult(
                asset_key="benchmark_scores",
                check_name=f"{check['name']}_gate",
                passed=check["passed"],
                severity=dg.AssetCheckSeverity.ERROR,
                metadata=check_metadata(check, iteration, gate_passed=verdict["passed"]),
            )

    return gate


def run(project: Project, iteration: str, name: str, context: Any, display: Display) -> Outcome:
    """Run one stage for a Dagster step, with its log lines in Dagster and in the terminal."""
    if iteration != BASE:
        if (reason := project.planner().stopped(iteration)) is not None:
            what = f"iteration {iteration} does not run: {reason}; land data or change a setting"
            raise dg.Failure(description=what, allow_retries=False)
        project.open_iteration(iteration)
    # Held until the process ends: how the loop driver knows that a run is alive.
    project.store.locks.keep(f"{locks.RUN}{context.run.run_id}")

    def log(line: str) -> None:
        context.log.info(line)
        display.line(line)

    in_log = throttled(lambda at: context.log.info(str(at)), LOG_SECONDS)

    def show(at: Progress) -> None:
        in_log(at)
        display.progress(at)

    try:
        return run_stage(project, iteration, name, run_id=context.run.run_id, log=log, show=show)
    except NothingToTrain:
        raise
    except StageBlocked as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None


def announce(project: Project, iteration: str, context: Any) -> None:
    """Log what the next iteration starts from and is compared with: the loop edges."""
    following = key_of(number_of(iteration) + 1)
    Ledger(project, context.instance).observe(following, ("previous_adapter", "reference_scores"))
