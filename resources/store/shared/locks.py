"""Locks between machines: advisory locks of PostgreSQL (manual, "Advisory Locks"), by name.

Each lock is held by a connection of its own, and the server lets go of it when that ends: at once when the holder is
killed, after about a minute when its machine is gone. A transaction pooler in between would lose them.
"""

import hashlib
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from importlib.util import find_spec
from typing import Any

from resources.store.locks import DAGSTER, GC, IN_USE
from resources.store.store import StoreError

KEPT: dict[tuple[str, str], dict[str, Any]] = {}  # (server, store) -> what `keep` took in this process
# A wait is cut into pieces of this length, in between of which Ctrl-C is heard.
PATIENCE = "1s"
# How the server finds out that a machine is gone.
ALIVE = f"-c lock_timeout={PATIENCE} -c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"
NAME_BYTES = 63  # PostgreSQL cuts the name of a connection there
EXCLUSIVE, SHARED = "pg_advisory_lock", "pg_advisory_lock_shared"
HOLDERS = """
    select activity.application_name from pg_locks locks join pg_stat_activity activity using (pid)
    where locks.locktype = 'advisory' and locks.granted and locks.objsubid = 1
    and locks.database = (select oid from pg_database where datname = current_database())
    and (locks.classid::bigint << 32) + locks.objid::bigint = %s
"""


class PostgresLocks:
    """Locks (resources/store/locks.py) of one store. server: `postgresql://...`; store: its address."""

    def __init__(self, server: str, store: str):
        if find_spec("psycopg2") is None:
            raise self._error("needs the extra `cluster`: pip install 'apt-assets[cluster]'")
        self._server, self._store = server, store
        self.last_taken = float("-inf")  # by time.monotonic
        with self._connected("looks"):
            pass

    @contextmanager
    def take(self, name: str) -> Iterator[None]:
        with ExitStack() as held:
            if name not in (GC, DAGSTER):
                held.enter_context(self._held(IN_USE, SHARED, name))
            held.enter_context(self._held(name, EXCLUSIVE, name))
            yield

    @contextmanager
    def writing(self, name: str) -> Iterator[None]:
        """One holder at a time, of what gc writes as well: of rows, or of a table of vectors."""
        with self._held(f"writing-{name}", EXCLUSIVE, name):
            yield

    def keep(self, name: str) -> None:
        kept = KEPT.get((self._server, self._store), {})
        if name not in kept:
            taken = {name: self._take(name, EXCLUSIVE, name)}
            taken[IN_USE] = kept.pop(IN_USE) if IN_USE in kept else self._take(IN_USE, SHARED, name)
            for connection in kept.values():
                connection.close()
            KEPT[self._server, self._store] = taken

    def taken(self, name: str) -> bool:
        with self._connected("looks") as connection:
            return bool(self._holders(connection, name))

    def let_go(self, name: str) -> bool:
        return False  # nothing is left of a lock that was let go of

    @contextmanager
    def all_idle(self) -> Iterator[None]:
        with self._connected(GC) as connection:
            if not ask(connection, "select pg_try_advisory_lock(%s)", self._key(IN_USE))[0][0]:
                busy = next(iter(self._holders(connection, IN_USE)), "") or "a stage"
                raise RuntimeError(f"a run is going on ({busy} is being computed): try again when it has ended")
            self.last_taken = time.monotonic()
            yield

    # -- connections -----------------------------------------------------------------------------

    @contextmanager
    def _held(self, name: str, how: str, said: str) -> Iterator[None]:
        with closing(self._take(name, how, said)) as connection:
            yield
            # Without it another process may have computed the same; what either kept is whole.
            if not self._alive(connection):
                raise self._error(
                    f"the connection that held the lock {name} was lost; what was computed is kept, run again"
                )

    def _take(self, name: str, how: str, said: str) -> Any:
        """A connection that holds the lock. said: its name in the server, told to whoever finds the lock held."""
        import psycopg2.errors

        connection = self._connect(said)
        try:
            while True:
                with suppress(psycopg2.errors.LockNotAvailable):
                    ask(connection, f"select {how}(%s)", self._key(name))
                    self.last_taken = time.monotonic()
                    return connection
        except psycopg2.Error as error:
            connection.close()
            raise self._error(str(error)) from error
        except BaseException:
            connection.close()
            raise

    @contextmanager
    def _connected(self, said: str) -> Iterator[Any]:
        import psycopg2

        with closing(self._connect(said)) as connection:
            try:
                yield connection
            except psycopg2.Error as error:
                raise self._error(str(error)) from error

    def _connect(self, said: str) -> Any:
        import psycopg2

        name = said.encode()[:NAME_BYTES].decode(errors="ignore")
        try:
            connection = psycopg2.connect(self._server, application_name=name, options=ALIVE, connect_timeout=10)
        except psycopg2.Error as error:
            raise self._error(str(error)) from error
        connection.autocommit = True
        return connection

    def _alive(self, connection: Any) -> bool:
        import psycopg2

        try:
            ask(connection, "select 1")
        except psycopg2.Error:
            return False
        return True

    def _holders(self, connection: Any, name: str) -> list[str]:
        """What the connections that hold a lock are called."""
        return [name for (name,) in ask(connection, HOLDERS, self._key(name))]

    def _key(self, name: str) -> int:
        """A lock of PostgreSQL is a number of 64 bits, with a sign."""
        return int.from_bytes(hashlib.sha256(f"{self._store}\n{name}".encode()).digest()[:8], "big", signed=True)

    def _error(self, reason: str) -> StoreError:
        """The server's address holds a password, so it is not told."""
        return StoreError(f"the lock server that $APT_LOCKS names: {' '.join(reason.split())}")


def ask(connection: Any, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())
