"""Everything Dagster sees of a project, as a table of contents."""

import dagster as dg

from apt_assets.engine.display import Display
from apt_assets.engine.stage import STAGES
from apt_assets.orchestration.alert_sensors import build_alert_sensors
from apt_assets.orchestration.approval import approval_job
from apt_assets.orchestration.assets import gate_checks, source_assets, stage_asset
from apt_assets.orchestration.sensors import build_sensors
from apt_assets.orchestration.served import served_adapter
from apt_assets.project import Project


def build_definitions(project: Project, display: Display | None = None) -> dg.Definitions:
    """All assets, checks and jobs of one project; `display` also gets what a step logs."""
    display = display or Display()
    stages = [stage_asset(project, stage, display) for stage in STAGES.values() if stage.asset]
    per_iteration = dg.AssetSelection.assets(*(s.name for s in STAGES.values() if s.partitioned and s.asset))
    for_all = dg.AssetSelection.assets(*(s.name for s in STAGES.values() if not s.partitioned and s.asset))
    jobs = {
        "score_base": dg.define_asset_job("score_base", selection=for_all, description="The gate's reference."),
        "iterate": dg.define_asset_job(
            "iterate",
            selection=per_iteration,
            description="One iteration of the loop; stages that are fresh are reused.",
        ),
    }
    by_people = [approval_job(project)] if project.experiment.gate.approval == "required" else []
    return dg.Definitions(
        assets=[*source_assets(project), *stages, *([served_adapter()] if project.experiment.serve.dagster else [])],
        asset_checks=[gate_checks(project, display)],
        jobs=[*jobs.values(), *by_people],
        sensors=[*build_sensors(project, jobs), *build_alert_sensors(project)],
        executor=dg.in_process_executor,
    )
