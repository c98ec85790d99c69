"""What a collection holds and what answers: counts of its catalog, facts of its generation.

Rule: only counted and read; needs neither the model nor FAISS.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from indexer.catalog_reader import CatalogReader
from indexer.generations import read_newest_first
from indexer.snapshot import Snapshot


@dataclass(frozen=True, kw_only=True)
class GenerationFacts:
    """A generation on the disk."""

    name: str
    made: str
    """When, in ISO 8601, local time."""
    images: int
    """That it was made of; some may be gone since."""
    model: str
    is_current: bool
    """Whether it answers."""


@dataclass(frozen=True, kw_only=True)
class CollectionStatus:
    """What a collection holds. `images` can be searched now; `files`, `failed`, `pending` count files."""

    folder: Path
    folders: list[Path]
    excluded: list[str]
    images: int
    files: int
    failed: int
    pending: int
    generation: str | None
    updated: datetime | None
    model: str | None
    dimension: int | None
    index: str | None
    recall: float | None
    is_approximate: bool
    """Whether a search misses some images unless it is asked to be exact."""
    generations: list[GenerationFacts]
    """Those on the disk, the newest first."""
    search: dict | None
    """What an approximate index is searched with, and its recall of edited copies and with filters."""
    engine: str | None = None
    """What proposes candidates in place of an index here, by name."""


def describe_collection(folder: Path, catalog: CatalogReader, snapshot: Snapshot | None) -> CollectionStatus:
    """Count. `snapshot`: the generation that answers; None before the first."""
    counts, name = catalog.count_files(), snapshot.generation.name if snapshot else None
    known = {"folder": folder, "folders": catalog.list_folders(), "excluded": catalog.list_excluded(), **counts}
    known["generations"] = list_generations(folder, name)
    if snapshot is None:
        nothing = dict.fromkeys(("generation", "updated", "model", "dimension", "index", "recall", "search"))
        pending = counts["files"] - counts["failed"]
        return CollectionStatus(**known, images=0, pending=pending, is_approximate=False, **nothing)
    manifest = snapshot.generation.manifest
    searchable = catalog.count_searchable(snapshot.number, snapshot.rows)
    return CollectionStatus(
        **known,
        images=searchable["images"],
        pending=counts["files"] - counts["failed"] - searchable["files"],
        generation=snapshot.generation.name,
        updated=datetime.fromisoformat(manifest["created_at"]).astimezone(),
        model=manifest["settings"]["model"],
        dimension=manifest["dimension"],
        index=snapshot.index,
        recall=snapshot.recall,
        is_approximate=snapshot.is_approximate,
        search=snapshot.search,
        engine=snapshot.engine,
    )


def list_generations(folder: Path, current: str | None) -> list[GenerationFacts]:
    """Those on the disk whose manifests can be read, the newest first. `current`: the name of the one that answers."""
    return [
        GenerationFacts(
            name=one.name,
            made=datetime.fromisoformat(one.manifest["created_at"]).astimezone().isoformat(timespec="seconds"),
            images=one.manifest["rows"],
            model=one.manifest["settings"]["model"],
            is_current=one.name == current,
        )
        for one in read_newest_first(folder)
    ]
