"""Stages as Dagster assets: names, dependencies, partitions, checks. What they compute is elsewhere.

Dagster's own memory is never what decides to recompute: each step asks the planner, and reuses the
verified artifact if its fingerprint is known.
"""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg

from apt_assets.engine.execute import Outcome, StageBlocked, run_stage
from apt_assets.engine.plan import Unsettled
from apt_assets.engine.stages import BASE, STAGES, Stage
from apt_assets.partitions import key_of, number_of
from apt_assets.project import Project
from resources.artifact_store import Manifest
from resources.digest import digest_json

# Notices of Dagster's beta and preview API are for whoever maintains this, not for its users.
warnings.simplefilter("ignore", dg.BetaWarning)
warnings.simplefilter("ignore", dg.PreviewWarning)

ITERATIONS = dg.DynamicPartitionsDefinition(name="iteration")
# One run of the loop at a time: iteration t+1 needs what t promoted. The limit is in dagster.yaml.
POOL = "apt_loop"

# Inputs of the planner that are not assets of their own; what stands for them in the graph.
IN_GRAPH: dict[str, tuple[str, ...]] = {
    "iteration": (),
    "gate": ("benchmark_scores", "base_scores"),
    "landed_now": ("landing_files",),
    "promoted_scores": (),
}

LANDING_FILES = (
    "The landed files that an iteration uses, by content. An iteration keeps the list of files that were "
    "there when it was opened; an edit or a withdrawal of one of them shows up here as a new data version."
)
PREVIOUS_ADAPTER = (
    "The loop edge. Iteration t starts from the adapter that the last passed gate before t promoted, but an "
    "arrow promoted_adapter -> policy would be a cycle between asset keys, which Dagster refuses. So the edge "
    "is an event: when the gate of t has decided, its step logs an observation of previous_adapter[t+1] whose "
    "data version is that of the adapter, and Dagster then shows policy[t+1] as stale with this asset as the "
    'cause. "none" is the base model. Observing it by hand reads the same answer from the store. '
    "See docs/adr/0001-the-loop-edge.md."
)


def source_assets(project: Project) -> list[dg.SourceAsset]:
    """The two edges that come from outside the graph, as observable source assets."""

    @dg.observable_source_asset(partitions_def=ITERATIONS, group_name="data", description=LANDING_FILES)
    def landing_files(context) -> dg.DataVersionsByPartition:
        keys = context.instance.get_dynamic_partitions("iteration")
        return dg.DataVersionsByPartition({k: digest_json(project.landing_files(k)) for k in keys})

    @dg.observable_source_asset(partitions_def=ITERATIONS, group_name="policy", description=PREVIOUS_ADAPTER)
    def previous_adapter(context) -> dg.DataVersionsByPartition:
        keys = context.instance.get_dynamic_partitions("iteration")
        versions = {key: previous_adapter_version(project, key) for key in keys}
        return dg.DataVersionsByPartition({k: v for k, v in versions.items() if v is not None})

    return [landing_files, previous_adapter]


def previous_adapter_version(project: Project, iteration: str) -> str | None:
    """Data version of the adapter that the iteration starts from; None while that is undecided."""
    planner = project.planner()
    try:
        earlier = planner.promoted_before(iteration)
    except Unsettled:
        return None
    if earlier is None:
        return "none"
    manifest = planner.stage(earlier, "adapter_checkpoint").manifest
    return manifest.data_version if manifest else None


def stage_asset(project: Project, stage: Stage, echo: Callable[[str], None]) -> dg.AssetsDefinition:
    """One stage as an asset, partitioned by iteration unless the stage says otherwise."""

    @dg.asset(
        name=stage.name,
        deps=dependencies(stage),
        partitions_def=ITERATIONS if stage.partitioned else None,
        code_version=code_version(project, stage),
        group_name=stage.group,
        kinds=set(stage.kinds),
        description=stage.description,
        pool=POOL,
    )
    def asset(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        iteration = context.partition_key if stage.partitioned else BASE
        if stage.name == "promoted_adapter" and project.planner().gate(iteration) is None:
            # The checks may have been left out of the run's selection; the gate may not.
            run(project, iteration, "gate", context, echo)
        outcome = run(project, iteration, stage.name, context, echo)
        if stage.name == "promoted_adapter":
            announce(project, iteration, context)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(outcome.manifest.data_version), metadata=metadata(outcome)
        )

    return asset


def gate_checks(project: Project, echo: Callable[[str], None]) -> dg.AssetChecksDefinition:
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
            ("general", "General accuracy is not below the base model's by more than the tolerance."),
        )
    ]

    @dg.multi_asset_check(name="gate", specs=specs, pool=POOL)
    def gate(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        iteration = context.partition_key
        run(project, iteration, "gate", context, echo)
        verdict = project.planner().gate(iteration)
        assert verdict is not None, "the gate was computed just now"
        if not verdict["passed"]:
            announce(project, iteration, context)
        for check in verdict["checks"]:
            yield dg.AssetCheckResult(
                asset_key="benchmark_scores",
                check_name=f"{check['name']}_gate",
                passed=check["passed"],
                severity=dg.AssetCheckSeverity.ERROR,
                metadata=check,
            )

    return gate


def run(project: Project, iteration: str, name: str, context: Any, echo: Callable[[str], None]) -> Outcome:
    """Run one stage for a Dagster step, with its log lines in Dagster and in the terminal."""
    if iteration != BASE:
        number_of(iteration)
        if (reason := project.planner().stopped(iteration)) is not None:
            raise dg.Failure(description=f"iteration {iteration} does not run: {reason}", allow_retries=False)
        project.open_iteration(iteration)

    def log(line: str) -> None:
        context.log.info(line)
        echo(line)

    try:
        return run_stage(project, iteration, name, run_id=context.run.run_id, log=log)
    except StageBlocked as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None


def announce(project: Project, iteration: str, context: Any) -> None:
    """Log what the next iteration starts from: the loop edge (see `previous_adapter`)."""
    following = key_of(number_of(iteration) + 1)
    version = previous_adapter_version(project, following)
    if version is not None:
        context.instance.report_runless_asset_event(observation("previous_adapter", following, version))


def observation(asset: str, iteration: str, version: str) -> dg.AssetObservation:
    return dg.AssetObservation(asset, partition=iteration, tags={"dagster/data_version": version})


def dependencies(stage: Stage) -> list[str]:
    names: list[str] = []
    for name in stage.input_stages():
        names += IN_GRAPH.get(name, (name,))
    return list(dict.fromkeys(names))


def code_version(project: Project, stage: Stage) -> str:
    """The stage's own; promoted_adapter also carries the gate's, which is no asset itself."""
    own = stage.code_version(project.experiment)
    if stage.name == "promoted_adapter":
        return f"{own}+{STAGES['gate'].code_version(project.experiment)}"
    return own


def metadata(outcome: Outcome) -> dict[str, Any]:
    """What a materialisation shows: reused or computed, identity, inputs, counts, cost."""
    manifest: Manifest = outcome.manifest
    return {
        "status": outcome.status,
        "fingerprint": manifest.fingerprint,
        "inputs": manifest.inputs,
        "seconds_to_compute": manifest.seconds,
        "seconds_now": round(outcome.seconds, 3),
        "computed_by_run": manifest.run_id,
        **manifest.facts,
    }
