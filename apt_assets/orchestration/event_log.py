"""Whether Dagster heard anything since: asked without opening, or importing, Dagster."""

from typing import Any

from apt_assets.orchestration import postgres
from apt_assets.project import Project


def event_log(project: Project) -> list[Any] | None:
    """What every asset event, wipe and new partition changes: [size, time in ns] of the files of SQLite's database, or
    what PostgreSQL counts; None if it is elsewhere, or not there yet."""
    home = project.dagster_home
    if postgres.storage(home) is not None:
        return postgres.last_events(home)
    log = home / "history" / "runs" / "index.db"
    if not log.exists():
        return None
    # What was written last may stand in the second file until nobody reads the first.
    stats = [path.stat() for path in (log, log.with_name("index.db-wal")) if path.exists()]
    return [[stat.st_size, stat.st_mtime_ns] for stat in stats]
