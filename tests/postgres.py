"""A PostgreSQL server of the tests' own, on loopback: conftest's fixture `postgres` is one, started once.

It keeps nothing: its folder is a temporary one, and it does not wait for the disk.
"""

import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from tests import waiting

USER, PASSWORD = "apt", "se:cret/word"  # as a person might choose one: an address has to quote it
DEBIAN = Path("/usr/lib/postgresql")  # where Debian keeps what it does not put on PATH


@dataclass
class Postgres:
    """A server that runs. folder: its data; a Postgres of the same folder and port is it, started again."""

    folder: Path
    port: int
    _numbers: Iterator[int] = field(default_factory=itertools.count, repr=False)

    def database(self, like: str = "template1") -> str:
        """Name of a new database: empty, or a copy of one that nobody is connected to."""
        name = f"of_test_{next(self._numbers)}"
        self.run("postgres", f"CREATE DATABASE {name} TEMPLATE {like}")
        return name

    def url(self, database: str) -> str:
        """Address of a database, with the user and the password, as libpq reads it."""
        return (
            f"postgresql://{USER}:{PASSWORD.replace(':', '%3A').replace('/', '%2F')}@127.0.0.1:{self.port}/{database}"
        )

    def run(self, database: str, statement: str) -> list[tuple]:
        """The rows of one statement."""
        import psycopg2

        connection = psycopg2.connect(self.url(database))
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()


def command(name: str) -> str | None:
    """Where a command of PostgreSQL is, of the newest version; None: nowhere."""
    found = sorted(DEBIAN.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    return shutil.which(name) or (str(found[-1]) if found else None)


def lacking() -> str | None:
    """What the tests with a server lack on this machine; None: nothing."""
    if find_spec("psycopg2") is None:
        return "needs the extra cluster"
    return None if command("initdb") and command("postgres") else "needs PostgreSQL's initdb and postgres"


def another_user() -> dict[str, int]:
    """Whom the server runs as, for subprocess: root may not start one."""
    if os.getuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid}


@contextmanager
def running(folder: Path, port: int) -> Iterator[Postgres]:
    """The server of a folder that `made` made, until the block ends."""
    options = {"fsync": "off", "listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": ""}
    given = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
    log = (folder / "server.log").open("wb")
    process = subprocess.Popen(
        [str(command("postgres")), "-D", folder / "data", *given], stdout=log, stderr=log, **another_user()
    )
    try:
        waiting.until(lambda: answers(port), 60, 0.1, lambda: (folder / "server.log").read_text())
        yield Postgres(folder, port)
    finally:
        process.terminate()
        with log:
            # Connections that a test left open may keep it; there is nothing to lose.
            if waiting.within(10, lambda: process.poll() is not None) is None:
                process.kill()
            process.wait()


@contextmanager
def made() -> Iterator[Path]:
    """A folder with an empty server's data, until the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        user = another_user()
        if user:
            os.chown(folder, user["user"], user["group"])
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o644)
        subprocess.run(
            [str(command("initdb")), "-D", folder / "data", "-U", USER, "--pwfile", folder / "password",
             "--auth=scram-sha-256", "--no-sync", "--encoding=UTF8", "--locale=C"],
            check=True, stdout=subprocess.DEVNULL, **user,
        )  # fmt: skip
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def answers(port: int) -> bool:
    """Whether a server takes connections, by the password."""
    import psycopg2

    try:
        psycopg2.connect(host="127.0.0.1", port=port, user=USER, password=PASSWORD, dbname="postgres").close()
    except psycopg2.OperationalError:
        return False
    return True
