"""Reading and decoding files in worker processes: one read gives hash, thumbnail and the backbone's input.

Workers know no torch. What one file does to its worker - an exception, the death of the process, more time or memory
than a picture may take - becomes the reason of that file; the others are decoded all the same.

Rule: results come in the order of the tasks, whatever the timing.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from blake3 import blake3

from indexer.layout import clamp_time
from indexer.members import MAX_FILE_BYTES, Known, read_elsewhere, read_member, require_size
from indexer.remote import Stamp
from indexer.shards import Place
from indexer.urls import is_remote
from indexer.workers import DIED, Limits, Workers, count_cores
from seer_model.errors import PictureError
from seer_model.pictures import bound_memory, encode_thumbnail, open_picture
from seer_model.preprocess import Preprocessing, prepare

VANISHED = "The file vanished before it was read; the next build looks again."
CHUNK, LARGE_CHUNK, AHEAD_PER_WORKER = 4, 16, 2
"""Files that travel together, so that a worker rarely waits for the next one, and how many such are under way. Where
many wait, more: this process is woken less often, and may have many workers to serve."""
NICENESS = 5
"""A network whose threads wait for each other in every layer is not to wait for a decoder's turn. Not more: on a busy
computer a build gives way as a whole."""
MANY_EACH = 64
"""Files for each worker; with fewer, the last ones would lie with one worker while the others have nothing to do."""


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """What every worker needs to know."""

    preprocessing: Preprocessing
    max_megapixels: float
    max_seconds: float = 60.0
    """For reading and decoding one file."""
    thumbnail_px: int


@dataclass(frozen=True)
class DecodeTask:
    """A file to read; content whose hash is in `known` is not decoded."""

    path: str
    known: tuple[bytes, ...] = ()
    size_bytes: int = 0
    mtime_ns: int = 0
    inode: int | None = None
    data: bytes | None = None
    """Of a file that was read already; its stamp is the one above then."""
    reason: str | None = None
    """Why it could not be."""
    is_unanswered: bool = False
    """Whether that says nothing of the file: its store gave no answer, or lets nobody in."""
    member: tuple[Stamp | None, Place] | None = None
    """Of a member of a shard whose headers are known: where it lies, after the stamp that the shard must still have."""


@dataclass(frozen=True, kw_only=True)
class DecodedFile:
    """What reading a file gave. `pixels` (H, W, 3) uint8 and `thumbnail` (WebP) only if it was decoded."""

    path: str
    size_bytes: int = 0
    mtime_ns: int = 0
    content_hash: bytes | None = None
    width: int | None = None
    height: int | None = None
    format: str | None = None
    pixels: np.ndarray | None = None
    thumbnail: bytes | None = None
    reason: str | None = None

    @property
    def is_decoded(self) -> bool:
        """Whether it was read as a picture; its pixels may have been let go since."""
        return self.thumbnail is not None


def hash_content(data: bytes) -> bytes:
    """The identity of an image: BLAKE3, 32 bytes."""
    return blake3(data).digest()


def decode_file(task: DecodeTask, settings: DecodeSettings) -> DecodedFile:
    """Read one file and decode it; whatever is wrong with it is in `reason`."""
    if task.reason is not None:
        return DecodedFile(path=task.path, reason=task.reason)
    try:
        data, status = _read(task)
    except (OSError, PictureError, MemoryError) as error:
        return DecodedFile(path=task.path, reason=explain_unread(error))
    read = _note_read(task.path, data, status)
    return read if read.content_hash in task.known else _decode(data, read, settings)


def _decode(data: bytes, read: DecodedFile, settings: DecodeSettings) -> DecodedFile:
    try:
        picture = open_picture(
            data, max_megapixels=settings.max_megapixels, short_side_px=settings.preprocessing.short_side_px
        )
        return replace(
            read,
            width=picture.width,
            height=picture.height,
            format=picture.format,
            pixels=prepare(picture.pixels, settings.preprocessing),
            thumbnail=encode_thumbnail(picture, side_px=settings.thumbnail_px),
        )
    except PictureError as error:
        return replace(read, reason=str(error))
    except Exception as error:  # noqa: BLE001 - one file must not stop the job, whatever the decoder did.
        return replace(read, reason=f"The decoder failed with {type(error).__name__}: {error}.")


class DecodePool:
    """Worker processes that decode ahead of their reader by a bounded number of files."""

    def __init__(self, settings: DecodeSettings, workers: int | None = None, total: int = 0) -> None:
        """`workers`: None for one on each core. `total`: files that there are to decode, as far as it is known."""
        work = partial(decode_file, settings=settings)
        is_many = total >= MANY_EACH * (workers or count_cores())
        self._pool = Workers(
            work,
            _give_up,
            preload=__name__,
            count=workers,
            chunk=LARGE_CHUNK if is_many else CHUNK,
            ahead=AHEAD_PER_WORKER,
            limits=choose_limits(settings),
        )

    def decode(self, tasks: Iterable[DecodeTask]) -> Iterator[DecodedFile]:
        """Decode files, in order."""
        return self._pool.map(tasks)

    def close(self) -> None:
        """End the workers; what they still have in hand is dropped."""
        self._pool.close()


def choose_limits(settings: DecodeSettings) -> Limits:
    """What one picture may cost its worker."""
    return Limits(
        seconds=settings.max_seconds,
        memory_bytes=bound_memory(settings.max_megapixels) + MAX_FILE_BYTES,
        niceness=NICENESS,
    )


def _give_up(task: DecodeTask, reason: str) -> DecodedFile:
    if reason != DIED:
        reason += " To wait longer, give --max-seconds."
    try:
        data, status = _read(task)
    except (OSError, PictureError):
        return DecodedFile(path=task.path, reason=reason)
    # By its content, as every other picture that cannot be read: the next build leaves it alone.
    return _note_read(task.path, data, status, reason=reason)


def _note_read(path: str, data: bytes, status: os.stat_result | Stamp, **more: object) -> DecodedFile:
    return DecodedFile(
        path=path,
        size_bytes=status.st_size,
        mtime_ns=clamp_time(status.st_mtime_ns),
        content_hash=hash_content(data),
        **more,
    )


def _read(task: DecodeTask) -> tuple[bytes, os.stat_result | Stamp]:
    if task.data is not None:
        return task.data, Stamp(task.size_bytes, task.mtime_ns, 0)
    return read_whole(task.path)


def read_whole(path: str | Path, known: Known | None = None) -> tuple[bytes, os.stat_result | Stamp]:
    """The bytes of a file, of a picture in a shard or behind a URL, and its stamp.

    Args:
        known: what a catalog knows of it; only asked for behind URLs.
    Raises: PictureError, OSError; SourceError where nobody here knows that kind of URL.
    """
    if is_remote(path):
        return read_elsewhere(path, known)
    try:
        return _read_file(path)
    except NotADirectoryError:
        return read_member(path)


def _read_file(path: str | Path) -> tuple[bytes, os.stat_result]:
    with open(path, "rb", opener=_open_at_once) as file:
        before = os.fstat(file.fileno())
        if not stat.S_ISREG(before.st_mode):
            raise PictureError("It is no longer a regular file.")
        require_size(before.st_size)
        data = file.read()
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or len(data) != after.st_size:
        raise PictureError("The file changed while it was read; the next build tries again.")
    return data, after


def _open_at_once(path: str, flags: int) -> int:
    # A pipe that has taken the picture's place would keep whoever opens it waiting for a writer, for ever.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def explain_unread(error: Exception) -> str:
    """The reason of a file that could not be read."""
    if isinstance(error, FileNotFoundError):
        return VANISHED
    if isinstance(error, PermissionError):
        return "The file may not be read (permission denied); allow it and build again."
    if isinstance(error, MemoryError):
        return "There is not enough memory to read the file; close other programs, and the next build tries again."
    if isinstance(error, OSError):
        return f"The file could not be read ({error.strerror or error}); the next build tries again."
    return str(error)
