"""apt-assets: the APT loop as a Dagster asset graph in which only stale stages recompute.

    from apt_assets import Project

is all that a program needs (apt_assets/api.py). Nothing is loaded until it is asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apt_assets.api import Landed, NothingLanded, Project, RunResult, UsageError

__all__ = ["Landed", "NothingLanded", "Project", "RunResult", "UsageError"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from apt_assets import api

    return getattr(api, name)
