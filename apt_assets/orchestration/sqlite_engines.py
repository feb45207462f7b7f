"""An SQLAlchemy engine for each of Dagster's SQLite files, kept.

Dagster makes one for each connection, of which a run has thousands, and each compiles all of its statements anew: a
sixth of a run of a tiny model (docs/lab-log.md, 2026-11-30). Connections are still its own: opened and closed by it.
"""

from collections.abc import Hashable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

FILES = 8  # each run has one of its own


def keep_engines() -> None:
    """From now on in this process. Raises ImportError or AssertionError if Dagster's modules are not there any more."""
    from dagster._core.storage.event_log.sqlite import sqlite_event_log
    from dagster._core.storage.runs.sqlite import sqlite_run_storage
    from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage

    for module in (sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage):
        assert "create_engine" in vars(module)
        vars(module)["create_engine"] = engine_of


def engine_of(url: str, *, poolclass: Hashable, connect_args: dict[str, Any] | None = None) -> "Engine":
    """As SQLAlchemy's create_engine, with what Dagster asks of it."""
    return kept(url, poolclass, tuple(sorted((connect_args or {}).items())))


@lru_cache(maxsize=FILES)
def kept(url: str, poolclass: Any, connect_args: tuple[tuple[str, Any], ...]) -> "Engine":
    from sqlalchemy import create_engine

    return create_engine(url, poolclass=poolclass, connect_args=dict(connect_args))
