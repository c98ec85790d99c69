"""Pictures that lie on no disk of this computer: their URLs, kept as paths.

`s3://bucket/key` is `Path("s3:/bucket/key")` wherever paths are: pathlib folds the two slashes into one, and whatever
else a collection knows is absolute, so that nothing looks like it.

Rule: this is about spelling; nobody is asked.
"""

import os
import re
from pathlib import Path, PurePath
from urllib.parse import urlsplit

from indexer.errors import SourceError

# Two letters at least: Windows has disks of one.
REMOTE = re.compile(r"([a-z][a-z0-9+.-]+):/+", re.ASCII)
SECRET = re.compile(
    r"secret|signature|token|passw|credential|(?:access|api|subscription|shared)[-_]?key|^(?:sig|key|auth|jwt|pwd|pass)$",
    re.IGNORECASE,
)
"""What the parameters of a URL are called that open a door to whoever has it."""


def is_remote(path: str | Path) -> bool:
    """Whether this path is a URL's."""
    return REMOTE.match(_write(path)) is not None


def make_url(path: str | Path) -> str:
    """The URL of a path that is one's."""
    return REMOTE.sub(r"\1://", _write(path), count=1)


def spell(path: str | Path) -> str:
    """A path as a person writes it: a URL with both of its slashes."""
    return make_url(path) if is_remote(path) else os.fspath(path)


def read_scheme(path: str | Path) -> str:
    """`s3` of a URL's path."""
    return REMOTE.match(_write(path))[1]


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
    # On Windows a path has other slashes.
    return path.as_posix() if isinstance(path, PurePath) else path


def _refuse_secret(path: Path) -> None:
    try:
        parts = urlsplit(make_url(path))
    except ValueError as error:
        raise SourceError(f"{make_url(path)!r} is no URL ({error}). Check it.") from None
    if parts.scheme == "file":
        raise SourceError("Give a file or a folder of this computer by its path, without file://.")
    asked = re.split("[&;]", f"{parts.query}&{parts.fragment}")
    named = [one.partition("=")[0] for one in asked if SECRET.search(one.partition("=")[0])]
    # A name alone may be a token, where nobody has an account.
    is_named = parts.password is not None or (parts.username is not None and parts.scheme in ("http", "https"))
    if not (is_named or named):
        if "#" in make_url(path) and parts.scheme in ("http", "https"):
            raise SourceError(f"{make_url(path)!r} has a #, and no server is told what follows it. Write %23 for it.")
        return
    # The URL itself is not said again: this text may be kept.
    raise SourceError(
        f"A URL at {parts.hostname} holds a {named[0] if named else 'password'}, and the "
        "collection would keep it. Give the URL without, and the secret where its store's own programs look for it "
        "(as environment variables or in their files; docs/scale.md)."
    )
