"""Serving the page from this process, to this computer alone, until Ctrl-C.

Rule: host and port are checked before anything is loaded, and a refusal says what to type instead.
"""

import errno
import ipaddress
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from seer_model.errors import UserError

PORTS_TRIED = 100
INTERRUPTED = 130


class HostRefused(UserError):
    """The page would be open to other computers."""


class PortTaken(UserError):
    """The port is in use, or not for us."""


def serve(
    folder: Path | None, host: str, port: int, on_ready: Callable[[str], None], *, keeps_uploads: bool = True
) -> NoReturn:
    """Show a collection in the browser until the server is told to stop; then the process ends, at Ctrl-C with 130.

    Args:
        folder: the collection; None: the only one there is, also if it is made later.
        port: 0 for any that is free.
        on_ready: called with the page's address once it answers.
        keeps_uploads: whether a picture that is dropped is kept for the link to its answer.
    Raises: HostRefused, PortTaken.
    """
    require_loopback(host)
    require_free(host, port)
    # Imported here: Streamlit takes a second, and a refusal should not wait for it.
    import streamlit

    from ui.app import list_options, make_app
    from ui.resources import choose_collection

    choose_collection(folder, keeps=keeps_uploads)
    app = make_app(host, on_ready=lambda: on_ready(show_address(host, streamlit.get_option("server.port"))))
    status = 0
    try:
        app.run(config=list_options(host, port))
    except KeyboardInterrupt:  # The server has closed, and passes on what it was told to stop by.
        status = INTERRUPTED
    sys.stdout.flush()
    # Not an orderly exit: a model that is still loading in its thread would turn it into an abort.
    os._exit(status)


def show_address(host: str, port: int) -> str:
    """The page's URL."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether this name or address means this computer alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_loopback(host: str) -> None:
    """Raise HostRefused unless only this computer can reach the page at this host."""
    if not is_loopback(host):
        raise HostRefused(
            f"--host {host} would open the page to other computers, and it has no password yet. "
            "Leave --host out, or use 127.0.0.1 and an SSH tunnel."
        )


def require_free(host: str, port: int) -> None:
    """Raise PortTaken, naming the next free port, unless a server can listen here."""
    refusal = try_port(host, port)
    if refusal is None:
        return
    if refusal not in (errno.EADDRINUSE, errno.EACCES):
        raise PortTaken(f"The page cannot listen on {host}: this computer has no such address. Use 127.0.0.1.")
    reason = "is in use" if refusal == errno.EADDRINUSE else "is not for programs without special rights"
    start = max(port, 1023) + 1
    free = next((other for other in range(start, start + PORTS_TRIED) if try_port(host, other) is None), 0)
    raise PortTaken(f"Port {port} {reason}. Use another one: --port {free}")


def try_port(host: str, port: int) -> int | None:
    """None if a server can listen here, else the system's reason (an errno)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family):
            return None
    except OverflowError:
        return errno.EADDRINUSE
    except OSError as error:
        return error.errno
