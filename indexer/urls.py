"""Pictures that lie on no disk of this computer: their URLs, kept as paths.

`s3://bucket/key` is `Path("s3:/bucket/key")` wherever paths are: pathlib folds the two slashes into one, and whatever
else a collection knows is absolute, so that nothing looks like it.

Rule: this is about spelling; nobody is asked.
"""

import os
import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from indexer.errors import SourceError

# Two letters at least: Windows has disks of one.
REMOTE = re.compile(r"([a-z][a-z0-9+.-]+):/+", re.ASCII)
SECRET = re.compile(r"secret|signature|token|password|credential|api_?key|^(?:sig|key)$", re.IGNORECASE)
"""What the parameters of a URL are called that open a door to whoever has it."""


def is_remote(path: str | Path) -> bool:
    """Whether this path is a URL's."""
    return REMOTE.match(os.fspath(path)) is not None


def make_url(path: str | Path) -> str:
    """The URL of a path that is one's."""
    return REMOTE.sub(r"\1://", _write(path), count=1)


def spell(path: str | Path) -> str:
    """A path as a person writes it: a URL with both of its slashes."""
    return make_url(path) if is_remote(path) else os.fspath(path)


def read_scheme(path: str | Path) -> str:
    """`s3` of a URL's path."""
    return REMOTE.match(os.fspath(path))[1]


def make_absolute(path: Path) -> Path:
    """A path as the catalog has it, links not followed; a URL's stays as it is."""
    return path if is_remote(path) else Path(os.path.normpath(path.absolute()))


def resolve(path: Path) -> Path:
    """A path as the catalog has it, with links followed. Raises: SourceError if it is a URL that holds a secret."""
    if not is_remote(path):
        return path.resolve()
    _refuse_secret(path)
    return path


def _write(path: str | Path) -> str:
    return path.as_posix() if isinstance(path, Path) else path


def _refuse_secret(path: Path) -> None:
    parts = urlsplit(make_url(path))
    named = [name for name, _ in parse_qsl(parts.query) if SECRET.search(name)]
    if parts.password is None and not named:
        return
    # The URL itself is not said again: this text may be kept.
    raise SourceError(
        f"A URL at {parts.hostname} holds a {'password' if parts.password is not None else named[0]}, and the "
        "collection would keep it. Give the URL without, and the secret where its store's own programs look for it "
        "(as environment variables or in their files; docs/scale.md)."
    )
