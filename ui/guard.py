"""Who may talk to the page: only a browser that calls it by a loopback name or by the name it was started with.

A foreign web page can make its own name point at 127.0.0.1 (DNS rebinding) and would then read our answers as its own;
the Host header still carries the foreign name. Streamlit's own check (`server.allowedHosts`) covers the WebSocket only.

Rule: the check stands before everything: pages, routes, uploads and the WebSocket.
"""

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ui.server import is_loopback

REFUSAL = "This address is not one of the page's own. Open it by the address that `seer ui` printed.\n"
POLICY_VIOLATION = 1008


class HostGuard:
    """ASGI middleware: refuses requests whose Host header is neither a loopback name nor `host`."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._host = host.lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or refuse with status 403."""
        if scope["type"] not in ("http", "websocket") or self._is_known(_read_host(scope)):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
        else:
            await PlainTextResponse(REFUSAL, status_code=403)(scope, receive, send)

    def _is_known(self, host: str | None) -> bool:
        return host is not None and (host == self._host or is_loopback(host))


def _read_host(scope: Scope) -> str | None:
    """The Host header's name, lower case, without port and brackets; None unless there is exactly one."""
    given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    if len(given) != 1:
        return None
    host = given[0].strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
