"""A file server on loopback that stands for the hub and for others, and can misbehave as they do."""

import hashlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CHUNK_BYTES = 4096


class Server(ThreadingHTTPServer):
    """Serves `files` by path, with ranges; can cut the connection after so many bytes of body."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.sent_bytes = 0
        self.cut_after_bytes: int | None = None
        self.has_versions = True
        self.shifts_ranges = False
        """Answers with another part of the file than was asked for."""
        self.moved_to: str | None = None
        """Another server that has the bytes, as the hub keeps large files elsewhere."""
        self.tokens: list[tuple[str, str | None]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    """As a file server and, with its headers, as the hub."""

    server: Server

    def do_HEAD(self) -> None:
        self.answer(has_body=False)

    def do_GET(self) -> None:
        self.answer(has_body=True)

    def answer(self, *, has_body: bool) -> None:
        self.server.requests.append((self.command, self.path, self.headers.get("Range")))
        self.server.tokens.append((self.command, self.headers.get("Authorization")))
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        if self.server.moved_to:
            self.send_moved(content)
            return
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        start = self.read_start(tag)
        if start > len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            start += self.server.shifts_ranges
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        if self.server.has_versions:
            self.send_header("ETag", tag)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if has_body:
            self.send_body(content[start:])

    def send_moved(self, content: bytes) -> None:
        """As the hub answers for a large file: what it is, and where its bytes are."""
        self.send_response(302)
        self.send_header("Location", self.server.moved_to + self.path)
        self.send_header("X-Linked-ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def read_start(self, tag: str) -> int:
        asked, condition = self.headers.get("Range"), self.headers.get("If-Range")
        if not asked or condition not in (None, tag):
            return 0
        return int(asked.removeprefix("bytes=").partition("-")[0])

    def send_body(self, body: bytes) -> None:
        for start in range(0, len(body), CHUNK_BYTES):
            if self.server.cut_after_bytes is not None and self.server.sent_bytes >= self.server.cut_after_bytes:
                self.server.cut_after_bytes = None
                self.close_connection = True
                return
            self.wfile.write(body[start : start + CHUNK_BYTES])
            self.server.sent_bytes += len(body[start : start + CHUNK_BYTES])

    def log_message(self, *args: object) -> None:
        """Tests print nothing of their own."""
