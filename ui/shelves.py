"""The collections that the page shows: those it was given, or all in the default place; each stands on a shelf.

Rule: opened when it is first asked for, read-only, and never closed while a page may still be reading from it.
"""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from indexer.aside import Aside
from indexer.collection import Collection, CollectionMissing
from indexer.layout import CATALOG, find_collection, read_home


class Shelf:
    """Where one open collection stands."""

    def __init__(
        self, folder: Path, decoder: Aside, on_opened: Callable[[Collection], object], search_engine: str | None = None
    ) -> None:
        self._folder, self._decoder, self._on_opened, self._engine = folder, decoder, on_opened, search_engine
        self._lock = threading.Lock()
        self._open: tuple[tuple[int, int] | None, Collection] | None = None
        self._asked: Collection | None = None

    def open(self) -> Collection:
        """The collection, for looking after it. Raises: CollectionMissing, CatalogTooNew, CollectionDamaged."""
        with self._lock:
            # A folder that was deleted and built again has another catalog under the same name.
            if self._open is None or self._open[0] != _read_stamp(self._folder):
                # Not while it is open: looking whether it is a collection gives up SQLite's locks (`is_collection`).
                folder = find_collection(self._folder)
                self._open = _read_stamp(folder), Collection(folder, decoder=self._decoder, search_engine=self._engine)
            return self._open[1]

    def take(self) -> Collection:
        """The collection, for somebody who looks at it: its model begins to load. Raises: as `open`."""
        collection = self.open()
        with self._lock:
            is_new, self._asked = self._asked is not collection, collection
        if is_new:
            self._on_opened(collection)
        return collection

    @property
    def asked(self) -> Collection | None:
        """The collection as it was when somebody last looked at it; None if nobody has."""
        return self._asked


def _read_stamp(folder: Path) -> tuple[int, int] | None:
    try:
        status = (folder / CATALOG).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


class Library:
    """All shelves of this process.

    Args:
        folders: of the collections; none: whatever is in the default place, also if it is made later.
        on_opened: called with each collection that somebody looks at, once.
        search_engine: where candidates come from in place of the index here; without a NAME each has its own there.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        decoder: Aside,
        on_opened: Callable[[Collection], object],
        search_engine: str | None = None,
    ) -> None:
        self._folders, self._decoder, self._on_opened, self._engine = tuple(folders), decoder, on_opened, search_engine
        self._lock = threading.Lock()
        self._shelves: dict[Path, Shelf] = {}
        self._first: Path | None = None

    def list_names(self) -> dict[str, Path]:
        """Name -> folder. Looks at names alone: no file is opened."""
        return name_folders(self._folders or _list_default())

    def find(self, name: str = "") -> Shelf:
        """The shelf of the collection with this name; without a name, of the first.

        What was first once stays it, also when others are made. Raises: CollectionMissing, CollectionDamaged.
        """
        named = self.list_names()
        if name and name not in named:
            there = ", ".join(named) or "none"
            raise CollectionMissing(f"There is no collection {name} here; there are: {there}. Choose one of them.")
        with self._lock:
            return self._stand(named[name] if name else self._find_first(named) or find_collection(None))

    def find_name(self, name: str = "") -> str:
        """What the collection is called that `find` finds; empty for none."""
        named = self.list_names()
        first = self._find_first(named)
        return name or next((one for one, folder in named.items() if folder == first), "")

    def _find_first(self, named: dict[str, Path]) -> Path | None:
        self._first = self._first or next(iter(named.values()), None)
        return self._first

    def list_all(self) -> list[Shelf]:
        """Of every collection that there is."""
        with self._lock:
            return [self._stand(folder) for folder in self.list_names().values()]

    def list_asked(self) -> list[Shelf]:
        """Of the collections that somebody has looked at."""
        return [shelf for shelf in list(self._shelves.values()) if shelf.asked is not None]

    def _stand(self, folder: Path) -> Shelf:
        return self._shelves.setdefault(folder, Shelf(folder, self._decoder, self._on_opened, self._engine))


def name_folders(folders: Sequence[Path]) -> dict[str, Path]:
    """A name for each folder: its own, with the one above it where two are called alike."""
    names = [folder.name for folder in folders]
    return {
        folder.name if names.count(folder.name) == 1 else f"{folder.name} in {folder.parent}": folder
        for folder in folders
    }


def _list_default() -> list[Path]:
    place = read_home() / "collections"
    there = place.iterdir() if place.is_dir() else ()
    return sorted(folder for folder in there if (folder / CATALOG).is_file())
