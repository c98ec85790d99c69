"""Bring a model of the table to this computer: `SEER_HOME/models/NAME/`, as `zoo` describes it.

Terms are accepted first, then bytes move, then the content is read and checked weight by weight, and only what passed
is written under its final name, in our own layout. What is interrupted goes on where it stopped (`download`).

Rule: no connection before the terms are accepted, and none at all when `HF_HUB_OFFLINE` is set.
"""

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from seer_model.download import OnProgress, RemoteFile, download_file, find_hub_file
from seer_model.durable import sync_folder, write_text_durably
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

if TYPE_CHECKING:
    from seer_model.checkpoint import Checkpoint

RECORD_VERSION = 1


def fetch_model(name: str, *, accept_licence: bool = False, on_progress: OnProgress = lambda progress: None) -> Path:
    """Download a model's weights, check them and keep them; a model that is here already is left alone.

    Returns: the file of its weights.
    Raises: ModelUnknown; LicenceNotAccepted, with the terms; DownloadFailed, with what to do by hand.
    """
    entry = find_entry(name)
    if entry.is_bundled:
        raise ModelError(f"The model {name} comes with the program; there is nothing to fetch.")
    folder = models_folder() / name
    here = _find_fetched(name)
    if here is None:
        _require_acceptance(entry, accept_licence)
        _require_room(entry, folder)
    try:
        here = here or _bring(entry, folder, on_progress)
        if (folder / "download").is_dir():
            shutil.rmtree(folder / "download")
    except OSError as error:
        raise DownloadFailed(f"{folder} cannot be written: {error.strerror or error}.") from error
    return here


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


def show_size(size_bytes: int) -> str:
    """A length in bytes as a person reads it, in GB or MB (of 10^9 and 10^6 bytes)."""
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"


def _find_fetched(name: str) -> Path | None:
    """The weights that are here and can be used; None when they have to be brought."""
    from seer_model.checkpoint import read_checkpoint

    try:
        path = find_model(name).path
        if not path.with_name(RECORD).is_file():
            read_checkpoint(path)  # Put there by hand: nobody has looked into it yet.
    except (ModelMissing, CheckpointError):
        return None  # Not as it should be: fetching again is what that error advises.
    return path


def _require_room(entry: ModelEntry, folder: Path) -> None:
    """The download and its copy in our layout lie side by side for a moment."""
    here_bytes = sum(file.stat().st_size for file in (folder / "download").rglob("*") if file.is_file())
    needed_bytes = 2 * 4 * entry.parameters - here_bytes
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if (free_bytes := shutil.disk_usage(there).free) < needed_bytes:
        raise DownloadFailed(
            f"Fetching {entry.name} needs {show_size(needed_bytes)} at {there}; {show_size(free_bytes)} are free. "
            "Make room, or set SEER_HOME to a folder on a larger disk."
        )


def _bring(entry: ModelEntry, folder: Path, on_progress: OnProgress) -> Path:
    """Try the entry's sources in turn until one gives a whole model; its place."""
    from huggingface_hub import constants

    (folder / "download").mkdir(parents=True, exist_ok=True)
    if constants.HF_HUB_OFFLINE:
        raise _ask_for_hands(entry, folder, "HF_HUB_OFFLINE is set", "Unset HF_HUB_OFFLINE and run the command again")
    reasons = []
    for source in entry.sources:
        try:
            files = _download(source, folder / "download", on_progress)
            checkpoint = _read_download(entry, source, files)
        except DownloadFailed as error:
            reasons.append(str(error))
        else:
            return _take_in(entry, source, files, checkpoint, folder)
    raise _ask_for_hands(entry, folder, "; ".join(reasons), "Run the command again to go on")


def _ask_for_hands(entry: ModelEntry, folder: Path, reason: str, advice: str) -> DownloadFailed:
    is_index = {source: source.filename.endswith(".index.json") for source in entry.sources}
    addresses = " or ".join(
        source.address + (" (and the files it lists, from beside it)" if is_index[source] else "")
        for source in entry.sources
    )
    return DownloadFailed(
        f"The weights of {entry.name} could not be downloaded ({reason}). {advice}, or download by hand "
        f"{addresses} and put it into {folder}: it is found there."
    )


def _download(source: HubSource | UrlSource, folder: Path, on_progress: OnProgress) -> list[Path]:
    """The source's files, the one to read in front."""
    if isinstance(source, UrlSource):
        remote = RemoteFile(address=source.address, filename=source.filename, origin=source.address)
        return [download_file(remote, folder, on_progress)]
    first = download_file(find_hub_file(source.repo_id, source.filename), folder, on_progress)
    listed = _list_shards(source, first) if source.filename.endswith(".index.json") else []
    return [first, *(download_file(find_hub_file(source.repo_id, shard), folder, on_progress) for shard in listed)]


def _list_shards(source: HubSource, index: Path) -> list[str]:
    from seer_model.weight_files import list_shards

    try:
        return list_shards(index)
    except CheckpointError as error:
        index.unlink()
        raise DownloadFailed(f"{source.address} has an index that cannot be read. {error}") from error


def _read_download(entry: ModelEntry, source: HubSource | UrlSource, files: list[Path]) -> "Checkpoint":
    """Check what was downloaded, weight by weight."""
    from seer_model.checkpoint import read_checkpoint

    try:
        return read_checkpoint(files[0])
    except CheckpointError as error:
        # Large enough to be the weights: to have gigabytes come again would bring the same. Less is a web page.
        if sum(file.stat().st_size for file in files) >= 2 * entry.parameters:
            kept = f"is kept in {files[0].parent}; remove it there to have it downloaded anew"
        else:
            kept = "was removed"
            for file in files:
                file.unlink()
        raise DownloadFailed(f"What {source.address} sent is no model, and {kept}. {error}") from error


def _take_in(
    entry: ModelEntry, source: HubSource | UrlSource, files: list[Path], checkpoint: "Checkpoint", folder: Path
) -> Path:
    """Write what was downloaded in our layout, and record what it was."""
    from seer_model.checkpoint import write_checkpoint

    ready = folder / "download" / f"ready-{WEIGHTS}"
    write_checkpoint(checkpoint, ready)
    written = ready.stat()
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
        "sha256": hash_file(ready),
    }
    # The record before the weights: weights alone would pass for some that were put there by hand, and be used with
    # their terms and their hash forgotten.
    write_text_durably(folder / RECORD, json.dumps(record, indent=2) + "\n")
    os.replace(ready, folder / WEIGHTS)
    sync_folder(folder)
    return folder / WEIGHTS


def _describe_file(file: Path) -> dict:
    return {"file": file.name, "size_bytes": file.stat().st_size, "sha256": hash_file(file)}
