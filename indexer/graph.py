"""The neighbour graph: for every row of the generation that answers the rows nearest to it, written batch by batch.

    CURRENT -> rows of a batch -> candidates -> ranked by the stored rows -> graph folder (synced) -> recall -> a graph

It may be stopped or killed at any point: the next run goes on from the last whole batch, and ends with the same bytes.

Rule: the generation is only read; what is written here is derived from it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indexer.errors import CollectionDamaged, explain_refusal
from indexer.generations import Generation, open_generation, read_newest_first
from indexer.graph_folder import FILES, GraphWriter, Links, read_graph
from indexer.hold import hold
from indexer.linking import Linker
from indexer.publish import require_faiss
from indexer.report import Progress
from indexer.settings import require
from indexer.snapshot import Snapshot

NEIGHBOURS, MOST_NEIGHBOURS = 16, 256


@dataclass(frozen=True, kw_only=True)
class GraphReport:
    """What a run did; `linked` counts rows of this run, `recall` is None until all are linked."""

    generation: str
    rows: int
    neighbours: int
    linked: int
    pending: int
    recall: float | None
    seconds: float

    def describe(self) -> dict:
        """As JSON-able values, the line that `seer graph --json` prints."""
        return {"schema_version": 1, **vars(self)}


def build_graph(
    collection: Path,
    *,
    neighbours: int = NEIGHBOURS,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> GraphReport:
    """Make the neighbour graph of the generation that answers, or go on with it; one that is whole is left alone.

    Args:
        neighbours: k, for each row; a graph with another number is made anew.
        should_stop: asked after each batch; True ends the run with that batch on the disk.
    Raises: SettingsError, FaissMissing, and what stands under CollectionError.
    """
    started = time.monotonic()
    require(1 <= neighbours <= MOST_NEIGHBOURS, f"--neighbours is {neighbours}; allowed are 1 to {MOST_NEIGHBOURS}.")
    require_faiss("no graph was made")
    with explain_refusal(collection), hold(collection, "seer graph"):
        snapshot = Snapshot(collection, open_generation(collection))
        linker = Linker(snapshot, neighbours, _find_before(collection, snapshot.generation, neighbours))
        writer = GraphWriter(snapshot.generation, neighbours, linker.describe())
        first = writer.rows
        _link(linker, writer, on_progress, should_stop)
        return GraphReport(
            generation=snapshot.generation.name,
            rows=snapshot.rows,
            neighbours=neighbours,
            linked=writer.rows - first,
            pending=snapshot.rows - writer.rows,
            recall=writer.recall,
            seconds=round(time.monotonic() - started, 3),
        )


def _link(
    linker: Linker, writer: GraphWriter, on_progress: Callable[[Progress], None], should_stop: Callable[[], bool]
) -> None:
    first, rows = writer.rows, linker.snapshot.rows
    if first < rows:
        on_progress(Progress("linking", 0, rows - first))
    for links in linker.link(first):
        writer.append(links)
        on_progress(Progress("linking", writer.rows - first, rows - first))
        if should_stop() and writer.rows < rows:
            return
    if writer.recall is None:
        writer.finish(linker.measure(writer.read().similarities))


def _find_before(collection: Path, generation: Generation, count: int) -> Links:
    """The graph of an earlier generation to go on from: of the same store, and of the same index, which has grown."""
    for one in read_newest_first(collection):
        is_older = one.manifest["rows"] <= generation.manifest["rows"] and one.name != generation.name
        if is_older and _name_index(one) == _name_index(generation):
            graph = _read_sound(one)
            if graph and graph.neighbours.shape[1] == count:
                return graph
    return Links(*(np.empty((0, count), dtype=kind) for kind in FILES.values()))


def _name_index(generation: Generation) -> list:
    """What stays the same while an index grows."""
    manifest = generation.manifest
    search = manifest.get("search") or {}
    return [manifest["store"], manifest["fingerprint"], search.get("recipe"), search.get("trained_among")]


def _read_sound(generation: Generation) -> Links | None:
    try:
        graph = read_graph(generation)
    except CollectionDamaged:
        return None
    return graph and graph.links
