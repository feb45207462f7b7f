"""The code location that Dagster loads."""

import dagster as dg

from apt_assets.orchestration.definitions import build_definitions
from apt_assets.project import Project
from resources.threads import set_threads


@dg.definitions
def defs() -> dg.Definitions:
    project = Project.open()
    set_threads(project.experiment.policy.threads)  # of the processes that compute: each loads this
    return build_definitions(project)
