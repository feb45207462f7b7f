"""Dagster's records in PostgreSQL, where its dagster.yaml has `storage: postgres`: whether they can be reached, and
what came last. Asked without opening, or importing, Dagster."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from apt_assets.settings.experiment import UsageError

SETTINGS = "dagster.yaml"
PATIENCE = 10  # seconds until a server that says nothing counts as not there
# Every asset event and wipe is an event; a partition is none, and one can be taken away again.
LAST = """
    SELECT (SELECT max(id) FROM event_logs), (SELECT max(id) FROM dynamic_partitions),
           (SELECT count(*) FROM dynamic_partitions)
"""


def storage(home: Path) -> dict[str, Any] | None:
    """Where Dagster keeps its events by the dagster.yaml of a home, as it stands there; None: in SQLite's files below
    the home, which is its default. What Dagster cannot read counts as {}."""
    try:
        said = yaml.safe_load((home / SETTINGS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    if not isinstance(said, dict):
        return None if said is None else {}
    named = said.get("event_log_storage") or said.get("storage")
    return named if isinstance(named, dict | None) else {}


def postgres(home: Path) -> dict[str, Any] | None:
    """How Dagster reaches its events in PostgreSQL; None: they are not there."""
    match storage(home):
        case {"postgres": dict(config)}:
            return config
        case {"module": str(module), "config": dict(config)} if module.startswith("dagster_postgres"):
            return config  # as Dagster's Helm chart writes it
    return None


def address(home: Path) -> dict[str, Any] | None:
    """What psycopg2.connect takes to reach Dagster's events; None if they are not in PostgreSQL, if it is opened by
    more than a password, or if Dagster itself has to tell what is wrong with what is written there."""
    if find_spec("psycopg2") is None:
        return None
    match postgres(home):
        case {"auth_provider": _}:
            return None
        case {"postgres_url": url}:
            known = parts_of(value(url))
        case {"postgres_db": {"hostname": host, "username": user, "db_name": name} as given}:
            known = {
                "host": value(host),
                "port": value(given.get("port", 5432)),
                "user": value(user),
                "password": value(given.get("password", "")),
                "dbname": value(name),
                **(given.get("params") or {}),
            }
        case _:
            return None
    if not known or None in known.values():
        return None
    return {"connect_timeout": PATIENCE, **known}


def value(given: Any) -> str | None:
    """A text as Dagster reads it, which may be `env: NAME`; None for a variable that is not set."""
    return os.environ.get(str(given.get("env"))) if isinstance(given, dict) else str(given)


def parts_of(url: str | None) -> dict[str, Any]:
    """The parts of an address for psycopg2; {} if it is none."""
    import psycopg2

    scheme, separator, rest = (url or "").partition("://")
    try:
        return psycopg2.extensions.parse_dsn(f"{scheme.partition('+')[0]}{separator}{rest}")
    except psycopg2.ProgrammingError:
        return {}


def place(known: dict[str, Any]) -> str:
    """`host:port/database`, to be shown: without the user and the password."""
    return f"{known.get('host') or 'localhost'}:{known.get('port') or 5432}/{known.get('dbname') or known.get('user')}"


def last_events(home: Path) -> list[Any] | None:
    """[place, number of the last event, of the last partition, partitions]; None if nothing can be said."""
    known = address(home)
    if known is None:
        return None
    import psycopg2

    try:
        connection = psycopg2.connect(**known)
        try:
            with connection.cursor() as cursor:
                cursor.execute(LAST)
                return [place(known), *(cursor.fetchone() or ())]
        finally:
            connection.close()
    except psycopg2.Error:
        return None


def require(home: Path) -> None:
    """Make sure that records in PostgreSQL can be reached, before Dagster tries it several times, with a warning each.
    Raises UsageError."""
    named = postgres(home)
    if named is None:
        return
    file = home / SETTINGS
    if find_spec("dagster_postgres") is None:
        raise UsageError(f"{file}: storage: postgres needs the extra cluster: `pip install 'apt-assets[cluster]'`")
    known = address(home)
    if known is None:
        return
    require_driver(file, named)
    import psycopg2

    try:
        psycopg2.connect(**known).close()
    except psycopg2.Error as error:
        raise unreachable(home, error) from None


def require_driver(file: Path, named: dict[str, Any]) -> None:
    """SQLAlchemy 2.1 takes `postgresql:` for psycopg 3, while dagster-postgres brings psycopg2. Raises UsageError."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    db = named.get("postgres_db") or {}
    url = value(named.get("postgres_url", "")) or ""
    scheme = url.partition("://")[0] or value(db.get("scheme", "postgresql"))
    try:
        make_url(f"{scheme}://").get_dialect().import_dbapi()
    except (ModuleNotFoundError, ArgumentError):
        raise UsageError(
            f"{file}: {scheme}: SQLAlchemy has no driver for it here: write "
            "`scheme: postgresql+psycopg2` under postgres_db, or let postgres_url begin with postgresql+psycopg2://"
        ) from None


def errors() -> tuple[type[Exception], ...]:
    """What Dagster raises beside SQLAlchemy's errors if its records in PostgreSQL cannot be reached any more."""
    utils = sys.modules.get("dagster_postgres.utils")
    return (utils.DagsterPostgresException,) if utils else ()


def unreachable(home: Path, error: BaseException) -> UsageError:
    """What is wrong with the records in PostgreSQL, where they are, and what to do."""
    reason = " ".join(str(error).split())
    where = f"{home / SETTINGS}: Dagster's history at {place(address(home) or {})}"
    return UsageError(f"{where}: {reason}; see that PostgreSQL runs there and has this database and user")
