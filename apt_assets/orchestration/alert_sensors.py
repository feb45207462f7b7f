"""Alerts of runs that were started in Dagster, by a person or by its daemon: sensors on their status."""

import dagster as dg

from apt_assets.orchestration import approval
from apt_assets.orchestration.alerts import Alerts
from apt_assets.orchestration.delivery import channels
from apt_assets.orchestration.failures import what_failed
from apt_assets.orchestration.sensors import INTERVAL
from apt_assets.project import Project
from apt_assets.settings.iterations import BASE, is_key


def build_alert_sensors(project: Project) -> list[dg.SensorDefinition]:
    """Sensors on the status of runs that were started in Dagster; none where the experiment asks for no alert."""
    settings = project.experiment.alerts
    if settings.webhook is None and not settings.email:
        return []
    for line in channels(settings)[1]:
        dg.get_dagster_logger().warning(line)

    def tell(context: dg.RunStatusSensorContext, failure: str | None) -> None:
        key = context.partition_key or BASE
        if context.dagster_run.job_name != approval.NAME and (key == BASE or is_key(key)):
            with Alerts(project, context.log.warning) as alerts:
                alerts.of_run(key, context.dagster_run.run_id, failure)

    @dg.run_status_sensor(
        name="alert_of_success",
        run_status=dg.DagsterRunStatus.SUCCESS,
        minimum_interval_seconds=INTERVAL,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells by alerts.webhook and alerts.email what a run that was started in Dagster came to.",
    )
    def of_success(context: dg.RunStatusSensorContext) -> None:
        tell(context, None)

    @dg.run_failure_sensor(
        name="alert_of_failure",
        minimum_interval_seconds=INTERVAL,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells of a run that was started in Dagster and failed, or of which the gate refused the adapter.",
    )
    def of_failure(context: dg.RunFailureSensorContext) -> None:
        failed = context.get_step_failure_events()
        tell(context, what_failed(failed[0]) if failed else context.failure_event.message)

    return [of_success, of_failure]
