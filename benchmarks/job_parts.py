"""Who takes part in the measurement of the whole job, and the two parts of it alone.

    ours, script                  files to a published collection; files to rows.npy and an index. Each round in a
                                  process of its own
    decoding, ours and plain      files to prepared pictures, by the job's pool of processes; by a DataLoader
    network                       Backbone.embed on prepared pictures in memory

Rule: what starting takes - interpreter, imports, looking through the folder, opening the model - is kept apart from the
rate; a job's clock runs from its first picture to its end.
"""

import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.plain_job import ROWS, PlainJob, has_faiss, load_pictures
from benchmarks.race import Round, read_clock
from indexer.catalog_reader import CatalogReader
from indexer.decode import DecodePool, DecodeSettings, DecodeTask, hash_content
from indexer.embed import open_backbone
from indexer.errors import FaissMissing
from indexer.job import build_collection
from indexer.layout import CATALOG, STORES
from indexer.report import Progress, Watchers
from indexer.settings import BuildSettings
from indexer.vectors import Store, count_rows
from indexer.workers import count_cores
from seer_model.backbone import Backbone
from seer_model.errors import PictureError
from seer_model.preprocess import Preprocessing

OURS, SCRIPT = "ours", "script"
DECODING, PLAIN_DECODING, NETWORK = "decoding alone, ours", "decoding alone, DataLoader", "network alone, ours"
READY_BATCHES = 4
"""Of pictures that are kept in memory for the network alone."""
WARMING_EACH = 8
"""Files for each worker, decoded untimed, so that all of them have started."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all have in common. It is sent to the processes of the jobs: values only."""

    folder: Path
    """Holds the files, and no other pictures."""
    files: tuple[Path, ...]
    model: str
    device: torch.device
    precision: str = "auto"
    """Of ours; the script has fp32."""
    workers: int | None = None
    """Processes that decode; None: one for each core."""

    def make_build_settings(self) -> BuildSettings:
        """For ours: as `seer build` has them, but for what is given here."""
        return BuildSettings(
            model=self.model, device=str(self.device), precision=self.precision, workers=self.workers
        )

    def open_backbone(self) -> Backbone:
        """As a build opens it, for what is measured in this process."""
        device = str(self.device)
        return open_backbone(self.model, device=device, precision=self.precision, batch_size=None)

    def make_decode_settings(self, how: Preprocessing) -> DecodeSettings:
        """As a build has them."""
        settings = self.make_build_settings()
        return DecodeSettings(
            preprocessing=how,
            max_megapixels=settings.max_megapixels,
            thumbnail_px=settings.thumbnail_px,
        )


@dataclass(frozen=True)
class Times:
    """Of one job, seconds of the system's steady clock, which all processes share."""

    begun: float
    """When the first picture could be read."""
    ended: float


def run_ours(setting: Setting, target: Path) -> Times:
    """Build a new collection. Raises: PictureError if one of the files cannot be embedded."""
    begun: list[float] = []

    def note(progress: Progress) -> None:
        if progress.stage == "embedding" and not begun:
            begun.append(time.monotonic())

    try:
        report = build_collection(
            target, [setting.folder], setting.make_build_settings(), Watchers(on_progress=note)
        )
    except FaissMissing:
        if has_faiss():
            raise
        return Times(begun[0], time.monotonic())
    if report.failed:
        raise PictureError(f"{report.failed} of the pictures cannot be read. Measure on good pictures.")
    return Times(begun[0], time.monotonic())


def run_script(setting: Setting, target: Path) -> Times:
    """Run the plain script."""
    job = PlainJob(setting.model, setting.device, setting.workers)
    begun = time.monotonic()
    job.embed(setting.files, target)
    return Times(begun, time.monotonic())


class Job:
    """One of the two jobs; the product of the last round lies in `made` until the next one or `close`."""

    def __init__(self, name: str, run: Callable[[Setting, Path], Times], setting: Setting) -> None:
        self.name, self._run, self._setting = name, run, setting
        self._scratch: tempfile.TemporaryDirectory | None = None
        self.starts: list[float] = []
        """Seconds that starting took, round by round."""

    @property
    def made(self) -> Path:
        """What it writes into; empty before each round."""
        return Path(self._scratch.name)

    def take_round(self, steps: int) -> Round:
        """As `Contender` has it, but one round is always one whole job."""
        self.close()
        self._scratch = tempfile.TemporaryDirectory(prefix="seer-job-")
        started = time.monotonic()
        # Not forked: this process holds torch's threads and the GPU.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            times = process.submit(self._run, self._setting, self.made).result()
        self.starts.append(times.begun - started)
        return Round(images=len(self._setting.files), seconds=times.ended - times.begun)

    def close(self) -> None:
        """Remove what was written."""
        if self._scratch is not None:
            self._scratch.cleanup()


class Decoding:
    """The job's pool of processes without a network; thumbnails and hashes are its work too."""

    name = DECODING

    def __init__(self, setting: Setting, how: Preprocessing) -> None:
        self._setting, self._how = setting, how
        self._tasks = [DecodeTask(str(file)) for file in setting.files]

    def take_round(self, steps: int) -> Round:
        """As `Contender` has it: all files once."""
        settings = self._setting.make_decode_settings(self._how)
        with closing(DecodePool(settings, self._setting.workers, len(self._tasks))) as pool:
            for _ in pool.decode(self._tasks[: WARMING_EACH * (self._setting.workers or count_cores())]):
                pass
            started = time.perf_counter()
            for _ in pool.decode(self._tasks):
                pass
            return Round(images=len(self._tasks), seconds=time.perf_counter() - started)


class PlainDecoding:
    """The script's DataLoader without a network. Its processes are forked within the time, which takes them little."""

    name = PLAIN_DECODING

    def __init__(self, setting: Setting, how: Preprocessing) -> None:
        self._setting, self._how = setting, how

    def take_round(self, steps: int) -> Round:
        """As `Contender` has it: all files once."""
        started = time.perf_counter()
        for _ in load_pictures(self._setting.files, self._how, self._setting.device, self._setting.workers):
            pass
        return Round(images=len(self._setting.files), seconds=time.perf_counter() - started)


class Network:
    """The backbone on prepared pictures in memory, the way to the device included."""

    name = NETWORK

    def __init__(self, setting: Setting, backbone: Backbone) -> None:
        self._backbone, self._device = backbone, setting.device
        files = setting.files[: READY_BATCHES * backbone.batch_size]
        with closing(DecodePool(setting.make_decode_settings(backbone.preprocessing), setting.workers)) as pool:
            self._ready = [decoded.pixels for decoded in pool.decode([DecodeTask(str(file)) for file in files])]
        if any(pixels is None for pixels in self._ready):
            raise PictureError("One of the pictures cannot be read. Measure on good pictures.")
        self._count = max(1, len(setting.files) // len(self._ready))

    def take_round(self, steps: int) -> Round:
        """As `Contender` has it: about as many pictures as there are files."""
        self._backbone.embed(self._ready[: self._backbone.batch_size])
        started = read_clock(self._device)
        for _ in range(self._count):
            self._backbone.embed(self._ready)
        return Round(images=self._count * len(self._ready), seconds=read_clock(self._device) - started)


def measure_agreement(setting: Setting, collection: Path, script: Path) -> np.ndarray:
    """Cosines of both jobs' embeddings, file by file: (N,)."""
    (folder,) = (collection / STORES).iterdir()
    theirs = np.load(script / ROWS)
    store = Store(folder, theirs.shape[1], count_rows(folder, theirs.shape[1]))
    with closing(CatalogReader(collection / CATALOG)) as catalog:
        images = [catalog.find_image(hash_content(file.read_bytes())) for file in setting.files]
        rows = [catalog.find_row(int(folder.name), image) for image in images]
    ours = np.stack([store.read_embedding(row) for row in rows])
    return (ours * theirs).sum(axis=1) / np.linalg.norm(theirs, axis=1)
