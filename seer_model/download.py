"""One file from elsewhere into a folder, going on where an interrupted download stopped.

    FILENAME.part    what has come so far
    FILENAME.tag     which version that is part of: the ETag, or the date, that came with it

Rule: parts of two versions are never mixed, and a file gets its own name only when it is whole: of the length, and
where the source tells it of the SHA-256, that were promised.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from seer_model.durable import sync_file
from seer_model.errors import DownloadFailed
from seer_model.zoo import hash_file

CHUNK_BYTES = 1 << 20
TIMEOUT_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class FetchProgress:
    """How far one file has come."""

    filename: str
    done_bytes: int
    total_bytes: int | None
    """None where the other side does not say."""


OnProgress = Callable[[FetchProgress], None]


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file that can be downloaded."""

    address: str
    """Where its bytes are now; the hub's addresses hold signatures that expire."""
    filename: str
    origin: str
    """How an error names it."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """To be sent to this address and to none that it redirects to: there may be a token among them."""
    sha256: str | None = None
    """Of the whole file, in hex; None where the source does not say."""


def find_hub_file(repo_id: str, filename: str) -> RemoteFile:
    """Ask the Hugging Face hub where a file of a repository is, and which SHA-256 it has if it is a large one.

    Raises: DownloadFailed.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, HTTPError
    from huggingface_hub.utils import build_hf_headers

    page = hf_hub_url(repo_id, filename)
    try:
        found = get_hf_file_metadata(page)
    except (OSError, HTTPError, EntryNotFoundError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DownloadFailed(f"{filename} of {repo_id} on huggingface.co: {reason}") from error
    # Large files lie on other servers: the person's token is the hub's business alone.
    is_at_hub = urlsplit(found.location).netloc == urlsplit(page).netloc
    return RemoteFile(
        address=found.location,
        filename=filename,
        origin=f"{filename} of {repo_id} on huggingface.co",
        headers=build_hf_headers() if is_at_hub else {},
        sha256=found.etag if re.fullmatch("[0-9a-f]{64}", found.etag or "") else None,
    )


def download_file(remote: RemoteFile, folder: Path, on_progress: OnProgress) -> Path:
    """Download a file into a folder, which must exist; a file of this name that is there already is left alone.

    Raises: DownloadFailed; what has come so far stays as a part, unless it is shown to be wrong.
    """
    target = folder / remote.filename
    part, tag = folder / f"{remote.filename}.part", folder / f"{remote.filename}.tag"
    if target.is_file():
        return target
    try:
        _download_rest(remote, part, tag, on_progress)
    except (OSError, HTTPException) as error:
        raise DownloadFailed(f"{remote.origin}: {error}") from error
    if remote.sha256 and hash_file(part) != remote.sha256:
        part.unlink()
        raise DownloadFailed(f"{remote.origin}: what came is not what was promised (SHA-256), and was removed")
    sync_file(part)
    os.replace(part, target)
    tag.unlink(missing_ok=True)
    return target


def _download_rest(remote: RemoteFile, part: Path, tag: Path, on_progress: OnProgress) -> None:
    """Bring the part to its whole length."""
    is_version_known = tag.is_file() or remote.sha256
    done_bytes = part.stat().st_size if part.is_file() and is_version_known else 0
    try:
        with urlopen(_ask_for_rest(remote, done_bytes, tag), timeout=TIMEOUT_SECONDS) as response:
            total_bytes = _receive(response, remote, part, tag, done_bytes, on_progress)
    except HTTPError as error:
        if error.code != 416 or not done_bytes:
            raise
        part.unlink()  # The part reaches beyond the file's end: it is of something else.
        return _download_rest(remote, part, tag, on_progress)
    _require_whole(remote, part, total_bytes)


def _ask_for_rest(remote: RemoteFile, done_bytes: int, tag: Path) -> Request:
    request = Request(remote.address, headers={"User-Agent": "seer", "Accept-Encoding": "identity"})
    for name, value in remote.headers.items():
        request.add_unredirected_header(name, value)
    if done_bytes:
        request.add_header("Range", f"bytes={done_bytes}-")
        if tag.is_file():
            # Another version by now: the server sends all of it, and the two are never mixed.
            request.add_header("If-Range", tag.read_text(encoding="utf-8"))
    return request


def _receive(
    response: HTTPResponse, remote: RemoteFile, part: Path, tag: Path, done_bytes: int, on_progress: OnProgress
) -> int | None:
    """Write what comes to the part, and return how long the whole file is."""
    is_rest = response.status == 206
    if is_rest and not response.headers.get("Content-Range", "").startswith(f"bytes {done_bytes}-"):
        part.unlink(missing_ok=True)
        raise DownloadFailed(f"{remote.origin}: another part of the file came than was asked for")
    done_bytes = done_bytes if is_rest else 0
    version = response.headers.get("ETag") or response.headers.get("Last-Modified")
    tag.write_text(version, encoding="utf-8") if version else tag.unlink(missing_ok=True)
    length = response.headers.get("Content-Length")
    total_bytes = done_bytes + int(length) if length else None
    with open(part, "ab" if is_rest else "wb") as file:
        while chunk := response.read(CHUNK_BYTES):
            file.write(chunk)
            done_bytes += len(chunk)
            on_progress(FetchProgress(filename=remote.filename, done_bytes=done_bytes, total_bytes=total_bytes))
    return total_bytes


def _require_whole(remote: RemoteFile, part: Path, total_bytes: int | None) -> None:
    found_bytes = part.stat().st_size
    if total_bytes is None or found_bytes == total_bytes:
        return
    if found_bytes > total_bytes:
        part.unlink()
    raise DownloadFailed(f"{remote.origin}: the connection ended at {found_bytes} of {total_bytes} bytes")
