"""Runs whose process is gone. Dagster takes them for alive, and they keep the one place that the loop's runs have."""

import time
from typing import TYPE_CHECKING

from apt_assets.project import Project
from resources.store import locks

if TYPE_CHECKING:
    import dagster as dg

DEAD_AFTER = 60  # seconds in which a started run must have taken its lock


def fail_lost_runs(project: Project, instance: "dg.DagsterInstance", *, unlocked: bool = False) -> list[str]:
    """Mark runs that started and whose process is gone as failed; the ids of those that were.

    unlocked: also those that never took their lock here. They may be runs of another store with the same records, or
    compute nothing of the loop's.
    """
    import dagster as dg

    lost, locked = [], project.store.locks
    for record in instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
        run, started = record.dagster_run, record.start_time
        # A start that is still to come: the clock was put back since.
        begun = started is not None and abs(time.time() - started) > DEAD_AFTER
        name = f"{locks.RUN}{run.run_id}"
        if not begun or not (locked.let_go(name) or (unlocked and not locked.taken(name))):
            continue
        now = instance.get_run_by_id(run.run_id)  # it may have ended meanwhile
        if now is not None and now.status == dg.DagsterRunStatus.STARTED:
            instance.report_run_failed(run, "its process is gone (killed, or the machine restarted)")
            lost.append(run.run_id[:8])
    return lost
