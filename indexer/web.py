"""Web servers, where fsspec's file system for them falls short: why there is no answer, parts, files without an end.

Rule: what went wrong is what is raised; whether to ask again is for the caller to say.
"""

from http import HTTPStatus
from pathlib import Path
from typing import Any

from indexer.urls import read_scheme

SCHEMES = ("http", "https")
MISSING = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)


def is_web(path: str | Path) -> bool:
    """Whether a web server has it."""
    return read_scheme(path) in SCHEMES


def ask_info(system: Any, name: str) -> dict:
    """As `system.info`, which calls missing whatever it could not ask about."""
    try:
        return system.info(name)
    except FileNotFoundError as error:
        why = error.__cause__
        if why is None or getattr(why, "status", None) in MISSING:
            raise
        raise why from None


def read_part(system: Any, name: str, offset: int, size_bytes: int) -> bytes | None:
    """A stretch of a file; None from a server that hands out whole ones only."""
    if not size_bytes:
        return b""
    status, data = _get(system, name, size_bytes, {"Range": f"bytes={offset}-{offset + size_bytes - 1}"})
    return bytes(data[:size_bytes]) if status == HTTPStatus.PARTIAL_CONTENT or not offset else None


def read_bounded(system: Any, name: str, most_bytes: int) -> bytes | None:
    """All of a file; None if it is longer than that. It may have no end."""
    _, data = _get(system, name, most_bytes + 1, {})
    return bytes(data) if len(data) <= most_bytes else None


def _get(system: Any, name: str, enough: int, headers: dict[str, str]) -> tuple[int, bytearray]:
    from fsspec.asyn import sync

    return sync(system.loop, _read, system, name, enough, headers)


async def _read(system: Any, name: str, enough: int, headers: dict[str, str]) -> tuple[int, bytearray]:
    session, options = await system.set_session(), dict(system.kwargs)
    # Compressed on the way, parts would be those of something else.
    headers = {**options.pop("headers", {}), "Accept-Encoding": "identity", **headers}
    data = bytearray()
    async with session.get(system.encode_url(name), headers=headers, **options) as answer:
        system._raise_not_found_for_status(answer, name)
        async for piece in answer.content.iter_any():
            data += piece
            if len(data) >= enough:
                break
        return answer.status, data
