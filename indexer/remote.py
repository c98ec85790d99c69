"""Pictures in object storage and behind other URLs, by way of fsspec.

What a store answers with an error, slowly or not at all is asked for again, later each time. Who may read there is
looked up by the store's own library, in the environment and the files where its other programs look.

Rule: what is said of a failure, here and in logs, names the URL and what happened, never who asked.
"""

import errno
import logging
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit

from blake3 import blake3

from indexer.errors import SourceError
from indexer.layout import LARGEST, clamp_time
from indexer.urls import is_remote, make_url, read_scheme
from indexer.web import SCHEMES, ask_info, is_web, read_bounded, read_part

ATTEMPTS, FIRST_SECONDS, ANSWER_SECONDS = 6, 0.5, 15.0
"""How often a store is asked, how long it is waited at first, twice as long each time, and how long for one answer."""
LAST_SECONDS = 45.0
"""After so long without a word it is not asked once more."""
ATTEMPTS_FOR_A_LOOK = 2
"""How often while a person waits, who can look again."""
CONNECTIONS = 32
MOST_SYSTEMS = 64
"""Hosts whose connections are kept."""
BLOCK_BYTES = 4 << 20
"""Read at a time of a shard whose headers are looked for."""
FINAL = (
    FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ImportError, TypeError, MemoryError,
)  # fmt: skip
"""What a second question would not change."""
SILENCE = "Connect|Timeout|Disconnect|ClientOSError|HTTPClientError"
"""In the names of errors of all libraries below, where no answer came, not even that of a failure."""
EXTRAS = {"s3": "s3", "s3a": "s3", "http": "s3", "https": "s3"}
"""Scheme -> the extra of this package that brings its library."""
TIMES = ("LastModified", "mtime", "last_modified", "updated", "Last-Modified", "created")
TAGS = ("ETag", "etag", "md5Hash", "generation", "checksum", "blob_id", "oid", "Content-MD5", "Digest")
"""What stores call the time and the version of what they hold."""

Answer = TypeVar("Answer")
log = logging.getLogger(__name__)
_attempts: ContextVar[int] = ContextVar("attempts", default=ATTEMPTS)


class StoreError(OSError):
    """A store could not be asked, or gave no answer, however often."""


class StoreSilent(StoreError):
    """Nobody could be reached, or nothing came: of others in that store it would be the same."""


@dataclass(frozen=True)
class Stamp:
    """What a file system would say of a picture, were it a file of its own."""

    st_size: int
    st_mtime_ns: int
    """0: its store does not say."""
    st_ino: int
    """Another one where the content is another: of its store's ETag or version."""


@contextmanager
def give_up_sooner() -> Iterator[None]:
    """Meanwhile stores are asked less often by this thread: somebody waits."""
    before = _attempts.set(ATTEMPTS_FOR_A_LOOK)
    try:
        yield
    finally:
        _attempts.reset(before)


def list_remote(root: Path) -> Iterator[tuple[str, Stamp | None]]:
    """Everything below a URL: path, stamp. None: the listing says nothing of it, and its store must be asked.

    The listing streams: a page at a time from S3, a folder at a time from others.

    Raises: SourceError if nobody here knows this kind of URL; OSError, StoreError among them.
    """
    system, below = _open(root)
    list_all = _list_pages if hasattr(system, "call_s3") else _list_folders
    for info in list_all(system, below):
        if info["name"].endswith("/") and not info.get("size"):
            continue  # What some programs leave in place of a folder.
        yield f"{root}{info['name'][len(below) :]}", None if info.get("size") is None else _make_stamp(info)


def stat_remote(path: str | Path) -> Stamp:
    """What its store says of one. Raises: SourceError, OSError."""
    return _make_stamp(_ask_info(path))


def _ask_info(path: str | Path) -> dict:
    system, name = _open(path)
    return _persist(path, lambda: ask_info(system, name) if is_web(path) else system.info(name))


def read_remote(path: str | Path, offset: int | None = None, size_bytes: int = 0) -> bytes:
    """All bytes of it, or a stretch of them. Raises: SourceError, OSError."""
    system, name = _open(path)
    if offset is None:
        return _persist(path, lambda: system.cat_file(name))
    if not is_web(path):
        return _persist(path, lambda: system.cat_file(name, start=offset, end=offset + size_bytes))
    data = _persist(path, lambda: read_part(system, name, offset, size_bytes))
    if data is None:
        raise OSError(errno.EINVAL, "its server hands out whole files and no parts of them, as a shard's are read")
    return data


def read_at_most(path: str | Path, most_bytes: int) -> bytes | None:
    """All bytes of it; None from a web server that has more. Raises: SourceError, OSError."""
    if not is_web(path):
        return read_remote(path)  # Other stores know what they have.
    system, name = _open(path)
    return _persist(path, lambda: read_bounded(system, name, most_bytes))


def write_remote(path: str | Path, data: bytes) -> None:
    """Put it there, whole or not at all. Raises: SourceError, OSError."""
    system, name = _open(path)
    _persist(path, lambda: system.pipe_file(name, data))


def remove_remote(path: str | Path) -> None:
    """Take it away; what is not there is no failure. Raises: SourceError, OSError."""
    system, name = _open(path)
    with suppress(FileNotFoundError):
        _persist(path, lambda: system.rm_file(name))


def open_remote(path: str | Path) -> IO[bytes]:
    """A file to read from front to back, with small steps backwards. Raises: SourceError, OSError."""
    # Where the size is known beforehand the file asks no more for it, and each block is asked for as the rest is.
    size_bytes = int(_ask_info(path).get("size") or 0)
    if not size_bytes and is_web(path):
        raise OSError(errno.EINVAL, "its server does not say how large it is, so that no part of it can be asked for")
    return _Blocks(path, size_bytes)


def _open(path: str | Path) -> tuple[Any, str]:
    """The file system of a URL, and what that calls it."""
    url = make_url(path)
    system = _find_system(read_scheme(path), urlsplit(url).netloc)
    return system, system._strip_protocol(url)


@lru_cache(maxsize=MOST_SYSTEMS)
def _find_system(scheme: str, host: str) -> Any:
    try:
        import fsspec

        kind = fsspec.get_filesystem_class(scheme)
        # Its own listings would be remembered for as long as this process lives.
        fresh = {"use_listings_cache": False, "skip_instance_cache": True}
        system = kind(**fresh, **kind._get_kwargs_from_urls(f"{scheme}://{host}/"), **_choose(scheme))
    except ImportError as error:
        brings = f"pip install 'seer[{EXTRAS[scheme]}]'" if scheme in EXTRAS else f"{error}"
        raise SourceError(f"{scheme}:// needs a library that is not installed: {brings}") from error
    except ValueError as error:
        raise SourceError(
            f"{scheme}:// is no kind of URL that can be read. Known are s3://, gs://, hf://, sftp://, https:// and "
            "what else fsspec knows."
        ) from error
    system.retries = 1  # Of S3's: asking again is done here.
    return system


def _choose(scheme: str) -> dict:
    import fsspec

    if scheme in SCHEMES:
        import aiohttp

        # Of waiting, not of a whole file: a large one may take longer than that.
        waiting = aiohttp.ClientTimeout(total=None, sock_connect=ANSWER_SECONDS, sock_read=ANSWER_SECONDS)
        return {"client_kwargs": {"timeout": waiting}}
    if scheme not in ("s3", "s3a"):
        return {}
    # Files are small and many: one request for each, and none beforehand for its size.
    options: dict[str, Any] = {"max_concurrency": 1}
    if "config_kwargs" not in fsspec.config.conf.get(scheme, {}):
        options["config_kwargs"] = {"max_pool_connections": CONNECTIONS, "retries": {"total_max_attempts": 1}}
    return options


def _list_pages(system: Any, below: str) -> Iterator[dict]:
    bucket, prefix, _ = system.split_path(below)
    more: dict = {}
    while True:
        asked = {"Bucket": bucket, "Prefix": f"{prefix}/" if prefix else "", **more}
        page = _persist(below, lambda asked=asked: system.call_s3("list_objects_v2", **asked))
        for one in page.get("Contents", ()):
            yield {**one, "name": f"{bucket}/{one['Key']}", "size": one["Size"]}
        if not page.get("IsTruncated"):
            return
        more = {"ContinuationToken": page["NextContinuationToken"]}


def _list_folders(system: Any, below: str) -> Iterator[dict]:
    waiting, seen = [below], {below.rstrip("/")}
    while waiting:
        folder = waiting.pop()
        for info in _persist(folder, lambda folder=folder: system.ls(folder, detail=True)):
            if info["type"] != "directory":
                yield info
            elif info["name"].rstrip("/") not in seen:
                seen.add(info["name"].rstrip("/"))
                waiting.append(info["name"])


def _make_stamp(info: dict) -> Stamp:
    time_told = next((info[name] for name in TIMES if info.get(name)), None)
    tag = next((str(info[name]) for name in TAGS if info.get(name)), "")
    number = int.from_bytes(blake3(tag.encode()).digest(length=8), "little") & LARGEST if tag else 0
    return Stamp(int(info.get("size") or 0), clamp_time(_read_time(time_told)), number)


def _read_time(told: object) -> int:
    with suppress(ValueError, TypeError, OverflowError):
        if isinstance(told, str):
            told = datetime.fromisoformat(told) if re.match(r"\d{4}-", told) else parsedate_to_datetime(told)
        seconds = told.timestamp() if isinstance(told, datetime) else float(told)
        return round(seconds * 1000) * 1_000_000
    return 0


def _persist(path: str | Path, ask: Callable[[], Answer]) -> Answer:
    """What a store answers, in the end."""
    attempts, started = _attempts.get(), time.monotonic()
    for attempt in range(1, attempts + 1):
        try:
            return ask()
        except FINAL as error:
            raise _reword(error) from None
        except Exception as error:  # noqa: BLE001 - each store's library has errors of its own.
            if _is_final(error):
                raise _explain_refusal(error) from None
            is_late = _is_silence(error) and time.monotonic() - started > LAST_SECONDS
            if attempt == attempts or is_late:
                raise _explain_silence(error, attempt) from None
            log.debug("%s: %s; asked again", _name(path), _describe(error))
            time.sleep(min(FIRST_SECONDS * 2 ** (attempt - 1) * random.uniform(0.5, 1.0), ANSWER_SECONDS))
    raise AssertionError("unreachable")


def _reword(error: Exception) -> Exception:
    """Without what the library says: it may name who asked."""
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, "there is nothing under this name")
    if isinstance(error, PermissionError):
        return PermissionError(errno.EACCES, "its store lets nobody in with the credentials that are here")
    if isinstance(error, OSError):
        return OSError(errno.EINVAL, "it is no file that can be read")
    return error


def _is_final(error: Exception) -> bool:
    status = getattr(error, "status", None) or getattr(error, "code", None)
    is_refused = isinstance(status, int) and 400 <= status < 500 and status not in (408, 425, 429)
    return is_refused or _lacks_credentials(error) or getattr(error, "errno", None) == errno.EINVAL


def _lacks_credentials(error: Exception) -> bool:
    return bool(re.search("Credential|ProfileNotFound|TokenRetrieval", type(error).__name__))


def _is_silence(error: Exception) -> bool:
    return bool(re.search(SILENCE, type(error).__name__))


def _explain_refusal(error: Exception) -> OSError:
    if _lacks_credentials(error) or getattr(error, "status", None) in (401, 403):
        return PermissionError(
            errno.EACCES, "no credentials were found where this store's own programs look for them (docs/scale.md)"
        )
    return OSError(errno.EINVAL, f"its store refuses it: {_describe(error)}")


def _explain_silence(error: Exception, attempts: int) -> StoreError:
    # Not EIO, which would be the disk's of the collection.
    kind = StoreSilent if _is_silence(error) else StoreError
    return kind(errno.ETIMEDOUT, f"its store gives no answer: {_describe(error)}, asked {attempts} times")


def _describe(error: Exception) -> str:
    # Not its text: libraries put into that what they asked, with its signature, and who asked.
    code = re.search(r"An error occurred \((\w+)\)", str(error))
    status = getattr(error, "status", None)
    told = code[1] if code else f"status {status}" if isinstance(status, int) else None
    return f"{type(error).__name__}{f', {told}' if told else ''}"


def _name(path: str | Path) -> str:
    return make_url(path) if is_remote(path) else str(path)


class _Blocks:
    """A remote file as `tarfile` reads one, a block in hand."""

    def __init__(self, path: str | Path, size_bytes: int) -> None:
        self._path, self._size, self._at = path, size_bytes, 0
        self._first, self._block = 0, b""
        self.name, self.mode = _name(path), "rb"

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def read(self, size_bytes: int = -1) -> bytes:
        wanted = self._size - self._at if size_bytes < 0 else size_bytes
        end = min(self._at + wanted, self._size)
        pieces = []
        while self._at < end:
            pieces.append(self._read_some(end))
            self._at += len(pieces[-1])
        return b"".join(pieces)

    def _read_some(self, end: int) -> bytes:
        start = self._at - self._first
        if not 0 <= start < len(self._block):
            self._first, start = self._at, 0
            self._block = read_remote(self._path, self._at, min(BLOCK_BYTES, self._size - self._at))
            if not self._block:
                raise StoreError(errno.ETIMEDOUT, f"it ends at byte {self._at}, and should have {self._size}")
        return self._block[start : start + end - self._at]

    def close(self) -> None:
        self._block = b""

    def __enter__(self) -> "_Blocks":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
