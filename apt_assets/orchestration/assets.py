"""Stages as Dagster assets: names, dependencies, partitions, checks. What they compute is elsewhere.

Dagster's own memory is never what decides to recompute: each step asks the planner, and reuses the
verified artifact if its fingerprint is known.
"""

import warnings
from collections.abc import Iterator
from typing import Any

import dagster as dg

from apt_assets.engine.display import Display
from apt_assets.engine.execute import NothingToDo, Outcome, StageBlocked, run_stage
from apt_assets.engine.plan import BELOW
from apt_assets.engine.progress import Progress, throttled
from apt_assets.engine.stage import SOURCES, Source, Stage
from apt_assets.orchestration.ledger import Ledger, code_version, dependencies
from apt_assets.orchestration.metadata import NOT_CHECKED, check_metadata, metadata
from apt_assets.project import Project
from apt_assets.report.ending import of_the_machine
from apt_assets.settings.experiment import UsageError
from apt_assets.settings.iterations import BASE, is_key, key_of, number_of
from apt_assets.tracking.beside import send_beside
from resources.model.lm_eval_tasks import TaskError
from resources.store import locks

# Notices of Dagster's beta and preview API are for whoever maintains this, not for its users.
warnings.simplefilter("ignore", dg.BetaWarning)
warnings.simplefilter("ignore", dg.PreviewWarning)

ITERATIONS = dg.DynamicPartitionsDefinition(name="iteration")
# One run of the loop at a time: iteration t+1 needs what t promoted. The limit is in dagster.yaml.
POOL = "apt_loop"
# Dagster lists groups by name, and draws each as one box until it is opened: the stages have the order of the loop.
SOURCES_GROUP = "0_sources"
# Marks the failure of a step that a disk, its rights or a folder's files are the reason of, not what it computes.
MACHINE = "machine"
LOG_SECONDS = 5.0  # between two log lines that tell how far a part of a stage is


def source_assets(project: Project) -> list[Any]:
    """What comes from outside the graph, as observable source assets."""
    return [source_asset(project, source) for source in SOURCES.values() if source.name in source.shown_as]


def source_asset(project: Project, source: Source) -> Any:
    about: Any = {"name": source.name, "group_name": SOURCES_GROUP, "description": source.description}
    if not source.partitioned:

        @dg.observable_source_asset(**about)
        def for_all(context) -> dg.DataVersion:
            return dg.DataVersion(Ledger(project, context.instance).source_version(source.name, BASE) or "unknown")

        return for_all

    @dg.observable_source_asset(partitions_def=ITERATIONS, **about)
    def for_each(context) -> dg.DataVersionsByPartition:
        ledger = Ledger(project, context.instance)
        # Anyone can add a partition in the UI, and one that is no iteration must not keep the others from view.
        keys = filter(is_key, context.instance.get_dynamic_partitions("iteration"))
        versions = {key: ledger.source_version(source.name, key) for key in keys}
        return dg.DataVersionsByPartition({k: v for k, v in versions.items() if v is not None})

    return for_each


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
        except NothingToDo as nothing:
            context.log.info(f"{nothing}: the loop ends here")
            display.line(f"{nothing}: the loop ends here")
            return
        if stage.name == "promoted_adapter":
            announce(project, iteration, context, display)
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(outcome.manifest.data_version),
            metadata=metadata(project, project.planner(), iteration, outcome.status, outcome.manifest, outcome.seconds),
        )

    return asset


def gate_checks(project: Project, display: Display) -> dg.AssetChecksDefinition:
    """The gate as blocking checks on benchmark_scores: a refusal stops promoted_adapter."""
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
            ("likelihood", "Nor is the log-likelihood of the golds of general items."),
            ("perplexity", "Nor is word perplexity of passages above that of base_scores."),
            ("judge", "The assessor agrees with people well enough to decide (assessor.calibration)."),
        )
    ]

    @dg.multi_asset_check(name="gate", specs=specs, pool=POOL)
    def gate(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        iteration = key_of(number_of(context.partition_key))
        run(project, iteration, "gate", context, display)
        verdict = project.planner().verdict(iteration)
        assert verdict is not None, "the gate was computed just now"
        if not verdict["passed"]:
            announce(project, iteration, context, display)
        found = {f"{check['name']}_gate": check for check in verdict["checks"]}
        for spec in specs:
            check = found.get(spec.name)
            yield dg.AssetCheckResult(
                asset_key="benchmark_scores",
                check_name=spec.name,
                passed=check is None or check["passed"],
                severity=dg.AssetCheckSeverity.ERROR,
                metadata=NOT_CHECKED if check is None else check_metadata(check, iteration, verdict),
            )

    return gate


def run(project: Project, iteration: str, name: str, context: Any, display: Display) -> Outcome:
    """Run one stage for a Dagster step, with its log lines in Dagster and in the terminal."""
    # Held until the process ends: how others know that a run is alive.
    project.store.locks.keep(f"{locks.RUN}{context.run.run_id}")
    if iteration != BASE:
        if (reason := project.planner().stopped(iteration)) is not None:
            what = f"iteration {iteration} does not run: {reason}; land data or change a setting"
            raise dg.Failure(description=what, allow_retries=False)
        if gap := unopened_before(project, iteration):
            what = f"iteration {iteration} does not run: iteration {gap} was never opened"
            raise dg.Failure(description=what, allow_retries=False)
        project.open_iteration(iteration)

    def log(line: str) -> None:
        context.log.info(line)
        display.line(line)

    in_log = throttled(lambda at: context.log.info(str(at)), LOG_SECONDS)

    def show(at: Progress) -> None:
        in_log(at)
        display.progress(at)

    try:
        return run_stage(project, iteration, name, run_id=context.run.run_id, log=log, show=show)
    except NothingToDo:
        raise
    except (StageBlocked, UsageError, TaskError) as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None
    except Exception as error:
        if (reason := of_the_machine(error)) is not None:
            raise dg.Failure(description=reason, metadata={MACHINE: True}) from error
        raise


def unopened_before(project: Project, iteration: str) -> str | None:
    """The first iteration before this one that is not there. Were this one opened, those in between would be run too,
    whether or not the loop has ended."""
    opened = set(project.store.iterations(project.experiment.name))
    return next((key for key in map(key_of, range(1, number_of(iteration))) if key not in opened), None)


def announce(project: Project, iteration: str, context: Any, display: Display) -> None:
    """Log what the next iteration starts from and is compared with: the loop edges. And tell the trackers."""
    following = key_of(number_of(iteration) + 1)
    Ledger(project, context.instance).observe(
        following, [source.name for source in SOURCES.values() if source.producer is not None]
    )

    def tell(line: str) -> None:
        context.log.info(line)
        display.line(line)

    send_beside(project, tell)
