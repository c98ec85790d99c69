"""The door for readers: a collection that can be asked what is most like a picture.

    with Collection(folder) as collection:
        collection.find_similar(picture_bytes, count=10)

It is read-only but for the marks, may be shared by threads, and takes up the next generation by itself. Additions
appear with the next generation; removals apply at once, since every answer is checked against the catalog.

Rule: an image of the collection is found by its stored row, without the model; similarities are true cosines, computed
from the stored rows.
"""

import threading
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from indexer.aside import Aside, Here
from indexer.catalog_reader import CatalogReader, ImageDetails, UnsearchableFile
from indexer.decode import hash_content, read_whole
from indexer.errors import CollectionEmpty, CollectionUnwritable, FingerprintMismatch, QueryError
from indexer.failures import format_unsearchable
from indexer.generations import open_generation, read_current
from indexer.layout import CATALOG, MARKS, THUMBNAILS
from indexer.marks import Marks
from indexer.snapshot import Snapshot
from indexer.thumbnails import ThumbnailReader
from seer_model.errors import PictureError

if TYPE_CHECKING:
    from indexer.embed import Backbone

__all__ = [
    "Collection", "CollectionStatus", "CollectionUnwritable", "ImageDetails", "Neighbour", "UnsearchableFile",
    "hash_content", "show_similarity",
]  # fmt: skip

REMEMBERED = 32
"""Embeddings of queries from outside that are kept."""
_NAMED_SO = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "HEIC", "JXL")
MEDIA_TYPES = {name: f"image/{name.lower()}" for name in _NAMED_SO}


@dataclass(frozen=True)
class Neighbour:
    """One answer. `rank` counts from 1; `similarity` is a cosine in [-1, 1]; `width`, `height` in pixels, upright."""

    rank: int
    image_id: int
    similarity: float
    paths: list[Path]
    content_hash: str
    width: int
    height: int
    is_same: bool
    """Its content is identical with the query's."""

    @property
    def path(self) -> Path:
        """The first of its files."""
        return self.paths[0]


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


class Collection:
    """A collection on disk, opened to be read.

    Args:
        folder: the collection.
        device: where a query's model runs: `auto`, `cpu`, `cuda` or `cuda:N`.
        decoder: what decodes queries, and originals whose thumbnail is missing; `Aside` does it in other processes.
    Raises: CollectionMissing, CatalogTooNew, CollectionDamaged. A collection without a generation opens; questions
        that need one raise CollectionEmpty.
    """

    def __init__(self, folder: Path | str, *, device: str = "auto", decoder: Here | Aside | None = None) -> None:
        self.folder = Path(folder)
        self._device, self._decoder = device, decoder or Here()
        self._catalog = CatalogReader(self.folder / CATALOG)
        self._thumbnails = ThumbnailReader(self.folder / THUMBNAILS)
        self.marks = Marks(self.folder / MARKS)
        """What people decided; all that can be written here."""
        self._lock = threading.Lock()
        self._model_lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._backbone: Backbone | None = None
        self._queries: dict[tuple[str, bytes], np.ndarray] = {}
        self._told: tuple[tuple, CollectionStatus] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the files back."""
        self._catalog.close()
        self._thumbnails.close()

    def find_similar(
        self, picture: bytes, count: int = 10, *, at_least: float | None = None, first: int = 0
    ) -> list[Neighbour]:
        """The images most like a picture, best first.

        Args:
            picture: the bytes of a picture file. If the collection has this content, no model is needed.
            count: how many at most.
            at_least: leave out what is less similar than this cosine.
            first: how many of the nearest to pass over, for paging.
        Raises: PictureError if the bytes are no picture; CollectionEmpty; FingerprintMismatch; QueryError.
        """
        _check_range(count, first)
        snapshot, content_hash = self._open_snapshot(), hash_content(picture)
        image_id = self._catalog.find_image(content_hash)
        row = None if image_id is None else self._find_row(snapshot, image_id)
        if row is not None:
            return self._search(snapshot, snapshot.store.read_embedding(row), row, count, at_least, first)
        query = self._embed(snapshot, picture, content_hash)
        return self._search(snapshot, query, None, count, at_least, first)

    def find_similar_to(
        self, image_id: int, count: int = 10, *, at_least: float | None = None, first: int = 0
    ) -> list[Neighbour]:
        """The images most like one of the collection, which itself comes first. Arguments as in `find_similar`.

        Raises: QueryError if the image is not (or no longer) searchable; CollectionEmpty; CollectionDamaged.
        """
        _check_range(count, first)
        snapshot = self._open_snapshot()
        row = self._find_row(snapshot, image_id)
        if row is None:
            raise QueryError(f"Image {image_id} is not in the collection any more. Choose another one.")
        return self._search(snapshot, snapshot.store.read_embedding(row), row, count, at_least, first)

    def read_embeddings(self) -> tuple[np.ndarray, np.ndarray]:
        """The generation's images (N,) int64 and their rows (N, D) float16, a read-only memory map.

        A row is of length 1 up to float16's rounding. An image that is gone keeps its row until the store is pruned.
        """
        snapshot = self._open_snapshot()
        return snapshot.image_ids, snapshot.store.rows

    def find_image(self, content_hash: str) -> int | None:
        """The image with this content hash (hex); None if it is not, or no longer, in the collection."""
        try:
            return self._catalog.find_image(bytes.fromhex(content_hash))
        except ValueError:
            return None

    def read_image(self, image_id: int) -> ImageDetails:
        """Everything known of an image. Raises: QueryError if it is not in the collection."""
        details = self._catalog.read_images([image_id]).get(image_id)
        if details is None:
            raise QueryError(f"Image {image_id} is not in the collection any more. Choose another one.")
        return details

    def list_images(self, first: int = 0, count: int = 60) -> list[ImageDetails]:
        """Searchable images, those that came last first."""
        snapshot = self._open_snapshot()
        image_ids = self._catalog.list_images(snapshot.number, snapshot.rows, first, count)
        return list(self._catalog.read_images(image_ids).values())

    def list_unsearchable(self, first: int = 0, count: int = 100, *, kind: str | None = None) -> list[UnsearchableFile]:
        """Files that were seen and cannot be searched, by path: failed or still to be read; all, or of one kind."""
        return self._catalog.list_unsearchable(*self._find_searchable(), kind, first, count)

    def count_unsearchable(self) -> dict[str, int]:
        """How many of them there are of each kind that there is."""
        return self._catalog.count_unsearchable(*self._find_searchable())

    def export_unsearchable(self) -> bytes:
        """All of them as CSV (UTF-8), safe to open in a spreadsheet."""
        return format_unsearchable(self.list_unsearchable(0, -1))

    def _find_searchable(self) -> tuple[int, int]:
        """The store that answers, and how many of its rows; (0, 0) where nothing does yet."""
        try:
            snapshot = self._open_snapshot()
        except CollectionEmpty:
            return 0, 0
        return snapshot.number, snapshot.rows

    def read_thumbnail(self, content_hash: str) -> bytes | None:
        """The WebP thumbnail of an image of this collection (hash in hex); None for any other.

        One that is missing is made from the original; None if that is gone too.
        """
        if self.find_image(content_hash) is None:
            return None
        kept = self._thumbnails.read(bytes.fromhex(content_hash))
        return kept or self._make_thumbnail(content_hash)

    def _make_thumbnail(self, content_hash: str) -> bytes | None:
        side_px = self._open_snapshot().generation.manifest["settings"]["thumbnail_px"]
        original = self.read_original(content_hash)
        try:
            return original and self._decoder.shrink(original[0], side_px, self.max_megapixels)
        except PictureError:
            return None

    def read_original(self, content_hash: str) -> tuple[bytes, str] | None:
        """The bytes and the media type of an image of this collection; None for any other.

        None too if none of its files still holds this content: what is handed out is what was asked for.
        """
        image_id = self.find_image(content_hash)
        if image_id is None:
            return None
        details = self.read_image(image_id)
        for path in details.paths:
            try:
                data, _ = read_whole(path)
            except (OSError, PictureError):
                continue
            if hash_content(data).hex() == content_hash:
                return data, MEDIA_TYPES.get(details.format, "application/octet-stream")
        return None

    def read_status(self) -> CollectionStatus:
        """Counts, and what answers at present. Needs neither the model nor FAISS.

        Counted anew when the catalog or the generation has changed: every run of a page asks.
        """
        key, told = (self._catalog.read_version(), read_current(self.folder)), self._told
        if told is None or told[0] != key:
            told = self._told = key, self._count()
        return told[1]

    def _count(self) -> CollectionStatus:
        counts = self._catalog.count_files()
        try:
            snapshot = self._open_snapshot()
        except CollectionEmpty:
            return _describe_empty(self.folder, self._catalog, counts)
        manifest = snapshot.generation.manifest
        searchable = self._catalog.count_searchable(snapshot.number, snapshot.rows)
        return CollectionStatus(
            folder=self.folder,
            folders=self._catalog.list_folders(),
            excluded=self._catalog.list_excluded(),
            images=searchable["images"],
            pending=counts["files"] - counts["failed"] - searchable["files"],
            **counts,
            generation=snapshot.generation.name,
            updated=datetime.fromisoformat(manifest["created_at"]).astimezone(),
            model=manifest["settings"]["model"],
            dimension=manifest["dimension"],
            index=manifest["index"],
            recall=manifest["recall"],
        )

    @property
    def max_megapixels(self) -> float:
        """The largest picture that was, and can be, decoded. Raises: CollectionEmpty."""
        return self._open_snapshot().generation.manifest["settings"]["max_megapixels"]

    @property
    def is_model_loaded(self) -> bool:
        """Whether a picture from outside can be answered without waiting for the model."""
        return self._backbone is not None

    def load_model(self) -> None:
        """Load the current generation's model and index, unless they are there. Raises: as `find_similar`."""
        snapshot = self._open_snapshot()
        snapshot.warm_up()  # FAISS takes a second to load, too.
        self._open_backbone(snapshot)

    def _find_row(self, snapshot: Snapshot, image_id: int) -> int | None:
        row = self._catalog.find_row(snapshot.number, image_id)
        return row if row is not None and row < snapshot.rows else None

    def _open_snapshot(self) -> Snapshot:
        with self._lock:
            current = read_current(self.folder)
            if self._snapshot is None or self._snapshot.generation.name != current:
                self._snapshot = Snapshot(self.folder, open_generation(self.folder))
            return self._snapshot

    def _open_backbone(self, snapshot: Snapshot) -> "Backbone":
        """The model of this generation; refused if it would embed otherwise than the generation's did."""
        from indexer.embed import open_backbone

        manifest = snapshot.generation.manifest
        with self._model_lock:
            if self._backbone is None or self._backbone.fingerprint != manifest["fingerprint"]:
                # One picture at a time: a query must not pay for a whole padded batch.
                backbone = open_backbone(manifest["settings"]["model"], device=self._device, batch_size=1)
                _require_same_fingerprint(backbone.fingerprint, manifest)
                self._backbone = backbone
            return self._backbone

    def _embed(self, snapshot: Snapshot, picture: bytes, content_hash: bytes) -> np.ndarray:
        """The picture's embedding; the latest ones are remembered, so that paging through an answer costs no model."""
        from indexer.embed import embed_prepared

        backbone = self._open_backbone(snapshot)
        key = backbone.fingerprint, content_hash
        if (known := self._queries.get(key)) is not None:
            return known
        # Before the lock: who waits for the model must not wait for another's picture.
        pixels = self._decoder.prepare(picture, backbone.preprocessing, self.max_megapixels)
        with self._model_lock:
            query = self._queries[key] = embed_prepared(backbone, pixels)
            if len(self._queries) > REMEMBERED:
                del self._queries[next(iter(self._queries))]
            return query

    def _search(
        self,
        snapshot: Snapshot,
        query: np.ndarray,
        own_row: int | None,
        count: int,
        at_least: float | None,
        first: int,
    ) -> list[Neighbour]:
        rows, similarities = snapshot.rank(query, own_row, first + count, self._catalog.list_living)
        ranked = list(enumerate(zip(rows, similarities, strict=True), start=1))[first : first + count]
        if at_least is not None:
            # The image itself is never cut by a bound of 1 for rounding's sake.
            ranked = [one for one in ranked if one[1][1] >= at_least or one[1][0] == own_row]
        details = self._catalog.read_images([int(snapshot.image_ids[row]) for _, (row, _) in ranked])
        return [
            _make_neighbour(rank, float(similarity), image, bool(row == own_row))
            for rank, (row, similarity) in ranked
            if (image := details.get(int(snapshot.image_ids[row]))) is not None
        ]


def show_similarity(neighbour: Neighbour) -> str:
    """A similarity for people: 1.000 only for identical content, however near another one is."""
    return "1.000" if neighbour.is_same else f"{min(neighbour.similarity, 0.999):.3f}"


def _make_neighbour(rank: int, similarity: float, image: ImageDetails, is_same: bool) -> Neighbour:
    return Neighbour(
        rank=rank,
        image_id=image.image_id,
        similarity=similarity,
        paths=image.paths,
        content_hash=image.content_hash,
        width=image.width,
        height=image.height,
        is_same=is_same,
    )


def _describe_empty(folder: Path, catalog: CatalogReader, counts: dict[str, int]) -> CollectionStatus:
    known = {"folders": catalog.list_folders(), "excluded": catalog.list_excluded()}
    nothing = dict.fromkeys(("generation", "updated", "model", "dimension", "index", "recall"))
    pending = counts["files"] - counts["failed"]
    return CollectionStatus(folder=folder, **known, images=0, pending=pending, **counts, **nothing)


def _check_range(count: int, first: int) -> None:
    if count < 1 or first < 0:
        raise QueryError(f"count is {count} and first is {first}; allowed are 1 or more, and 0 or more.")


def _require_same_fingerprint(found: str, manifest: dict) -> None:
    if found != manifest["fingerprint"]:
        raise FingerprintMismatch(
            f"The model {manifest['settings']['model']} is not the one that this collection was made with "
            f"(fingerprint {found[:12]}, the collection has {manifest['fingerprint'][:12]}): its answers would mean "
            "nothing. Run seer build again: it embeds the pictures with the model as it is now."
        )
