"""Serving the page from this process until Ctrl-C: to this computer alone, or to others who know the password.

Rule: host, port and password are checked before anything is loaded, and a refusal says what to type instead.
"""

import errno
import ipaddress
import os
import re
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from seer_model.errors import UserError
from ui.password import VARIABLE

PORTS_TRIED = 100
INTERRUPTED = 130
NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?", re.IGNORECASE)


class HostRefused(UserError):
    """The page would be open to other computers, or to whoever calls it by any name."""


class PortTaken(UserError):
    """The port is in use, or not for us."""


def serve(
    folders: Sequence[Path],
    host: str,
    port: int,
    on_ready: Callable[[list[str]], None],
    *,
    password: str | None = None,
    names: Sequence[str] = (),
    keeps_uploads: bool = True,
    search_engine: str | None = None,
) -> NoReturn:
    """Show collections in the browser until the server is told to stop; then the process ends, at Ctrl-C with 130.

    Args:
        folders: the collections; none: those in the default place, also if they are made later.
        port: 0 for any that is free.
        on_ready: called with the page's addresses once it answers, the one to show first.
        password: asked of everybody, also on this computer; None: nothing is asked.
        names: by which the page may be called besides its own.
        keeps_uploads: whether a picture that is dropped is kept for the link to its answer.
        search_engine: where candidates come from in place of the index here, as a person types it.
    Raises: HostRefused, PortTaken.
    """
    require_password(host, password, names)
    known = list_names(host, names)
    require_free(host, port)
    # Imported here: Streamlit takes a second, and a refusal should not wait for it.
    import streamlit

    from ui.app import list_options, make_app
    from ui.resources import choose_collection

    choose_collection(*folders, keeps=keeps_uploads, search_engine=search_engine)
    app = make_app(
        known, password, on_ready=lambda: on_ready(list_addresses(host, names, streamlit.get_option("server.port")))
    )
    status = 0
    try:
        app.run(config=list_options(host, port))
    except KeyboardInterrupt:  # The server has closed, and passes on what it was told to stop by.
        status = INTERRUPTED
    sys.stdout.flush()
    # Not an orderly exit: a model that is still loading in its thread would turn it into an abort.
    os._exit(status)


def list_addresses(host: str, names: Sequence[str], port: int) -> list[str]:
    """The URLs by which the page can be opened, the one to show first. Behind a proxy it has others, known to that."""
    if is_loopback(host):
        return [show_address(host, port)]
    loopback = ["::1" if ":" in host else "127.0.0.1"] if _is_everywhere(host) else []
    return [show_address(name, port) for name in dict.fromkeys([*list_names(host, names), *loopback])]


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


def require_password(host: str, password: str | None, names: Sequence[str] = ()) -> None:
    """Raise HostRefused unless the page has a password, or only this computer can reach it, and by its own names."""
    if not host:
        raise HostRefused("--host is empty. Leave it out, or use 0.0.0.0 for all networks.")
    # A proxy on this computer would bring others to it, by a name of theirs.
    opened = [f"--host {host}", *(f"--allow-host {name}" for name in names)]
    foreign = next((option for option in opened if not is_loopback(option.rpartition(" ")[2])), None)
    if password is None and foreign is not None:
        raise HostRefused(
            f"{foreign} would open the page to other computers, and it has no password. Leave it out and use an SSH "
            f"tunnel, or set a password by {VARIABLE} or --password-file."
        )


def list_names(host: str, names: Sequence[str]) -> list[str]:
    """The names by which the page may be called, the one to show first. Raises: HostRefused for what is no name."""
    for name in names:
        if not NAME.fullmatch(name) and not _is_address(name):
            raise HostRefused(f"--allow-host {name} is no name. Give one without port and http://, as in pictures.lan.")
    own = socket.gethostname() if _is_everywhere(host) else host
    return [name.lower() for name in (*names, own)]


def _is_everywhere(host: str) -> bool:
    return _is_address(host) and ipaddress.ip_address(host).is_unspecified


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


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
