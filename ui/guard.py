"""Who may talk to the page, and how: one guard before pages, our routes, uploads, the WebSocket and Streamlit's routes.

It asks in this order: is the page called by a name of its own, from a page of its own, by somebody who knows the
password, with a method that something answers to, with no more than an upload may be?

- The name. A foreign web page can make its own name point at this computer (DNS rebinding) and would then read our
  answers as its own; the Host header still carries the foreign name. An address counts where the call arrived at it.
- The page. Browsers say which page makes a call wherever that could do harm (Origin), and whether it is another one
  (Sec-Fetch-Site, where they trust the connection); a link on it may still be followed. Streamlit's own check takes
  pages of all ports of this computer for ours, and asks the internet for its address before it refuses another.

Rule: who is refused gets a status and one sentence, and nothing behind the guard has seen the call.
"""

import ipaddress
import re
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ui.headers import harden
from ui.password import TOO_MANY, WRONG, Lock
from ui.server import is_loopback
from ui.texts import BUG, UPLOAD_MB

LARGEST_BODY = (UPLOAD_MB + 1) << 20
"""Bytes: the largest picture, and what its form adds."""
HOST = re.compile(r"(?:\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[^\[\]:@/\s]+))(?::\d*)?")
UPLOADS = "/_stcore/upload_file/"
STREAM = "/_stcore/stream"
PICTURES = ("/t/", "/o/")
MOST_LETTERS = 64
"""Of a caller's address."""
READING, UPLOADING = ("GET", "HEAD"), ("PUT", "DELETE")
SENTENCES = {
    WRONG: "This page has a password.",
    403: "This address is not one of the page's own. Open it by the address that `seer ui` printed.",
    404: "Not found.",
    405: "Nothing here answers to this method.",
    413: f"This is larger than {UPLOAD_MB} MB.",
    500: BUG,
    TOO_MANY: "Too many wrong passwords. Wait a minute, then load this page again.",
}
DETAILS = {
    WRONG: {"WWW-Authenticate": 'Basic realm="seer", charset="UTF-8"'},
    405: {"Allow": ", ".join(READING)},
    TOO_MANY: {"Retry-After": "60"},
}


class Guard:
    """ASGI middleware: lets a call pass, or answers it with 401, 403, 404, 405, 413 or 429; bugs behind it with 500."""

    def __init__(self, app: ASGIApp, names: frozenset[str], lock: Lock | None, headers: Mapping[str, str]) -> None:
        """Who may call, and what every answer has.

        Args:
            names: lower case, by which the page may be called besides loopback.
            lock: None: no password is asked for.
            headers: of all answers, also to who is refused.
        """
        self._app = app
        self._headers = headers
        self._names = names
        self._lock = lock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or refuse."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        call = HTTPConnection(scope)
        status = self._find_fault(call)
        if status is None:
            await self._pass_on(scope, limit_body(receive), self._harden(call, send))
        else:
            await refuse(status, scope)(scope, receive, harden(send, self._headers))

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A bug behind the guard would be answered outside of it, without our headers.
        has_begun = False

        async def send_on(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        except Exception:
            if scope["type"] == "http" and not has_begun:
                await refuse(500, scope)(scope, receive, send_on)
            raise

    def _find_fault(self, call: HTTPConnection) -> int | None:
        host = read_host(call.headers)
        if host is None or not self._is_own(host, call):
            return 403
        if not is_from_own_page(call):
            return 403
        if self._lock is not None and (status := self._ask(self._lock, call)):
            return status
        if not is_answered(call):
            return 405
        if not is_plain(call.scope["path"]):
            return 404
        return 413 if int(call.headers.get("content-length", 0)) > LARGEST_BODY else None

    def _is_own(self, host: str, call: HTTPConnection) -> bool:
        return host in self._names or is_loopback(host) or is_same_address(host, call.scope["server"][0])

    @staticmethod
    def _ask(lock: Lock, call: HTTPConnection) -> int | None:
        if call.scope["type"] == "websocket" and lock.is_ticket(call.cookies.get(name_ticket(call), "")):
            return None
        # A proxy on this computer may say who called it; so this is any text.
        caller = call.client.host[:MOST_LETTERS] if call.client else ""
        return lock.try_password(caller, call.headers.get("authorization", ""))

    def _harden(self, call: HTTPConnection, send: Send) -> Send:
        def give_ticket(headers: MutableHeaders) -> None:
            if self._lock is not None and headers.get("content-type", "").startswith("text/html"):
                # For the one path: cookies know no ports, and other servers of this computer need not see it.
                flags = f"Path={STREAM}; HttpOnly; SameSite=Strict"
                headers.append("Set-Cookie", f"{name_ticket(call)}={self._lock.ticket}; {flags}")

        return harden(send, self._headers, give_ticket)


def read_host(headers: Headers) -> str | None:
    """The Host header's name, lower case, without port and brackets; None unless there is exactly one."""
    given = headers.getlist("host")
    read = HOST.fullmatch(given[0].strip().lower()) if len(given) == 1 else None
    return read and (read["address"] or read["name"])


def is_from_own_page(call: HTTPConnection) -> bool:
    """Whether it is not a foreign page that makes the call, as far as the browser says."""
    headers = call.headers
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2].lower() != headers["host"].strip().lower():
        return False
    # To a page, in a tab of its own: whether a frame or a tab with a picture loads tells which pictures are here.
    is_link = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("navigate", "document")
    is_link = is_link and not call.scope["path"].startswith(PICTURES)
    return is_link or headers.get("sec-fetch-site", "none") in ("same-origin", "none")


def is_same_address(host: str, address: str) -> bool:
    """Whether both are the same IP address; one of version 4 may be written as one of version 6."""
    try:
        one, other = ipaddress.ip_address(host), ipaddress.ip_address(address)
    except ValueError:
        return False
    return one == (getattr(other, "ipv4_mapped", None) or other)


def is_answered(call: HTTPConnection) -> bool:
    """Whether something of ours may answer to the method: reading everywhere, more for uploads only."""
    method = call.scope.get("method", "GET")
    return method in READING or (method in UPLOADING and call.scope["path"].startswith(UPLOADS))


def is_plain(path: str) -> bool:
    """Whether an address, decoded, is one that we could have given out: nothing unseen, no way up, nothing doubled."""
    return path.isprintable() and not any(mark in path for mark in ("\\", "//", "/.."))


def name_ticket(call: HTTPConnection) -> str:
    """The cookie's name; with the port, since two pages of one computer share their cookies."""
    return f"seer-{call.scope['server'][1]}"


def refuse(status: int, scope: Scope) -> Response:
    """The answer to who is not let in."""
    # Closed, so that what they still send is not even thrown away by us.
    closed = {"Connection": "close"} if scope["type"] == "http" else {}
    headers = {"Cache-Control": "no-store", **DETAILS.get(status, {}), **closed}
    return PlainTextResponse(SENTENCES[status] + "\n", status_code=status, headers=headers)


def limit_body(receive: Receive, largest: int = LARGEST_BODY) -> Receive:
    """Receive a body up to the limit, whatever its length was said to be; beyond it the answer is 413."""
    received = 0

    async def receive_within() -> Message:
        nonlocal received
        message = await receive()
        if message["type"] == "http.request":
            received += len(message.get("body", b""))
            if received > largest:
                raise HTTPException(413, SENTENCES[413])
        return message

    return receive_within
