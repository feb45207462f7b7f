"""Real servers on loopback for the tests of a shared store: moto's S3 and PostgreSQL."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BUCKET = "apt-test"


@contextmanager
def s3_server() -> Iterator[str]:
    """The address of an S3 server with the bucket BUCKET."""
    pytest.importorskip("obstore", reason="the extra `cluster` is not installed")
    pytest.importorskip("moto", reason="moto is not installed")
    import werkzeug.serving
    from moto.server import ThreadedMotoServer

    class Quiet(werkzeug.serving.WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_request(self, *args: object) -> None:
            """Say nothing."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(werkzeug.serving, "WSGIRequestHandler", Quiet)
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        address = f"http://{host}:{port}"
        client(address).create_bucket(Bucket=BUCKET)
        yield address
        server.stop()


def environment(address: str) -> dict[str, str]:
    """What names a server and the keys to it, which it takes whatever they are."""
    return {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": address, "AWS_ALLOW_HTTP": "true",
    }  # fmt: skip


def client(address: str):
    """A client of the tests' own."""
    import boto3

    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    return boto3.client("s3", endpoint_url=address, **keys)


@contextmanager
def postgres_server() -> Iterator[str]:
    """The address of a PostgreSQL server of its own, which listens on a socket in a folder."""
    pytest.importorskip("psycopg2", reason="the extra `cluster` is not installed")
    if shutil.which("initdb") is None:
        pytest.skip("PostgreSQL's initdb and pg_ctl are not on PATH")
    # The path of a socket has 107 bytes at most, and the server does not run as root.
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    as_user = []
    if os.getuid() == 0:
        shutil.chown(folder, "nobody")
        as_user = ["setpriv", "--reuid=nobody", "--clear-groups"]

    def run(*command: str) -> None:
        subprocess.run(
            [*as_user, *command], check=True, cwd=folder, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )

    data = str(folder / "data")
    try:
        run("initdb", "-D", data, "-A", "trust", "-U", "apt", "--no-sync", "-E", "UTF8", "--locale=C")
        run("pg_ctl", "-D", data, "-w", "-l", str(folder / "log"), "-o", f"-k {folder} -h '' -F", "start")
        try:
            yield f"postgresql://apt@/postgres?host={folder}"
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Shared:
    """A store in a bucket; the things it holds are those of the bucket and, on this machine, unfinished files."""

    count = 0

    def __init__(self, folder: Path, locks: str):
        Shared.count += 1
        self._folder, self.locks = folder, locks
        self._prefix = f"{folder.name}-{Shared.count}"
        self._client = client(os.environ["AWS_ENDPOINT_URL"])
        self.url = f"s3://{BUCKET}/{self._prefix}"

    def open(self):
        """The store, as another process would open it."""
        from resources.retrieval.shared_vectors import open_store

        return open_store(self.url, self.locks, self._folder / "local")

    def things(self) -> dict[str, bytes]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{self._prefix}/")
        names = [one["Key"] for page in pages for one in page.get("Contents", ())]
        return {name.removeprefix(f"{self._prefix}/"): self._read(name) for name in names}

    def _read(self, name: str) -> bytes:
        return self._client.get_object(Bucket=BUCKET, Key=name)["Body"].read()

    def overwrite(self, name: str, content: bytes) -> None:
        self._client.put_object(Bucket=BUCKET, Key=f"{self._prefix}/{name}", Body=content)

    def lose(self, name: str) -> None:
        self._client.delete_object(Bucket=BUCKET, Key=f"{self._prefix}/{name}")
