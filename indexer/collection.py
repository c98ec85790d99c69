"""The door for readers: a collection that can be asked what is most like a picture.

    with Collection(folder) as collection:
        collection.find_similar(picture_bytes, count=10)
        query = Query(Term(picture_bytes), Term(other_bytes, weight=-0.5))
        collection.find(query, at_least=0.8, where=Filter(under=[folder])).neighbours

It is read-only but for the marks, may be shared by threads, and takes up the next generation by itself. Additions
appear with the next generation; removals apply at once, since every answer is checked against the catalog.

Rule: an image of the collection is found by its stored row, without the model; similarities are true cosines, computed
from the stored rows.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from indexer.answers import (
    EVERYTHING,
    Aim,
    Answer,
    Neighbour,
    Wish,
    count_between,
    find_answer,
    list_allowed,
    show_similarity,
)
from indexer.aside import Aside, Here
from indexer.catalog_reader import CatalogReader, FileCopies, ImageDetails, UnsearchableFile
from indexer.decisions import Decisions
from indexer.decisions import Kind as ImageKind
from indexer.decode import hash_content
from indexer.engine_snapshot import EngineSnapshots
from indexer.errors import CollectionEmpty, CollectionMissing, CollectionUnwritable, QueryError, VersionGone
from indexer.failures import format_unsearchable
from indexer.filters import FIRST_YEAR, FORMATS, LAST_YEAR, SHAPES, Filter
from indexer.folding import fold
from indexer.graph_folder import read_graph
from indexer.heat import draw_heat
from indexer.layout import CATALOG, MARKS, THUMBNAILS
from indexer.marks import Marks
from indexer.originals import Absence, Originals
from indexer.queries import Query, Term, combine
from indexer.query_model import QueryModel
from indexer.snapshot import Snapshot, Snapshots
from indexer.status import CollectionStatus, GenerationFacts, describe_collection
from indexer.thumbnails import ThumbnailReader
from indexer.visible import Curtain, VisibleCatalog
from seer_model.errors import PictureError
from seer_model.pictures import Region

__all__ = [
    "FIRST_YEAR", "FORMATS", "LAST_YEAR", "SHAPES", "Absence", "Answer", "Collection", "CollectionMissing",
    "CollectionStatus", "CollectionUnwritable", "FileCopies", "Filter", "GenerationFacts", "ImageDetails", "ImageKind",
    "Neighbour", "Query", "Region", "Term", "UnsearchableFile", "hash_content", "show_similarity",
]  # fmt: skip

NOT_THERE = "Image {} is not in the collection any more. Choose another one."


class Collection:
    """A collection on disk, opened to be read.

    Args:
        folder: the collection.
        device: where a query's model runs: `auto`, `cpu`, `cuda` or `cuda:N`.
        decoder: what decodes queries, and originals whose thumbnail is missing; `Aside` does it in other processes.
        search_engine: where candidates come from in place of the index here, as in `milvus://HOST/NAME`.
    Raises: CollectionMissing, CatalogTooNew, CollectionDamaged. A collection without a generation opens; questions
        that need one raise CollectionEmpty, or EngineError where the engine holds none of it.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        device: str = "auto",
        decoder: Here | Aside | None = None,
        search_engine: str | None = None,
    ) -> None:
        self.folder = Path(folder)
        self._decoder = decoder or Here()
        self._model = QueryModel(device, self._decoder)
        self._catalog = CatalogReader(self.folder / CATALOG)
        self._originals = Originals(self._catalog)
        self._thumbnails = ThumbnailReader(self.folder / THUMBNAILS)
        self.marks = Marks(self.folder / MARKS)
        """Uploads that are kept for links. They and the decisions are all that can be written here."""
        self.decisions = Decisions(self.folder / MARKS)
        """Favourites, hidden images, pairs that are no copies, bookmarks."""
        self._curtain = Curtain(self._catalog, self.decisions)
        engine = search_engine and EngineSnapshots(self.folder, search_engine, self._catalog)
        self._snapshots = engine or Snapshots(self.folder)
        self._told: tuple[tuple, CollectionStatus] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the files back."""
        self._catalog.close()
        self._thumbnails.close()
        self._snapshots.close()

    def find_similar(
        self, picture: bytes, count: int = 10, *, at_least: float | None = None, first: int = 0
    ) -> list[Neighbour]:
        """The images most like a picture, given by the bytes of its file, best first. Arguments as in `find`."""
        return self.find(Query.of(picture), count, at_least=at_least, first=first).neighbours

    def find_similar_to(
        self, image_id: int, count: int = 10, *, at_least: float | None = None, first: int = 0
    ) -> list[Neighbour]:
        """The images most like one of the collection, which itself comes first. Arguments as in `find`."""
        return self.find(Query.of(image_id), count, at_least=at_least, first=first).neighbours

    def find(
        self,
        query: Query,
        count: int = 10,
        *,
        first: int = 0,
        at_least: float | None = None,
        at_most: float | None = None,
        where: Filter | None = None,
        is_exact: bool = False,
    ) -> Answer:
        """The images most like a query, best first.

        Args:
            query: no model is needed for whole pictures whose content the collection has.
            count: how many at most.
            first: how many of the nearest to pass over, for paging.
            at_least: leave out what is less similar than this cosine.
            at_most: leave out what is more similar. Every row is compared then.
            where: which images may be answered; ranks are counted among them.
            is_exact: compare with every row that may be answered, as is done for what is only unlike pictures, too.
        Raises: PictureError if bytes are no picture; CollectionEmpty; FingerprintMismatch; CollectionDamaged;
            QueryError if an image is not (or no longer) searchable, no image passes the filter, or a value is no good;
            EngineError.
        """
        is_exact = is_exact or query.is_unlike_alone
        wish = Wish(count=count, first=first, at_least=at_least, at_most=at_most, where=where, is_exact=is_exact)
        try:
            return self._answer(query, wish)
        except VersionGone:
            self._snapshots.forget()
            return self._answer(query, wish)

    def _answer(self, query: Query, wish: Wish) -> Answer:
        snapshot = self.open_snapshot()
        return find_answer(snapshot, self.open_catalog(), self._take_aim(snapshot, query), wish)

    def count_similar(
        self, query: Query, *, at_least: float | None = None, at_most: float | None = None, where: Filter | None = None
    ) -> int:
        """How many images lie between two similarities, counted over every row. Arguments as in `find`."""
        wish, snapshot = Wish(at_least=at_least, at_most=at_most, where=where), self.open_snapshot()
        return count_between(snapshot, self.open_catalog(), self._take_aim(snapshot, query), wish)

    def count_images(self, where: Filter = EVERYTHING) -> int:
        """How many images can be searched and pass a filter. Raises: QueryError if there are images, and none does."""
        return len(list_allowed(self.open_snapshot(), self.open_catalog(), where))

    def compare_images(self, image_ids: Sequence[int]) -> np.ndarray:
        """(k, k) float32 cosines of some images with each other; -1 where one is not, or no longer, searchable."""
        snapshot = self.open_snapshot()
        rows = [self._find_row(snapshot, image_id) for image_id in image_ids]
        known = [place for place, row in enumerate(rows) if row is not None]
        embeddings = snapshot.store.read_embeddings(np.array([rows[place] for place in known], dtype=np.int64))
        cosines = np.full((len(rows), len(rows)), -1.0, dtype=np.float32)
        cosines[np.ix_(known, known)] = np.clip(embeddings @ embeddings.T, -1.0, 1.0)
        return cosines

    def list_subfolders(self) -> dict[Path, int]:
        """Every folder that holds searchable or other files, at any depth below the picture folders -> its files."""
        return self._catalog.count_subfolders()

    def fold_copies(self, neighbours: Sequence[Neighbour], at_least: float) -> list[tuple[Neighbour, list[Neighbour]]]:
        """Neighbours with the near-copies that are folded under each, the order kept."""
        return fold(neighbours, self.compare_images([one.image_id for one in neighbours]), at_least)

    def read_embeddings(self) -> tuple[np.ndarray, np.ndarray]:
        """The generation's images (N,) int64 and their rows (N, D) float16, a read-only memory map.

        A row is of length 1 up to float16's rounding. An image that is gone keeps its row until the store is pruned.
        """
        snapshot = self.open_snapshot()
        return snapshot.image_ids, snapshot.store.rows

    def read_graph(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """The images nearest to each image; None if `seer graph` was not run since the last build.

        Every byte is compared with its checksum at each call. An image that is gone keeps its row, and its place in the
        lists of others, until the store is pruned.

        Returns: the generation's images (N,) int64, their neighbours (N, k) int32 as row numbers, nearest first, and
            cosines (N, k) float32, both memory maps; -1 and -inf where there are fewer. Raises: CollectionDamaged.
        """
        snapshot = self.open_snapshot()
        graph = read_graph(snapshot.generation)
        return graph and (snapshot.image_ids, *graph.links)

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
            raise QueryError(NOT_THERE.format(image_id))
        return details

    def read_images(self, image_ids: Sequence[int]) -> list[ImageDetails]:
        """Everything known of those of these images that are in the collection and not hidden, in their order."""
        living = self.open_catalog().list_living(list(image_ids))
        return list(self._catalog.read_images([one for one in image_ids if one in living]).values())

    def list_images(self, first: int = 0, count: int = 60) -> list[ImageDetails]:
        """Searchable images, those that came last first."""
        snapshot, catalog = self.open_snapshot(), self.open_catalog()
        return list(catalog.read_images(catalog.list_images(snapshot.number, snapshot.rows, first, count)).values())

    def list_copies(self) -> list[FileCopies]:
        """Searchable images that several files hold, those with most files first."""
        store, rows = self._find_searchable()
        visible = set(self.open_catalog().list_rows(store, rows, EVERYTHING).tolist())
        return [one for one in self._catalog.list_copies(store, rows) if one.row in visible]

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
        snapshot = self._find_snapshot()
        return (snapshot.number, snapshot.rows) if snapshot else (0, 0)

    def read_thumbnail(self, content_hash: str) -> bytes | None:
        """The WebP thumbnail of an image of this collection (hash in hex); None for any other.

        One that is missing is made from the original; None if that is gone too.
        """
        if self.find_image(content_hash) is None:
            return None
        kept = self._thumbnails.read(bytes.fromhex(content_hash))
        return kept or self._make_thumbnail(content_hash)

    def _make_thumbnail(self, content_hash: str) -> bytes | None:
        side_px = self.open_snapshot().generation.manifest["settings"]["thumbnail_px"]
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
        return None if image_id is None else self._originals.read(self.read_image(image_id))

    def find_absence(self, image: ImageDetails) -> Absence | None:
        """Why `read_original` has nothing of an image of this collection; None if it has."""
        found = self._originals.find(image)
        return None if isinstance(found, bytes) else found

    def read_shot(self, content_hash: str) -> dict[str, str]:
        """How an image was taken, as its file says: name -> text; empty where that says nothing, or is gone."""
        original = self.read_original(content_hash)
        try:
            return self._decoder.describe(original[0], self.max_megapixels) if original else {}
        except PictureError:
            return {}

    def read_generation(self) -> str | None:
        """The name of the generation that answers; None before the first."""
        return self._snapshots.read_name()

    def read_status(self) -> CollectionStatus:
        """Counts, and what answers at present. Needs neither the model nor FAISS.

        Counted anew when the catalog or the generation has changed: every run of a page asks.
        """
        key, told = (self._catalog.read_version(), self.read_generation()), self._told
        if told is None or told[0] != key:
            told = self._told = key, describe_collection(self.folder, self._catalog, self._find_snapshot())
        return told[1]

    def _find_snapshot(self) -> Snapshot | None:
        try:
            return self.open_snapshot()
        except CollectionEmpty:
            return None

    @property
    def max_megapixels(self) -> float:
        """The largest picture that was, and can be, decoded. Raises: CollectionEmpty."""
        return self.open_snapshot().generation.manifest["settings"]["max_megapixels"]

    @property
    def is_model_loaded(self) -> bool:
        """Whether a picture from outside can be answered without waiting for the model."""
        return self._model.is_loaded

    def load_model(self) -> None:
        """Load the current generation's model and index, unless they are there. Raises: as `find_similar`."""
        snapshot = self.open_snapshot()
        snapshot.warm_up()  # FAISS takes a second to load, too.
        self._model.load(snapshot.generation.manifest)

    def draw_explanation(self, query: Query, image_id: int) -> bytes:
        """An image with what makes it similar to a query lit up, a WebP. Raises: as `explain`."""
        return draw_heat(*self.explain(query, image_id))

    def explain(self, query: Query, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Where in an image that lies which makes it similar to a query. Needs the model, and the image's original.

        Returns: the image as the network sees it, (H, W, 3) uint8, and (h, w) float32: how similar each place of it is
            to the query, by itself. Raises: as `find`.
        """
        snapshot = self.open_snapshot()
        aim = self._take_aim(snapshot, query)
        return self._model.explain(snapshot.generation.manifest, self._require_original(image_id), aim.embedding)

    def _take_aim(self, snapshot: Snapshot, query: Query) -> Aim:
        """The vector of a query. The row of a plain one goes along, if its content is in the collection."""
        own_row = self._find_own_row(snapshot, query.terms[0]) if query.is_plain else None
        if own_row is not None:
            return Aim(snapshot.store.read_embedding(own_row), own_row)
        embeddings = [self._embed(snapshot, term) for term in query.terms]
        return Aim(combine(embeddings, [term.weight for term in query.terms], snapshot.dimension), None)

    def _embed(self, snapshot: Snapshot, term: Term) -> np.ndarray:
        if isinstance(term.picture, np.ndarray):
            return term.picture
        row = self._find_own_row(snapshot, term)
        if row is not None and term.region is None:
            return snapshot.store.read_embedding(row)
        picture = term.picture if isinstance(term.picture, bytes) else self._require_original(term.picture)
        try:
            return self._model.embed(snapshot.generation.manifest, picture, term.region)
        except (PictureError, QueryError) as error:
            raise type(error)(f"{term.name} cannot be searched with. {error}" if term.name else str(error)) from None

    def _find_own_row(self, snapshot: Snapshot, term: Term) -> int | None:
        """The row of a term's content; None if its bytes come from outside. Raises: QueryError if an image is gone."""
        if isinstance(term.picture, bytes):
            image_id = self._catalog.find_image(hash_content(term.picture))
            return None if image_id is None else self._find_row(snapshot, image_id)
        row = self._find_row(snapshot, int(term.picture))
        if row is None:
            raise QueryError(NOT_THERE.format(term.picture))
        return row

    def _require_original(self, image_id: int) -> bytes:
        found = self._originals.find(self.read_image(image_id))
        if isinstance(found, bytes):
            return found
        is_away = found == Absence.AWAY
        why, way = ("can be read now", "Try later") if is_away else ("holds it any more", "Run seer build")
        raise QueryError(
            f"No file of image {image_id} {why}, and its row alone does not do for this. {way}, or search with the "
            "whole image."
        )

    def _find_row(self, snapshot: Snapshot, image_id: int) -> int | None:
        row = self._catalog.find_row(snapshot.number, image_id)
        return row if row is not None and row < snapshot.rows else None

    def open_snapshot(self) -> Snapshot:
        """The generation that answers. Raises: CollectionEmpty, CollectionDamaged, EngineError."""
        return self._snapshots.open()

    def open_catalog(self) -> VisibleCatalog:
        """The catalog, less what a person has hidden."""
        return self._curtain.draw()
