"""The page's server: `st.App` around `script.py`, with our routes before Streamlit's and the guard before all.

The collection is opened and its model begins to load when the server starts, before the first visit (ASGI lifespan).

Errors become text in `components.show_error`, reached in two ways: `script.py` catches a UserError of the page it runs
(so a terminal shows no traceback for what a person can put right, and tests that run the script alone see the same),
and `on_script_error` covers what the script cannot catch, callbacks and fragments, and bugs.

Rule: nothing leaves this computer by itself: no usage statistics, nothing written outside the collection.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware
from streamlit import file_util

from ui.components import show_error
from ui.guard import Guard
from ui.headers import list_headers
from ui.password import Lock
from ui.resources import opened_early
from ui.routes import list_routes
from ui.texts import UPLOAD_MB
from ui.theme import list_theme_options

SCRIPT = Path(__file__).with_name("script.py")
MESSAGE_MB = 25
"""The largest message on the WebSocket; what people upload goes another way."""


def make_app(
    names: Sequence[str], password: str | None = None, *, on_ready: Callable[[], None] = lambda: None
) -> st.App:
    """The application, called by these names besides loopback; `on_ready` is called once it is about to answer."""
    lock = None if password is None else Lock(password)
    start_page = Path(file_util.get_static_dir(), "index.html").read_bytes()
    guard = Middleware(Guard, names=frozenset(names), lock=lock, headers=list_headers(start_page))

    @asynccontextmanager
    async def lifespan(_: st.App) -> AsyncIterator[None]:
        with opened_early():
            on_ready()
            yield

    return st.App(
        SCRIPT,
        lifespan=lifespan,
        routes=list_routes(),
        middleware=[guard],
        on_script_error=show_error,
    )


def list_options(host: str, port: int) -> dict[str, object]:
    """Streamlit's settings for our server. They go before any configuration file that a person may have."""
    return {
        "server.address": host,
        "server.port": port,
        "global.developmentMode": False,
        "global.disableWidgetStateDuplicationWarning": True,
        "server.headless": True,
        "server.maxUploadSize": UPLOAD_MB,
        "server.maxMessageSize": MESSAGE_MB,
        "server.baseUrlPath": "",
        "server.fileWatcherType": "none",
        "server.runOnSave": False,
        "server.enableCORS": True,
        "server.corsAllowedOrigins": [],
        "server.enableXsrfProtection": True,
        "server.enableWebsocketCompression": False,
        "server.enableAgentApi": False,
        "server.enableStaticServing": False,
        "browser.gatherUsageStats": False,
        "client.showErrorDetails": "none",
        "client.allowedOrigins": [],
        "client.toolbarMode": "minimal",
        "runner.postScriptGC": False,
        "logger.level": "warning",
        "logger.hideWelcomeMessage": True,
        **list_theme_options(),
    }
