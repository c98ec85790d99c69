"""The survey: what is in a collection that nobody has labelled, found out once for the generation that answers.

    groups    look-alikes at two levels, their representatives, and images that differ most     seconds
    map       a flat picture by principal components                                            seconds
    graph     every image's nearest (`graph`)                                                   minutes for many images
    outliers  images that nothing is like, read from the graph                                  seconds
    map       the same picture by t-SNE over the graph, where openTSNE is installed             minutes for many images

It may be stopped or killed at any point: each part is there once it is whole, and the next run makes what is missing,
or is not what was written.

Rule: the generation is only read; what is written here is derived from it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indexer.catalog_reader import CatalogReader
from indexer.errors import explain_refusal
from indexer.filters import Filter
from indexer.generations import open_generation
from indexer.graph import build_graph
from indexer.graph_folder import read_sound
from indexer.hold import hold
from indexer.layout import CATALOG
from indexer.publish import require_faiss
from indexer.report import Progress
from indexer.sights import compare_with_mean, find_outliers, fit_into_square, flatten, pick_exemplars
from indexer.snapshot import Snapshot
from indexer.survey_folder import GROUPS, MAP, OUTLIERS, Part, read_part, write_part
from indexer.unfolding import can_unfold, unfold
from seer_model.errors import UserError
from seer_model.outputs import PROJECTED

PCA, TSNE = "pca", "t-SNE"
"""How a map was made."""
LEAST_UNFOLDED, MOST_UNFOLDED = 10, 200_000
"""Images that a map is made of by t-SNE: it takes minutes for a hundred thousand."""


@dataclass(frozen=True, kw_only=True)
class SurveyReport:
    """What a run made, and what is not there yet."""

    generation: str
    images: int
    made: tuple[str, ...]
    missing: tuple[str, ...]
    seconds: float

    def describe(self) -> dict:
        """As JSON-able values, the line that `seer survey --json` prints."""
        return {"schema_version": 1, **vars(self)}


def survey_collection(
    collection: Path,
    *,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> SurveyReport:
    """Make the parts of the survey that are missing.

    Args:
        should_stop: asked after each part, and within the graph after each batch.
    Raises: FaissMissing, and what stands under CollectionError.
    """
    require_faiss("nothing was surveyed")
    return _Survey(collection, on_progress, should_stop).run()


class _Survey:
    """One run; its parts stand in the order in which they are made."""

    def __init__(
        self, collection: Path, on_progress: Callable[[Progress], None], should_stop: Callable[[], bool]
    ) -> None:
        self.collection, self.on_progress, self.should_stop = collection, on_progress, should_stop
        self.snapshot = Snapshot(collection, open_generation(collection))
        self.generation, self.store = self.snapshot.generation, self.snapshot.store
        catalog = CatalogReader(collection / CATALOG)
        try:
            self.living = catalog.list_rows(self.snapshot.number, self.snapshot.rows, Filter())
        finally:
            catalog.close()

    def run(self) -> SurveyReport:
        started, made = time.monotonic(), []
        steps = {
            "groups": (lambda: self._read(GROUPS) is not None, self._group),
            "map": (lambda: self._read(MAP) is not None, self._flatten),
            "neighbour graph": (lambda: read_sound(self.generation) is not None, self._link),
            "outliers": (lambda: self._read(OUTLIERS) is not None, self._find_outliers),
            "unfolded map": (self._is_unfolded, self._unfold),
        }
        for name, (is_there, make) in steps.items():
            # Of a generation that builds have removed meanwhile, nothing is made.
            if not is_there() and self.generation.folder.is_dir() and not self.should_stop():
                make()
                made += [name] * is_there()
        return SurveyReport(
            generation=self.generation.name,
            images=len(self.living),
            made=tuple(made),
            missing=tuple(name for name, (is_there, _) in steps.items() if not is_there()),
            seconds=round(time.monotonic() - started, 3),
        )

    def _read(self, name: str) -> Part | None:
        return read_part(self.generation, name)

    def _write(self, name: str, told: dict, **arrays: np.ndarray) -> None:
        with explain_refusal(self.collection), hold(self.collection, "seer survey"):
            write_part(self.generation, name, Part(arrays, told))

    def _group(self) -> None:
        from indexer.clustering import group_rows

        self.on_progress(Progress("grouping"))
        store, living = self.store, self.living
        store.check(living)
        if not len(living):
            nothing = np.empty(0, np.int32)
            self._write(GROUPS, {}, rows=living, labels=nothing, cosines=nothing, above=nothing, exemplars=nothing)
            return
        prototypes = self._read_prototypes()
        labels, cosines, above = group_rows(store.rows, store.norms, living, prototypes)
        exemplars = pick_exemplars(store.rows, store.norms, living, cosines)
        by = {"by": "k-means" if prototypes is None else "prototypes"}
        self._write(GROUPS, by, rows=living, labels=labels, cosines=cosines, above=above, exemplars=exemplars)

    def _read_prototypes(self) -> np.ndarray | None:
        model = self.generation.manifest["settings"]["model"]
        if PROJECTED not in model:
            return None
        from indexer.embed import read_prototypes  # torch: loaded for these collections alone.

        try:
            found = read_prototypes(model)
        except UserError:
            return None  # The file is gone or another one now; the groups can be found without it.
        return found if found is not None and found.shape[1] == self.store.rows.shape[1] else None

    def _flatten(self) -> None:
        self.on_progress(Progress("drawing the map"))
        places = fit_into_square(flatten(self.store.rows, self.store.norms, self.living))
        self._write(MAP, {"how": PCA}, rows=self.living, places=places)

    def _link(self) -> None:
        build_graph(self.collection, on_progress=self.on_progress, should_stop=self.should_stop)

    def _find_outliers(self) -> None:
        graph = read_sound(self.generation)
        if graph is None:
            return  # It was stopped, or a build has published meanwhile.
        to_middle = compare_with_mean(self.store.rows, self.store.norms, self.living)
        rows, likeness = find_outliers(*graph.links, self.living, to_middle)
        self._write(OUTLIERS, {}, rows=rows, likeness=likeness)

    def _is_unfolded(self) -> bool:
        part = self._read(MAP)
        is_wanted = can_unfold() and LEAST_UNFOLDED <= len(self.living) <= MOST_UNFOLDED
        return part is not None and (part.told["how"] == TSNE or not is_wanted)

    def _unfold(self) -> None:
        graph = read_sound(self.generation)
        if graph is None:
            return
        self.on_progress(Progress("unfolding the map"))
        places = flatten(self.store.rows, self.store.norms, self.living)
        unfolded = unfold(graph.links.neighbours, self.living, places)
        self._write(MAP, {"how": TSNE}, rows=self.living, places=fit_into_square(unfolded))
