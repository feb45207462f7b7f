"""Whether Dagster heard anything since: asked without opening, or importing, Dagster."""

from apt_assets.project import Project


def event_log(project: Project) -> list[list[int]] | None:
    """[size, time in ns] of the files of the database that every asset event, wipe and new partition
    changes; None if it is elsewhere, or not there yet."""
    log = project.dagster_home / "history" / "runs" / "index.db"
    if not log.exists():
        return None
    # What was written last may stand in the second file until nobody reads the first.
    stats = [path.stat() for path in (log, log.with_name("index.db-wal")) if path.exists()]
    return [[stat.st_size, stat.st_mtime_ns] for stat in stats]
