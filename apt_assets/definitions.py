"""The code location that Dagster loads."""

import dagster as dg

from apt_assets.orchestration.definitions import build_definitions
from apt_assets.project import Project


@dg.definitions
def defs() -> dg.Definitions:
    return build_definitions(Project.open())
