"""What the nodes of a cluster do: read the files of an output shard, decode them, embed them and write it.

Each stage takes what the one before it gave, one shard at a time, and is done once more on another node where its own
was lost. None of it knows the collection or the engine.

Rule: what a stage makes follows from what it was given, so that doing it again makes the same.
"""

import os
import pickle
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, wraps
from pathlib import Path
from typing import Any

import numpy as np

from indexer.decode import VANISHED, DecodedFile, DecodePool, DecodeSettings, DecodeTask
from indexer.errors import SourceError
from indexer.fetching import describe, fetch_ahead
from indexer.fleet import About
from indexer.output_shards import OutputShard, explain_outputs, write_shard
from indexer.urls import is_remote
from seer_model.errors import DeviceError, SettingsError, UserError

READING, DECODING, NETWORK = "reading", "decoding", "the network"
"""The stages, by the names that a person is told."""
UNANSWERED = "unanswered"
"""Of a row: files about which their store said nothing on this node; `files` has how many there are."""

FAILURE = "failure"
"""Of a row: what the person can put right, pickled, once a stage has raised that; the stages after it pass it on. An
engine would hand on no more than the text of it."""

Row = dict[str, Any]
"""One shard on its way: `number`, `name`, `payload`, and the seconds that each stage took."""
Stage = Callable[..., Row]


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """How a node embeds. It goes to every node."""

    model: str
    device: str
    threads: int | None
    """Of the network on a CPU: with one alone oneDNN adds up in another order than with several."""
    how: dict
    """`precision`, `batch_size`, `is_compiled`."""
    together: int
    """Pictures in one call."""
    fingerprint: str | None
    """What the model must have; None: whatever it has."""
    outputs: Path
    token: str
    """A file in `outputs` that shows whether this is the same place everywhere."""


def make_row(number: int, name: str, tasks: list) -> Row:
    """A shard before the first stage."""
    return {"number": number, "name": name, "payload": pickle.dumps(tasks), FAILURE: b""}


def require_made(row: Row) -> None:
    """Raise what a stage did. Raises: UserError."""
    if row[FAILURE]:
        raise pickle.loads(row[FAILURE])


def _hand_on_failure(stage: Stage) -> Stage:
    @wraps(stage)
    def carry_out(*arguments: Any) -> Row:
        *_, row = arguments
        if row[FAILURE]:
            return row
        try:
            return stage(*arguments)
        except UserError as error:
            return {**row, "payload": b"", FAILURE: pickle.dumps(error)}

    return carry_out


@_hand_on_failure
def read_files(row: Row) -> Row:
    """The first stage: the bytes of the files, or why there are none.

    Fails: SourceError if a picture folder is not there on this node, or a store does not answer.
    """
    started = time.perf_counter()
    tasks = list(fetch_ahead(pickle.loads(row["payload"]), is_all=True))
    _require_folders(tasks)
    unanswered = [task for task in tasks if task.is_unanswered]
    last = describe(unanswered[-1]) if unanswered else ""
    return _hand_on({**row, UNANSWERED: len(unanswered), "files": len(tasks), "last": last}, tasks, READING, started)


def _require_folders(tasks: list[DecodeTask]) -> None:
    """Files that are missing together with all that lies beside them are another computer's."""
    gone = [task for task in tasks if task.reason == VANISHED and not is_remote(task.path)]
    places = {task.member[1].path if task.member else os.path.dirname(task.path) for task in gone}
    if away := sorted(filter(_is_away, places)):
        raise SourceError(
            f"{away[0]} is not there, or is empty, on the node {socket.gethostname()}. Mount it on every node of the "
            "cluster, or give the pictures by a URL that all of them reach."
        )


def _is_away(place: str) -> bool:
    return not os.path.exists(place) or (os.path.isdir(place) and not os.listdir(place))


class DecodeFiles:
    """The second stage, in processes of its own, as a build at home has them."""

    def __init__(self, settings: DecodeSettings, workers: int) -> None:
        self._pool = DecodePool(settings, workers)

    @_hand_on_failure
    def __call__(self, row: Row) -> Row:
        started = time.perf_counter()
        return _hand_on(row, list(self._pool.decode(pickle.loads(row["payload"]))), DECODING, started)


class Embedder:
    """The backbone on one device of a node, opened once, when it is first needed.

    Raises, whatever is asked of it: what `open_backbone` does; DeviceError if the model is another one on this node.
    """

    def __init__(self, embedding: Embedding) -> None:
        # Nothing that may fail: of an actor that never came to be an engine does not say why.
        self._embedding = embedding

    @cached_property
    def _opened(self) -> tuple[About, Callable]:
        # Imported here: the other stages must not wait for torch.
        from indexer.embed import open_lane

        embedding = self._embedding
        about, lane = open_lane(embedding.model, embedding.device, embedding.how, embedding.threads)
        if embedding.fingerprint not in (None, about.fingerprint):
            raise DeviceError(
                f"{embedding.model} is another model on the node {socket.gethostname()} than elsewhere in the cluster. "
                "Put the same file there; what was embedded is kept."
            )
        return about, lane

    def describe(self) -> About:
        """What a build must know of it."""
        return self._opened[0]

    def embed(self, pixels: list[np.ndarray]) -> tuple[np.ndarray, list[bool]]:
        """As a `Lane`; also for pictures that belong to no shard."""
        return self._opened[1](pixels)


class EmbedFiles:
    """The third stage: the backbone, and the finished shard.

    Fails: as `Embedder`; SettingsError if the place of the shards cannot be used, or is another one on this node.
    """

    def __init__(self, embedding: Embedding) -> None:
        self._embedder, self._embedding = Embedder(embedding), embedding
        # Before there is work, so that nothing waits for it; what is wrong is said of the first shard.
        with suppress(UserError):
            self._embedder.describe()

    @_hand_on_failure
    def __call__(self, row: Row) -> Row:
        started, outputs = time.perf_counter(), self._embedding.outputs
        _require_same_place(self._embedding)
        files: list[DecodedFile] = pickle.loads(row["payload"])
        shard = embed_files(files, self._embedder.embed, self._embedding.together)
        with explain_outputs(outputs):
            write_shard(outputs, row["name"], shard)
        return _hand_on(row, None, NETWORK, started)


def embed_files(files: list[DecodedFile], lane: Callable, together: int) -> OutputShard:
    """A shard of decoded files: one of each content is embedded, some at a time."""
    first: dict[bytes, int] = {}
    for place, decoded in enumerate(files):
        if decoded.is_decoded:
            first.setdefault(decoded.content_hash, place)
    embedded = sorted(first.values())
    parts = [lane([files[place].pixels for place in some]) for some in _cut(embedded, together)]
    return OutputShard(
        files=[replace(decoded, pixels=None) for decoded in files],
        embedded=embedded,
        usable=[is_usable for _, usable in parts for is_usable in usable],
        rows=np.concatenate([rows for rows, _ in parts]).astype(np.float16) if parts else np.empty((0, 0), np.float16),
    )


def _cut(places: list[int], together: int) -> Iterator[list[int]]:
    return (places[first : first + together] for first in range(0, len(places), together))


def _require_same_place(embedding: Embedding) -> None:
    if not is_remote(embedding.outputs) and not (embedding.outputs / embedding.token).exists():
        raise SettingsError(
            f"{embedding.outputs} is not the same folder on the node {socket.gethostname()}. Give a place that all "
            "nodes reach: --outputs s3://BUCKET/PREFIX, or a folder that they share."
        )


def _hand_on(row: Row, payload: object, stage: str, started: float) -> Row:
    return {**row, "payload": pickle.dumps(payload, 5), stage: time.perf_counter() - started}
