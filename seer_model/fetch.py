"""Bring a model of the table to this computer: `SEER_HOME/models/NAME/`, as `zoo` describes it.

Terms are accepted first, then bytes move, then the content is read and checked weight by weight, and only what passed
is written under its final name, in our own layout. What is interrupted goes on where it stopped.

Rule: no connection before the terms are accepted, and none at all when `HF_HUB_OFFLINE` is set.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from seer_model.durable import sync_file, write_text_durably
from seer_model.errors import CheckpointError, DownloadFailed, LicenceNotAccepted, ModelError, ModelMissing
from seer_model.zoo import (
    RECORD,
    WEIGHTS,
    HubSource,
    ModelEntry,
    UrlSource,
    find_entry,
    find_model,
    hash_file,
    models_folder,
)

CHUNK_BYTES = 1 << 20
TIMEOUT_SECONDS = 60
RECORD_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class FetchProgress:
    """How far one file has come."""

    filename: str
    done_bytes: int
    total_bytes: int | None
    """None where the other side does not say."""


OnProgress = Callable[[FetchProgress], None]


def fetch_model(name: str, *, accept_licence: bool = False, on_progress: OnProgress = lambda progress: None) -> Path:
    """Download a model's weights, check them and keep them; a model that is here already is left alone.

    Returns: the file of its weights.
    Raises: ModelUnknown; LicenceNotAccepted, with the terms; DownloadFailed, with what to do by hand.
    """
    entry = find_entry(name)
    if entry.is_bundled:
        raise ModelError(f"The model {name} comes with the program; there is nothing to fetch.")
    if (here := _find_fetched(name)) is not None:
        return here
    _require_acceptance(entry, accept_licence)
    folder = models_folder() / name
    _require_room(entry, folder)
    try:
        (folder / "download").mkdir(parents=True, exist_ok=True)
        source, files = _download_any(entry, folder, on_progress)
        _take_in(entry, source, files, folder)
        shutil.rmtree(folder / "download")
    except OSError as error:
        raise DownloadFailed(f"{folder} cannot be written: {error.strerror or error}.") from error
    return folder / WEIGHTS


def show_terms(entry: ModelEntry) -> str:
    """The terms of a model's weights as text: name, summary, notice and where the whole licence is."""
    licence = entry.licence
    lines = [f"{entry.name}: {licence.name}", licence.summary, licence.notice, f"The whole text: {licence.address}"]
    return "\n".join(line for line in lines if line)


def _require_acceptance(entry: ModelEntry, is_accepted: bool) -> None:
    if entry.licence.must_accept and not is_accepted:
        raise LicenceNotAccepted(
            f"The weights of {entry.name} are under terms: {entry.licence.name}; the text is at "
            f"{entry.licence.address}. To accept them and download: seer models fetch {entry.name} --accept-licence"
        )


def _find_fetched(name: str) -> Path | None:
    try:
        return find_model(name).path
    except (ModelMissing, CheckpointError):
        return None  # Changed since it was fetched: fetching again is what that error advises.


def _require_room(entry: ModelEntry, folder: Path) -> None:
    """The download and its copy in our layout lie side by side for a moment."""
    needed_bytes = 2 * 4 * entry.parameters
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if (free_bytes := shutil.disk_usage(there).free) < needed_bytes:
        raise DownloadFailed(
            f"Fetching {entry.name} needs {needed_bytes / 1e9:.1f} GB at {there}; {free_bytes / 1e9:.1f} GB are free. "
            "Make room, or set SEER_HOME to a folder on a larger disk."
        )


def _download_any(entry: ModelEntry, folder: Path, on_progress: OnProgress) -> tuple[HubSource | UrlSource, list[Path]]:
    """Try the entry's sources in turn; the files of the first that works, the one to read in front."""
    from huggingface_hub import constants

    reasons = ["HF_HUB_OFFLINE is set"] if constants.HF_HUB_OFFLINE else []
    for source in () if reasons else entry.sources:
        download = _download_hub if isinstance(source, HubSource) else _download_url
        try:
            return source, download(source, folder / "download", on_progress)
        except DownloadFailed as error:
            reasons.append(str(error))
    addresses = " or ".join(source.address for source in entry.sources)
    raise DownloadFailed(
        f"The weights of {entry.name} could not be downloaded ({'; '.join(reasons)}). Run the command again to go on, "
        f"or download by hand from {addresses} and put the file (all parts, if it is several) into {folder}: "
        "it is found there."
    )


def _download_hub(source: HubSource, folder: Path, on_progress: OnProgress) -> list[Path]:
    first = _download_hub_file(source, source.filename, folder, on_progress)
    if not source.filename.endswith(".index.json"):
        return [first]
    try:
        shards = sorted(set(json.loads(first.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        raise DownloadFailed(f"{source.address} has an index that cannot be read: {error!r}") from error
    return [first, *(_download_hub_file(source, shard, folder, on_progress) for shard in shards)]


def _download_hub_file(source: HubSource, filename: str, folder: Path, on_progress: OnProgress) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HTTPError
    from tqdm import tqdm

    class Reporting(tqdm):
        """The bar that the hub's library moves, turned into reports."""

        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, **{**options, "disable": False})

        def display(self, *args: object, **options: object) -> None:
            on_progress(FetchProgress(filename=filename, done_bytes=int(self.n), total_bytes=self.total))

    try:
        return Path(hf_hub_download(source.repo_id, filename, local_dir=folder, tqdm_class=Reporting))
    except (OSError, HTTPError, EntryNotFoundError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DownloadFailed(f"{source.repo_id} on huggingface.co: {reason}") from error


def _download_url(source: UrlSource, folder: Path, on_progress: OnProgress) -> list[Path]:
    """Download into `NAME.part`, going on after what is there; `NAME.tag` keeps what version the part is of."""
    target = folder / source.filename
    part, tag = folder / f"{source.filename}.part", folder / f"{source.filename}.tag"
    if target.is_file():
        return [target]
    done_bytes = part.stat().st_size if part.is_file() else 0
    try:
        with urlopen(_ask_for_rest(source, done_bytes, tag), timeout=TIMEOUT_SECONDS) as response:
            total_bytes = _receive(response, part, tag, done_bytes, on_progress)
    except HTTPError as error:
        if error.code == 416:
            part.unlink()  # The part reaches beyond the file's end: it is of something else.
            return _download_url(source, folder, on_progress)
        raise DownloadFailed(f"{source.address}: {error}") from error
    except (OSError, HTTPException) as error:
        raise DownloadFailed(f"{source.address}: {error}") from error
    _require_whole(source, part, total_bytes)
    sync_file(part)
    os.replace(part, target)
    return [target]


def _ask_for_rest(source: UrlSource, done_bytes: int, tag: Path) -> Request:
    request = Request(source.address, headers={"User-Agent": "seer"})
    if done_bytes:
        request.add_header("Range", f"bytes={done_bytes}-")
        if tag.is_file():
            # Another version by now: the server sends all of it, and the two are never mixed.
            request.add_header("If-Range", tag.read_text(encoding="utf-8"))
    return request


def _receive(response: HTTPResponse, part: Path, tag: Path, done_bytes: int, on_progress: OnProgress) -> int | None:
    """Write what comes to the part, and return how long the whole file is."""
    is_rest = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {done_bytes}-")
    done_bytes = done_bytes if is_rest else 0
    version = response.headers.get("ETag") or response.headers.get("Last-Modified")
    tag.write_text(version, encoding="utf-8") if version else tag.unlink(missing_ok=True)
    length = response.headers.get("Content-Length")
    total_bytes = done_bytes + int(length) if length else None
    with open(part, "ab" if is_rest else "wb") as file:
        while chunk := response.read(CHUNK_BYTES):
            file.write(chunk)
            done_bytes += len(chunk)
            filename = part.name.removesuffix(".part")
            on_progress(FetchProgress(filename=filename, done_bytes=done_bytes, total_bytes=total_bytes))
    return total_bytes


def _require_whole(source: UrlSource, part: Path, total_bytes: int | None) -> None:
    found_bytes = part.stat().st_size
    if total_bytes is None or found_bytes == total_bytes:
        return
    if found_bytes > total_bytes:
        part.unlink()
    raise DownloadFailed(f"{source.address}: the connection ended at {found_bytes} of {total_bytes} bytes")


def _take_in(entry: ModelEntry, source: HubSource | UrlSource, files: list[Path], folder: Path) -> None:
    """Check what was downloaded, write it in our layout, and record what it was."""
    from seer_model.checkpoint import read_checkpoint, write_checkpoint

    try:
        checkpoint = read_checkpoint(files[0])
    except CheckpointError as error:
        shutil.rmtree(folder / "download")
        raise DownloadFailed(f"What {source.address} sent is no model, and was removed. {error}") from error
    write_checkpoint(checkpoint, folder / WEIGHTS)
    written = (folder / WEIGHTS).stat()
    record = {
        "record_version": RECORD_VERSION,
        "name": entry.name,
        "source": source.address,
        "downloaded": [_describe_file(file) for file in files],
        "licence": {"name": entry.licence.name, "address": entry.licence.address, "notice": entry.licence.notice},
        "licence_accepted": entry.licence.must_accept,
        "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
        "size_bytes": written.st_size,
        "mtime_ns": written.st_mtime_ns,
        "sha256": hash_file(folder / WEIGHTS),
    }
    write_text_durably(folder / RECORD, json.dumps(record, indent=2) + "\n")


def _describe_file(file: Path) -> dict:
    return {"file": file.name, "size_bytes": file.stat().st_size, "sha256": hash_file(file)}
