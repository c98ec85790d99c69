"""Reading and decoding files in worker processes: one read gives hash, thumbnail and the backbone's input.

Workers know no torch. What one file does to its worker - an exception, or the death of the process - becomes the
reason of that file; the others are decoded all the same.

Rule: results come in the order of the tasks, whatever the timing.
"""

import multiprocessing
import os
import signal
import stat
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import numpy as np
from blake3 import blake3

from indexer.layout import clamp_time
from seer_model.errors import PictureError
from seer_model.pictures import encode_thumbnail, open_picture
from seer_model.preprocess import Preprocessing, prepare

MAX_FILE_BYTES = 2 << 30
AHEAD_PER_WORKER = 8


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """What every worker needs to know."""

    preprocessing: Preprocessing
    max_megapixels: float
    thumbnail_px: int


@dataclass(frozen=True)
class DecodeTask:
    """A file to read; content whose hash is in `known` is not decoded."""

    path: str
    known: tuple[bytes, ...] = ()


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


def hash_content(data: bytes) -> bytes:
    """The identity of an image: BLAKE3, 32 bytes."""
    return blake3(data).digest()


def decode_file(task: DecodeTask, settings: DecodeSettings) -> DecodedFile:
    """Read one file and decode it; whatever is wrong with it is in `reason`."""
    try:
        data, status = _read_whole(task.path)
    except (OSError, PictureError) as error:
        return DecodedFile(path=task.path, reason=_explain(error))
    content_hash = hash_content(data)
    read = {
        "path": task.path,
        "size_bytes": status.st_size,
        "mtime_ns": clamp_time(status.st_mtime_ns),
        "content_hash": content_hash,
    }
    if content_hash in task.known:
        return DecodedFile(**read)
    try:
        picture = open_picture(
            data, max_megapixels=settings.max_megapixels, short_side_px=settings.preprocessing.short_side_px
        )
        return DecodedFile(
            **read,
            width=picture.width,
            height=picture.height,
            format=picture.format,
            pixels=prepare(picture.pixels, settings.preprocessing),
            thumbnail=encode_thumbnail(picture, side_px=settings.thumbnail_px),
        )
    except PictureError as error:
        return DecodedFile(**read, reason=str(error))
    except Exception as error:  # noqa: BLE001 - one file must not stop the job, whatever the decoder did.
        return DecodedFile(**read, reason=f"The decoder failed with {type(error).__name__}: {error}.")


class DecodePool:
    """Worker processes that decode ahead of their reader by a bounded number of files."""

    def __init__(self, settings: DecodeSettings, workers: int | None = None) -> None:
        self._settings = settings
        self._workers = workers or os.cpu_count() or 1
        self._executor: ProcessPoolExecutor | None = None

    def decode(self, tasks: Iterable[DecodeTask]) -> Iterator[DecodedFile]:
        """Decode files, in order."""
        waiting: deque[tuple[DecodeTask, Future, ProcessPoolExecutor]] = deque()
        for task in tasks:
            waiting.append((task, *self._submit(task)))
            if len(waiting) >= self._workers * AHEAD_PER_WORKER:
                yield self._take(waiting)
        while waiting:
            yield self._take(waiting)

    def close(self) -> None:
        """End the workers; what they still have in hand is dropped."""
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
            self._executor = None

    def _submit(self, task: DecodeTask) -> tuple[Future, ProcessPoolExecutor]:
        if self._executor is None:
            self._executor = _start_workers(self._workers)
        try:
            return self._executor.submit(decode_file, task, self._settings), self._executor
        except BrokenProcessPool:
            self.close()
            return self._submit(task)

    def _take(self, waiting: deque[tuple[DecodeTask, Future, ProcessPoolExecutor]]) -> DecodedFile:
        task, future, executor = waiting.popleft()
        try:
            return future.result()
        except BrokenProcessPool:
            # Nobody knows which of the files in hand did it: each is tried alone, in a worker of its own.
            if executor is self._executor:
                self.close()
            return self._decode_alone(task)

    def _decode_alone(self, task: DecodeTask) -> DecodedFile:
        alone = _start_workers(1)
        try:
            return alone.submit(decode_file, task, self._settings).result()
        except BrokenProcessPool:
            reason = "The process that decoded it was ended from outside, likely for want of memory; make it smaller."
            return DecodedFile(path=task.path, reason=reason)
        finally:
            alone.shutdown()


def _start_workers(count: int) -> ProcessPoolExecutor:
    # Not fork: this process may hold torch's threads. A fork server loads our modules once for all workers.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload(["indexer.decode"])
    return ProcessPoolExecutor(count, mp_context=context, initializer=_begin_worker)


def _begin_worker() -> None:
    # Ctrl-C reaches the whole process group; the conductor decides what becomes of the batch in hand.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    # After kill -9 nobody tells the workers: the queue that they wait on is held open by themselves.
    multiprocessing.parent_process().join()
    os._exit(1)


def _read_whole(path: str) -> tuple[bytes, os.stat_result]:
    with open(path, "rb") as file:
        before = os.fstat(file.fileno())
        if not stat.S_ISREG(before.st_mode):
            raise PictureError("It is no longer a regular file.")
        if before.st_size > MAX_FILE_BYTES:
            raise PictureError(
                f"The file has {before.st_size >> 20} MB; files above {MAX_FILE_BYTES >> 20} MB are not read."
            )
        data = file.read()
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or len(data) != after.st_size:
        raise PictureError("The file changed while it was read; the next build tries again.")
    return data, after


def _explain(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "The file vanished before it was read; the next build looks again."
    if isinstance(error, PermissionError):
        return "The file may not be read (permission denied); allow it and build again."
    if isinstance(error, OSError):
        return f"The file could not be read ({error.strerror or error}); the next build tries again."
    return str(error)
