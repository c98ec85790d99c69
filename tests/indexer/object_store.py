"""An S3-compatible server on loopback that can be told to fail: errors, slow answers, connections that drop.

It speaks plain HTTP/1.1 and hands what it lets through to moto, in the same process.
"""

import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from urllib.parse import urlsplit

from moto.backends import get_backend
from moto.s3.models import S3Backend
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.test import Client, EnvironBuilder

KEY_ID, KEY = "AKIAFORTESTSALONE000", "the-secret-that-no-log-may-hold"
BUCKET = "pictures"


@dataclass
class ObjectStore:
    """What the server is told and has seen. `fail` in [0, 1] of requests, by what is to happen to them."""

    url: str
    fail: dict[str, float] = field(default_factory=dict)
    """error: 500 or 503; slow: half a second late; drop: cut in the middle of its body; refuse: cut before it."""
    seen: Counter = field(default_factory=Counter)
    dice: random.Random = field(default_factory=lambda: random.Random(0))
    is_gone: bool = False
    """Whether every connection is cut."""

    def environment(self) -> dict[str, str]:
        """What a client's environment must say to find it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": "/nowhere",
            "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
        }

    def find_backend(self) -> S3Backend:
        """What holds the objects."""
        return get_backend("s3")["123456789012"]["aws"]

    def put(self, key: str, data: bytes) -> None:
        """Put an object into the bucket, past the server."""
        self.find_backend().put_object(BUCKET, key, data)

    def remove(self, key: str) -> None:
        self.find_backend().delete_object(BUCKET, key)

    def choose_fault(self) -> str | None:
        if self.is_gone:
            return "refuse"
        at = self.dice.random()
        for fault, share in self.fail.items():
            if at < share:
                return fault
            at -= share
        return None


@contextmanager
def serve_objects() -> Iterator[ObjectStore]:
    """A server with one empty bucket."""
    application = DomainDispatcherApplication(create_backend_app)
    client = Client(application)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    host, port = server.server_address
    server.store = store = ObjectStore(f"http://{host}:{port}")
    server.client = client
    get_backend("s3").reset()
    store.find_backend().create_bucket(BUCKET, "us-east-1")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        store: ObjectStore = self.server.store
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = store.choose_fault()
        store.seen[fault or self.command] += 1
        if fault == "error":
            self._send(store.dice.choice([500, 503]), {}, b"<Error><Code>InternalError</Code></Error>")
            return
        if fault == "refuse":
            self._cut()
            return
        if fault == "slow":
            time.sleep(0.5)
        status, headers, data = self._ask(body)
        self._send(status, headers, data, is_cut=fault == "drop")

    do_GET = do_HEAD = do_PUT = do_DELETE = do_POST = _answer

    def _ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        at = urlsplit(self.path)
        headers = [(name, value) for name, value in self.headers.items() if name.lower() != "connection"]
        asked = EnvironBuilder(
            method=self.command, path=at.path, query_string=at.query, headers=headers, input_stream=BytesIO(body),
            base_url=self.server.store.url,
        )  # fmt: skip
        answer = self.server.client.open(asked)
        return answer.status_code, dict(answer.headers), answer.data

    def _send(self, status: int, headers: dict[str, str], data: bytes, is_cut: bool = False) -> None:
        self.send_response(status)
        told = {name.lower(): value for name, value in headers.items()}
        length = told.get("content-length", "0") if self.command == "HEAD" else str(len(data))
        for name, value in headers.items():
            if name.lower() not in ("content-length", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(data[: len(data) // 2] if is_cut else data)
        if is_cut:
            self._cut()

    def _cut(self) -> None:
        self.wfile.flush()
        # Nothing is sent any more, not even that this is the end.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def log_message(self, *_: object) -> None:
        pass
