"""The embedding of a build on a cluster: waiting files go out as output shards, and what comes back is recorded.

The shards that an earlier run has left are taken in before anything is done again: a build that was killed loses what
its cluster had in hand, and nothing else.

Rule: shards are recorded in the order of their files, so that rows are those of a build at home.
"""

import hashlib
import logging
import os
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

from indexer.cluster import Cluster
from indexer.cluster_stages import DECODING, NETWORK, READING, UNANSWERED, Embedding, Row, make_row, require_made
from indexer.decode import DecodeSettings, DecodeTask
from indexer.fetching import InVain, find_place, list_tasks
from indexer.fleet import About, Fleet
from indexer.layout import OUTPUTS
from indexer.output_shards import (
    TOKEN,
    OutputShard,
    explain_outputs,
    list_shards,
    name_shard,
    read_shard,
    remove_aside,
    remove_shard,
)
from indexer.parts import PartTask
from indexer.recording import Recorder, Sinks
from indexer.report import Progress, Watchers
from indexer.settings import BuildSettings
from indexer.urls import is_remote, resolve, spell
from seer_model.durable import make_folder
from seer_model.errors import SettingsError, UserError
from seer_model.zoo import find_model

SHARD_FILES, SHARD_BYTES = 256, 128 << 20
"""Of one shard: a few seconds of one device's work, and what a node holds of it."""
THREADS = 2
"""Of each network that runs on a CPU."""
ROUND_SHARDS = 1024
"""Handed to the cluster together: of more, the tasks alone would fill this process's memory."""

log = logging.getLogger(__name__)


@dataclass
class _Shard:
    tasks: list[DecodeTask]
    name: str


class ClusterPipeline:
    """One run over the files that wait."""

    def __init__(
        self,
        sinks: Sinks,
        cluster: Cluster,
        decoding: DecodeSettings,
        embedding: Embedding,
        watchers: Watchers,
    ) -> None:
        self._sinks, self._cluster = sinks, cluster
        self._decoding, self._embedding, self._watchers = decoding, embedding, watchers
        self._recorder = Recorder(sinks, watchers)
        self._new: dict[str, bool] = {}
        self._busy: Counter[str] = Counter()
        self._in_vain = InVain()
        self.tally = self._recorder.tally

    def run(self, total: int) -> bool:
        """Bring the first `total` waiting files in. Returns: whether it came to the end, and was not told to stop."""
        tasks = list_tasks(self._sinks.catalog.list_work(self._sinks.store), total, self._new)
        shards = self._cut(map(find_place, tasks))
        while some := list(islice(shards, ROUND_SHARDS)):
            for shard, made in self._make(some):
                self._record(shard, made)
                tally = self.tally
                self._watchers.on_progress(Progress("embedding", tally.read, total, tally.failed, self._find_limit()))
                if self._watchers.should_stop():
                    return False
        self._clean()
        return True

    def _clean(self) -> None:
        """What is left of other runs, other settings and lost nodes is nobody's any more."""
        with suppress(OSError):
            for name in list_shards(self._embedding.outputs):
                remove_shard(self._embedding.outputs, name)
            remove_aside(self._embedding.outputs)

    def _cut(self, tasks: Iterator[DecodeTask]) -> Iterator[_Shard]:
        some, size_bytes = [], 0
        for task in tasks:
            if some and (len(some) == SHARD_FILES or size_bytes + task.size_bytes > SHARD_BYTES):
                yield self._name(some)
                some, size_bytes = [], 0
            some.append(task)
            size_bytes += task.size_bytes
        if some:
            yield self._name(some)

    def _name(self, tasks: list[DecodeTask]) -> _Shard:
        embedding, decoding = self._embedding, self._decoding
        made_by = {
            "fingerprint": embedding.fingerprint,
            "device": embedding.device,
            "how": [embedding.how, embedding.threads],
            "preprocessing": decoding.preprocessing.describe(),
            "most": [decoding.max_megapixels, decoding.max_seconds, decoding.thumbnail_px],
        }
        return _Shard(tasks, name_shard(tasks, made_by))

    def _make(self, shards: list[_Shard]) -> Iterator[tuple[_Shard, OutputShard]]:
        """Shards in order, those that are there as they are, the others from the cluster."""
        outputs = self._embedding.outputs
        with explain_outputs(outputs):
            there = list_shards(outputs)
            whole = {one.name for one in shards if one.name in there and self._is_whole(one.name)}
        missing = [make_row(place, one.name, one.tasks) for place, one in enumerate(shards) if one.name not in whole]
        made = self._cluster.run(missing, self._decoding, self._embedding)
        for shard in shards:
            if shard.name not in whole:
                self._count(next(made))
            yield shard, self._read(shard.name)

    def _is_whole(self, name: str) -> bool:
        """Whether a shard is there of which every file was read: what could not be then may be now."""
        shard = read_shard(self._embedding.outputs, name)
        return shard is not None and all(file.content_hash for file in shard.files)

    def _count(self, row: Row) -> None:
        require_made(row)
        for stage in (READING, DECODING, NETWORK):
            self._busy[stage] += row[stage] / self._cluster.plan.count(stage)
        # Each node has seen its own shards alone.
        self._in_vain.count(row[UNANSWERED], row["files"], row["last"])

    def _read(self, name: str) -> OutputShard:
        with explain_outputs(self._embedding.outputs):
            shard = read_shard(self._embedding.outputs, name)
        if shard is None:
            raise SettingsError(
                f"A node has written a shard into {spell(self._embedding.outputs)}, and it is not to be found there "
                "from here. Give a place that all nodes and this computer reach: --outputs s3://BUCKET/PREFIX"
            )
        return shard

    def _record(self, shard: _Shard, made: OutputShard) -> None:
        self._watchers.on_step("batch embedded")
        files = [(decoded, self._new.pop(decoded.path)) for decoded in made.files]
        fresh = self._recorder.choose_fresh(files)
        seen = dict(zip((made.files[place].content_hash for place in made.embedded), made.usable, strict=True))
        rows = iter(made.rows)
        row_of = {content_hash: next(rows) for content_hash, is_usable in seen.items() if is_usable}
        usable = [seen[decoded.content_hash] for decoded in fresh]
        wanted = [row_of[one.content_hash] for one, is_usable in zip(fresh, usable, strict=True) if is_usable]
        self._recorder.record(files, fresh, wanted, usable)
        try:
            remove_shard(self._embedding.outputs, shard.name)
        except OSError as error:  # It is recorded; the end of the build tries again.
            log.warning("%s could not be removed: %s", shard.name, error.strerror or error)

    def _find_limit(self) -> str | None:
        return max(self._busy, key=self._busy.__getitem__, default=None)


class Spread:
    """A cluster with a model, for one build."""

    def __init__(self, cluster: Cluster, embedding: Embedding, about: About) -> None:
        self._cluster, self._embedding = cluster, embedding
        self.fleet = Fleet(about, [partial(cluster.embed, embedding)])

    def fill_parts(self, tasks: Sequence[PartTask]) -> None:
        """As `Cluster.fill_parts`."""
        self._cluster.fill_parts(tasks)

    def make_pipeline(
        self, sinks: Sinks, decoding: DecodeSettings, together: int, watchers: Watchers
    ) -> ClusterPipeline:
        """What embeds the files that wait. `together`: pictures in one call of the network."""
        embedding = replace(self._embedding, together=together)
        return ClusterPipeline(sinks, self._cluster, decoding, embedding, watchers)


def open_spread(collection: Path, settings: BuildSettings, how: dict, stack: ExitStack) -> Spread:
    """Connect to a cluster, and ask it about the model; `stack` lets go of it.

    Raises: SettingsError, ModelError, DeviceError.
    """
    # Of a place that is shared each collection has a part of its own.
    own = hashlib.sha256(os.fsencode(collection.resolve())).hexdigest()[:16]
    outputs = resolve(Path(settings.outputs) / f"seer-{own}" if settings.outputs else collection / OUTPUTS)
    cluster = stack.enter_context(closing(Cluster(settings.address, settings.device, settings.workers)))
    token = _open_outputs(outputs)
    stack.callback(_close_outputs, outputs, token)
    embedding = Embedding(
        model=settings.model, device=cluster.plan.device, threads=THREADS, how=how, together=1, fingerprint=None,
        outputs=outputs, token=token,
    )  # fmt: skip
    about = cluster.open_embedder(embedding)
    # Each node would choose a batch by its own memory, and other batches are rounded otherwise.
    how = {**how, "batch_size": about.batch_size}
    # By the file here it is seen whether the model has changed; a node's has another time.
    with suppress(UserError):
        about = replace(about, stamps=list(map(list, find_model(settings.model).stamps)))
    return Spread(cluster, replace(embedding, fingerprint=about.fingerprint, how=how), about)


def _open_outputs(outputs: Path) -> str:
    """Make a folder for shards ready, and leave a file in it by which the nodes know it. Returns: that one's name."""
    token = f"{uuid.uuid4().hex}{TOKEN}"
    if not is_remote(outputs):
        with explain_outputs(outputs):
            make_folder(outputs)
            (outputs / token).touch()
    return token


def _close_outputs(outputs: Path, token: str) -> None:
    """Take that file away, and our own folder if nothing is left in it."""
    if not is_remote(outputs):
        with suppress(OSError):
            (outputs / token).unlink(missing_ok=True)
            outputs.rmdir()
