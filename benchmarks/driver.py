"""What the one process that records a build can take in: python -m benchmarks.driver

However many GPUs embed, one process walks, and records thumbnails, rows and files. This measures how fast, as the
collection grows: the walk taken in, the walk again with nothing new, and shards of 256 files recorded.

Rule: figures go to stdout, progress to stderr. Files are made up; nothing is read or embedded.
"""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import click
import numpy as np

from benchmarks.machine import describe_machine, show_machine
from indexer.catalog import Catalog
from indexer.decode import DecodedFile
from indexer.recording import Recorder, Sinks
from indexer.report import Watchers
from indexer.thumbnails import ThumbnailWriter
from indexer.vectors import StoreWriter
from seer_model.ranks import choose_device

SHARD, DIMENSION, THUMBNAIL_BYTES = 256, 1024, 9_000
SIZE_BYTES = 200_000


@click.command()
@click.option("--files", "sizes", multiple=True, type=click.IntRange(1000), default=(100_000, 1_000_000, 10_000_000))
@click.option("--shards", type=click.IntRange(1), default=200, show_default=True, help="Recorded, and timed, per size.")
@click.option("--json", "as_json", is_flag=True)
def main(sizes: tuple[int, ...], shards: int, as_json: bool) -> None:
    """Measure the recording of a build at several sizes."""
    report = {
        "schema_version": 1,
        "machine": describe_machine(choose_device("cpu")),
        "sizes": {str(size): _measure(size, shards) for size in sizes},
    }
    click.echo(json.dumps(report, indent=1) if as_json else show_report(report))


def _measure(size: int, shards: int) -> dict:
    click.echo(f"{size:,} files ...", err=True)
    with tempfile.TemporaryDirectory() as folder, closing(Catalog(Path(folder, "catalog.sqlite"))) as catalog:
        store = catalog.open_store("made", DIMENSION, "made")
        first = _time(lambda: catalog.record_walk(_walk(size)))
        again = _time(lambda: catalog.record_walk(_walk(size)))
        recording = _record(Path(folder), catalog, store, size, shards)
        ids = _time(lambda: catalog.read_image_ids(store))
        catalog_bytes = sum(one.stat().st_size for one in Path(folder).glob("catalog.sqlite*"))
    return {
        "walk_files_per_second": round(size / first),
        "unchanged_files_per_second": round(size / again),
        "recorded_files_per_second": round(shards * SHARD / recording),
        "image_ids_seconds": round(ids, 2),
        "catalog_bytes_per_file": round(catalog_bytes / size),
    }


def _walk(size: int) -> Iterator[tuple[str, int, int, int]]:
    return ((f"s3:/bucket/pictures/{number:09d}.jpg", SIZE_BYTES + number % 5000, 1, number) for number in range(size))


def _record(folder: Path, catalog: Catalog, store: int, size: int, shards: int) -> float:
    random = np.random.default_rng(0)
    rows = random.standard_normal((SHARD, DIMENSION)).astype(np.float16)
    with (
        closing(ThumbnailWriter(folder / "thumbnails.sqlite")) as thumbnails,
        closing(StoreWriter(folder / "store", DIMENSION, 0)) as writer,
    ):
        recorder = Recorder(Sinks(thumbnails=thumbnails, rows=writer, catalog=catalog, store=store), Watchers())
        # All over the catalog, as the last of many files are.
        starts = random.permutation(size // SHARD)[:shards] * SHARD
        made = [_make_files(int(start)) for start in starts]

        def record() -> None:
            for files in made:
                fresh = recorder.choose_fresh(files)
                recorder.record(files, fresh, rows[: len(fresh)], [True] * len(fresh))

        return _time(record)


def _make_files(start: int) -> list[tuple[DecodedFile, bool]]:
    return [(_make_file(path, size_bytes), True) for path, size_bytes, _, _ in _walk_from(start)]


def _walk_from(start: int) -> Iterator[tuple[str, int, int, int]]:
    numbers = range(start, start + SHARD)
    return ((f"s3:/bucket/pictures/{number:09d}.jpg", SIZE_BYTES + number % 5000, 1, number) for number in numbers)


def _make_file(path: str, size_bytes: int) -> DecodedFile:
    content_hash = hashlib.sha256(path.encode()).digest()
    return DecodedFile(
        path=path, size_bytes=size_bytes, mtime_ns=1, content_hash=content_hash, width=640, height=480, format="JPEG",
        thumbnail=os.urandom(THUMBNAIL_BYTES),
    )  # fmt: skip


def _time(work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def show_report(report: dict) -> str:
    """The figures as text."""
    lines = [show_machine(report["machine"])]
    for size, found in report["sizes"].items():
        told = ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in found.items())
        lines.append(f"{int(size):>12,} files: {told}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
