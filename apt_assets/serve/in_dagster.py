"""What is live, recorded in Dagster as a materialisation of `served_adapter`."""

import time

import dagster as dg

from apt_assets.engine.display import Display
from apt_assets.orchestration.instance import Dagster, readable_history
from apt_assets.orchestration.served import NAME
from apt_assets.project import Project
from apt_assets.serve.live import Specialist
from apt_assets.settings.experiment import UsageError


def record(project: Project, display: Display, specialist: Specialist) -> None:
    """Tell Dagster what is live from now on. What keeps Dagster from it is told, and keeps nobody from an answer."""
    event = dg.AssetMaterialization(
        NAME,
        metadata={
            "iteration": specialist.iteration or "none: what the loop starts from",
            "model": specialist.name,
            "adapter": specialist.digest,
            "live since": dg.MetadataValue.timestamp(time.time()),
        },
        tags={"dagster/data_version": specialist.digest},
    )
    try:
        instance = Dagster(project, display).instance
        with readable_history(project), instance:
            instance.report_runless_asset_event(event)
    except UsageError as error:
        display.line(f"{NAME}: {error}")
