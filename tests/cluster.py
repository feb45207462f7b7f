"""A real S3 server on loopback, moto's, and a shared store on it for the tests."""

import http.client
import http.server
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from tests import waiting

BUCKET = "apt-test"


@contextmanager
def s3_server() -> Iterator[str]:
    """The address of an S3 server with the bucket BUCKET."""
    pytest.importorskip("obstore", reason="the extra `cluster` is not installed")
    pytest.importorskip("moto", reason="moto is not installed")
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler
    from moto.server import ThreadedMotoServer

    answer, writing = DomainDispatcherApplication.__call__, threading.Lock()

    def answered(app, environ, start):
        # S3 looks whether a thing is there and writes it at once, moto one after the other.
        with writing if environ["REQUEST_METHOD"] == "PUT" else nullcontext():
            return answer(app, environ, start)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DomainDispatcherApplication, "__call__", answered)
        patch.setattr(MotoRequestHandler, "log_request", lambda *arguments: None)  # a line for each request
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


class Shared:
    """A store in a bucket; the things it holds are those of the bucket and, on this machine, unfinished files."""

    count = 0

    def __init__(self, folder: Path, locks: str):
        Shared.count += 1
        self._folder, self.locks = folder, locks
        self._prefix = f"{folder.name}-{Shared.count}"
        self._client = client(os.environ["AWS_ENDPOINT_URL"])
        self.url = f"s3://{BUCKET}/{self._prefix}"

    def open(self, machine: str = "local"):
        """The store, as another process would open it; on another machine there is no copy of anything."""
        from resources.retrieval.shared_vectors import open_store

        return open_store(self.url, self.locks, self._folder / machine)

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


class Proxy:
    """Stands between a client and an S3 server, and does to a request what `fault` says.

    fault: (method, path) -> None, to pass the request on; a status, to answer that in its place; "cut", to close the
    connection; "late", to answer after `patience` seconds; "lost", to pass it on and answer 500 all the same; or the
    name of a header, to pass it on without.
    """

    def __init__(self, server: str, patience: float = 1.0):
        self.fault: Callable[[str, str], int | str | None] = lambda method, path: None
        self.seen: list[str] = []
        proxy, host = self, server.removeprefix("http://")

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                proxy.seen.append(f"{self.command} {self.path}")
                fault = proxy.fault(self.command, self.path)
                if fault == "late":
                    waiting.within(patience, lambda: None)
                if fault in ("cut", "late"):
                    self.close_connection = True
                    return self.connection.close()
                if isinstance(fault, int):
                    return self.answer(fault, {}, b"")
                headers = {name: value for name, value in self.headers.items() if name.lower() != str(fault).lower()}
                upstream = http.client.HTTPConnection(host)
                upstream.request(self.command, self.path, body, headers)
                answer = upstream.getresponse()
                content = answer.read()
                upstream.close()
                return self.answer(500 if fault == "lost" else answer.status, dict(answer.getheaders()), content)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_one

            def answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in ("connection", "transfer-encoding", "date", "server", "content-length"):
                        self.send_header(name, value)
                length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
                self.send_header("content-length", length)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def times(self, number: int, fault: "int | str", what: str = "") -> None:
        """Do it to the next requests, `number` of them, with `what` in their method and path."""
        left = iter(range(number))
        self.fault = lambda method, path: fault if what in f"{method} {path}" and next(left, None) is not None else None

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
