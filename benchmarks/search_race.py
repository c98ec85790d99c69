"""A stage's index and those of peers: each made and held in a process of its own, then all asked in turn in this one.

Rule: who cannot take part is told with the reason; ours is measured by the harder rule wherever two could be meant.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.search_aside import read_mapped, read_resident, run_aside
from benchmarks.search_peers import PEERS, Absent, Peer, use_all_cores
from benchmarks.search_stage import FOLDERS, Stage
from benchmarks.search_ways import (
    OURS,
    OURS_EXACT,
    Ours,
    Way,
    ask_in_turn,
    make_point,
    measure_files,
    measure_recall,
)
from indexer.answers import list_allowed
from indexer.filters import Filter
from indexer.fitting import Demands
from indexer.recall import NEAREST, NO_OWN, HeldOut, answer_exactly
from indexer.vectors import Store

FILTERED_QUERIES = 200


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How it is measured."""

    recall: float
    """That is asked of our index."""
    memory_bytes: int
    """For an index: ours, and what autofaiss may choose."""
    queries: int = 1000
    rounds: int = 3
    seconds: float = 20.0
    """After which a contender's part of a round ends."""
    peers: Sequence[str] = ()
    """Names to take part; all if there are none."""


Tell = Callable[[str], None]


def describe_build(stage: Stage, setting: Setting, tell: Tell) -> dict:
    """Make our index, approximate even where an exact answer would be fast enough; as JSON-able values."""
    tell("ours is being built")
    built = run_aside(publish_index, stage.folder, Demands(recall=setting.recall, memory_bytes=setting.memory_bytes))
    held = run_aside(hold_ours, stage.folder, setting.queries).result
    return {
        "what": built.result["chosen"],
        "seconds": built.seconds,
        "peak_bytes": built.own_bytes,
        **held,
        "bytes": max(held["resident_bytes"], built.result["size_bytes"]),
    }


def publish_index(folder: Path, demands: Demands, rows: int | None = None) -> dict:
    """Fit an index to a stage's rows, or the first so many, and let it answer."""
    stage = Stage(folder)
    forced = Demands(recall=demands.recall, memory_bytes=demands.memory_bytes, exact_ms=0)
    published = stage.publish(stage.fit(forced, rows), rows)
    return {"size_bytes": measure_files(published.folder), "name": published.name, **published.manifest}


def hold_ours(folder: Path, count: int) -> dict:
    """What a process holds once it has answered: more than without the index; in all; and pages of the mapped rows."""
    import indexer.index  # noqa: F401

    before, _ = read_resident()
    stage = Stage(folder)
    ours = Ours(stage)
    for query in stage.read_queries()[:count]:
        ours.answer(query)
    (own, mapped), rows = read_resident(), read_mapped(stage.place)
    ours.close()
    index = read_mapped(ours.snapshot.generation.folder)
    return {
        "resident_bytes": own - before + index,
        "process_bytes": own + mapped - rows,
        "mapped_rows_bytes": rows,
    }


def describe_peer(stage: Stage, peer: Peer, setting: Setting, tell: Tell) -> dict:
    """Make a peer's index, and hold it; as JSON-able values. Raises: Absent."""
    peer.require(stage.open_store(), setting.memory_bytes)
    tell(f"{peer.name} is being built")
    path = locate(stage, peer)
    built = run_aside(build_peer, stage.folder, peer.name, setting.memory_bytes)
    held = run_aside(hold_peer, stage.folder, peer.name, setting.queries).result
    return {
        "what": built.result,
        "seconds": built.seconds,
        "peak_bytes": built.own_bytes,
        "resident_bytes": held,
        "bytes": min(held, path.stat().st_size),
    }


def locate(stage: Stage, peer: Peer) -> Path:
    """Where a peer's index lies."""
    return stage.folder / f"{peer.name.replace(' ', '-').replace(',', '')}.peer"


def find_peer(name: str) -> Peer:
    """One of `PEERS`."""
    return next(peer for peer in PEERS if peer.name == name)


def build_peer(folder: Path, name: str, memory_bytes: int) -> str:
    """Make a peer's file; what it is."""
    stage, peer = Stage(folder), find_peer(name)
    return peer.build(stage.open_store(), locate(stage, peer), memory_bytes)


def hold_peer(folder: Path, name: str, count: int) -> int:
    """Bytes that a process holds more once it has opened a peer's index and has answered."""
    stage, peer = Stage(folder), find_peer(name)
    queries, store = stage.read_queries()[:count], stage.open_store()
    before, _ = read_resident()
    use_all_cores()
    index = peer.open(store, locate(stage, peer))
    for query in queries[:: max(1, len(queries) // 20)]:
        peer.search(index, query, NEAREST, peer.settings[0])
    return read_resident()[0] - before


def list_peer_ways(stage: Stage, peer: Peer) -> list[Way]:
    """A peer's index, opened, at all its widths."""
    index = peer.open(stage.open_store(), locate(stage, peer))
    return [
        Way(
            name=peer.name,
            width=str(width) if len(peer.settings) > 1 else "",
            answer=lambda query, width=width: peer.search(index, query, NEAREST, width),
            begin=use_all_cores,
        )
        for width in peer.settings
    ]


def compete(stage: Stage, truth: HeldOut, setting: Setting, tell: Tell) -> dict:
    """Build all, and ask them what the truth is known of.

    Returns: `builds`, `absent`, `points`, `rounds`, `filters`, as JSON-able values.
    """
    builds, absent = {OURS: describe_build(stage, setting, tell)}, {}
    for peer in PEERS:
        if not setting.peers or peer.name in setting.peers:
            try:
                builds[peer.name] = describe_peer(stage, peer, setting, tell)
            except Absent as reason:
                absent[peer.name] = str(reason)
    ours = Ours(stage)
    try:
        ways = [*ours.list_ways(), *(way for name in builds if name != OURS for way in open_ways(stage, name))]
        points, rounds = ask_all(stage, truth, ways, builds, setting, tell)
        filters = [measure_filter(stage, ours, share, setting) for share in FOLDERS]
    finally:
        ours.close()
    return {"builds": builds, "absent": absent, "points": points, "rounds": rounds, "filters": filters}


def open_ways(stage: Stage, name: str) -> list[Way]:
    """All ways of a peer that was built; its file is no longer needed then."""
    ways = list_peer_ways(stage, find_peer(name))
    locate(stage, find_peer(name)).unlink()
    return ways


def ask_all(
    stage: Stage, truth: HeldOut, ways: Sequence[Way], builds: dict, setting: Setting, tell: Tell
) -> tuple[list, list]:
    """The points of all ways, and the milliseconds of each of their queries, round by round."""
    store = stage.open_store()
    heard = ask_in_turn(ways, truth.queries, setting.rounds, setting.seconds, tell)
    sizes = {name: build["bytes"] for name, build in builds.items()} | {OURS_EXACT: 0}
    points = [
        make_point(way, found, measure_recall(store, truth, found.answers), sizes[way.name]).describe()
        for way, found in zip(ways, heard, strict=True)
    ]
    return points, [[[round(one, 4) for one in took] for took in found.rounds] for found in heard]


def measure_filter(stage: Stage, ours: Ours, share: float, setting: Setting) -> dict:
    """How fast and how right ours is where a filter lets this share of the images through; as JSON-able values."""
    ours.snapshot.search = ours.published
    started = time.perf_counter()
    allowed = list_allowed(ours.snapshot, ours.catalog, Filter(under=[Path(FOLDERS[share])]))
    took = time.perf_counter() - started
    store = stage.open_store()
    truth = answer_among(store, allowed, stage.read_queries()[: min(FILTERED_QUERIES, setting.queries)])
    way = Way(name=OURS, width="", answer=lambda query: ours.answer(query, allowed=allowed))
    (heard,) = ask_in_turn([way], truth.queries, 1, setting.seconds, lambda text: None)
    point = make_point(way, heard, measure_recall(store, truth, heard.answers), 0)
    is_exact = ours.snapshot.is_answered_exactly(allowed)
    return {
        "share": share,
        "rows": len(allowed),
        "is_exact": is_exact,
        "told_recall": 1.0 if is_exact else ours.snapshot.read_recall(allowed),
        "recall": point.recall,
        "median_ms": point.median_ms,
        "p99_ms": point.p99_ms,
        "first_ms": 1000 * took,
    }


def answer_among(store: Store, allowed: np.ndarray, queries: np.ndarray) -> HeldOut:
    """The queries with their true answers among these rows alone."""
    nobody = np.full(len(queries), NO_OWN)
    found = answer_exactly(queries, nobody, store.rows[allowed], store.norms[allowed])
    return replace(found, nearest=np.where(found.nearest < 0, NO_OWN, np.append(allowed, NO_OWN)[found.nearest]))
