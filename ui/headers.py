"""What every answer tells the browser: whose scripts may run, and that the page stands in no other page's frame.

File names are shown as text; if one ever became HTML, the browser would still run nothing of it.

Rule: a route that says more by one of these headers is not overruled.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Mapping

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Send

INLINE_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
HARDENED = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    # The page's URL names images; no other server needs to know them.
    "Referrer-Policy": "no-referrer",
    # Else a foreign page could try hashes, and learn from what loads which pictures are here.
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def list_headers(start_page: bytes) -> dict[str, str]:
    """The headers, for a page that is served as this HTML: no script inside a page runs but those that stand in it.

    Styles are written into the page by Streamlit, and the script of a component comes out of a blob.
    """
    scripts = " ".join(f"'sha256-{_hash(script)}'" for script in INLINE_SCRIPT.findall(start_page))
    policy = {
        "default-src": "'self'",
        "script-src": f"'self' blob: {scripts}".strip(),
        "style-src": "'self' 'unsafe-inline'",
        "img-src": "'self' data: blob:",
        "font-src": "'self' data:",
        "worker-src": "'self' blob:",
        "object-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {"Content-Security-Policy": "; ".join(map(" ".join, policy.items())), **HARDENED}


def _hash(script: bytes) -> str:
    return base64.b64encode(hashlib.sha256(script).digest()).decode()


def harden(send: Send, headers: Mapping[str, str], more: Callable[[MutableHeaders], None] = lambda _: None) -> Send:
    """Send with these headers, where an answer has none of its own by that name; `more` may add to them."""

    async def send_hardened(message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            told = MutableHeaders(raw=message.setdefault("headers", []))
            for name, value in headers.items():
                told.setdefault(name, value)
            more(told)
        await send(message)

    return send_hardened
