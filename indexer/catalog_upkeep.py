"""The catalog as upkeep sees it: what lives and what is gone, what lies where, and how both are changed.

Rule: as in `catalog`, what the catalog names is on the disk already.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from indexer.catalog import LOST, PRUNED, Catalog, succeed_store
from indexer.errors import SourceError
from indexer.schema import bound_paths, find_faults
from indexer.urls import spell


class UpkeepCatalog(Catalog):
    """A catalog, opened to be looked after."""

    def find_faults(self) -> list[str]:
        """What is wrong inside the catalog, one sentence each."""
        return find_faults(self._connection)

    def relocate(self, old: Path, new: Path) -> int:
        """Let every path below `old`, or `old` itself, stand below `new`. Returns: how many files are concerned.

        Where a file is known at both places, the one below `new` stays.
        Raises: SourceError if nothing known lies there, or the pictures would no longer lie in a picture folder.
        """
        with self._transaction() as connection:
            folders_before = [bound_paths(str(folder)) for folder in self.list_folders()]
            folders = _list_below(connection, "folders", old)
            files = _list_below(connection, "files", old)
            if not (folders or files):
                raise SourceError(
                    f"Nothing in this collection lies below {spell(old)}. `seer status` shows its folders."
                )
            mounts = _list_below(connection, "mounts", old)
            held = [path for path in files if not _lies_apart(path, folders_before)]
            for table, paths in (("folders", folders), ("files", files), ("mounts", mounts)):
                _move_all(connection, table, paths, old, new)
            # What only a list names follows the list.
            _require_apart(connection, folders, held, old, new)
            return len(files)

    def forget(self, folder: Path, listed: Iterable[str] = ()) -> int:
        """Let go of a picture folder or a list, and of its files that belong to no other.

        Args:
            listed: what the collection's other lists name.
        Returns: how many files are concerned. Raises: SourceError if it is none of the collection's.
        """
        with self._transaction() as connection:
            if not connection.execute("DELETE FROM folders WHERE path = ?", (os.fsencode(folder),)).rowcount:
                known = "".join(f"\n  {spell(known)}" for known in self.list_folders())
                raise SourceError(f"{spell(folder)} is no picture folder of this collection. It has:{known or ' none'}")
            # What a list has named may lie anywhere.
            files = set(_list_below(connection, "files", folder)) or {
                path for (path,) in connection.execute("SELECT path FROM files")
            } - set(map(os.fsencode, listed))
            for other in self.list_folders():
                files.difference_update(_list_below(connection, "files", other))
            connection.executemany("DELETE FROM files WHERE path = ?", [(path,) for path in files])
            return len(files)

    def has_below(self, folder: Path) -> bool:
        """Whether anything known lies there."""
        return any(_list_below(self._connection, table, folder) for table in ("folders", "files"))

    def list_files_below(self, folder: Path) -> list[Path]:
        """The files that are known there."""
        return [Path(os.fsdecode(path)) for path in _list_below(self._connection, "files", folder)]

    def list_living_rows(self, store: int) -> list[tuple[int, int]]:
        """(row, image) of this store's rows whose images still have a file, by row."""
        query = """SELECT row, image_id FROM rows r WHERE store = ?
            AND EXISTS (SELECT 1 FROM files f WHERE f.image_id = r.image_id) ORDER BY row"""
        return self._connection.execute(query, (store,)).fetchall()

    def move_store(self, old: int, new: int, living: list[tuple[int, int]]) -> None:
        """Let the store `new` take the place of `old`, with these rows, (row in `old`, image), in order.

        The old one's rows stay for its readers until `drop_stores`. The new rows must be on the disk already.
        """
        with self._transaction() as connection:
            succeed_store(connection, old, new, PRUNED)
            connection.executemany(
                "INSERT INTO rows VALUES (?, ?, ?)", ((new, row, image) for row, (_, image) in enumerate(living))
            )

    def forget_gone_images(self) -> set[bytes]:
        """Forget images that have neither a file nor a row. Returns: the contents of those that have a file."""
        with self._transaction() as connection:
            # The last number stays: given out again, it would name another image to a reader of an old generation.
            connection.execute(
                """DELETE FROM images WHERE NOT EXISTS (SELECT 1 FROM files f WHERE f.image_id = images.image_id)
                AND NOT EXISTS (SELECT 1 FROM rows r WHERE r.image_id = images.image_id)
                AND image_id < (SELECT max(image_id) FROM images)"""
            )
            query = """SELECT content_hash FROM images i
                WHERE EXISTS (SELECT 1 FROM files f WHERE f.image_id = i.image_id)"""
            return {content_hash for (content_hash,) in connection.execute(query)}

    def list_stamps(self) -> Iterator[tuple[str, int, int]]:
        """(path, size in bytes, mtime in nanoseconds) of every file, as it was when it was read."""
        for path, size_bytes, mtime_ns in self._connection.execute("SELECT path, size_bytes, mtime_ns FROM files"):
            yield os.fsdecode(path), size_bytes, mtime_ns

    def list_stores(self) -> list[tuple[int, int]]:
        """(store, dimension) of those that a build goes on with."""
        query = "SELECT store, dimension, fingerprint FROM stores ORDER BY store"
        found = self._connection.execute(query).fetchall()
        return [(store, dimension) for store, dimension, name in found if not name.startswith((PRUNED, LOST))]

    def list_living_sources(self) -> dict[bytes, str]:
        """Content -> the first of its files, of images that can be searched."""
        query = """SELECT i.content_hash, min(f.path) FROM images i JOIN files f USING (image_id)
            WHERE i.reason IS NULL GROUP BY i.image_id"""
        return {content_hash: os.fsdecode(path) for content_hash, path in self._connection.execute(query)}

    def list_sources(self, store: int, rows: int) -> list[tuple[str, bytes, int]]:
        """(first file, content hash, row) of the images among a store's first `rows` rows that have a file."""
        query = """SELECT min(f.path), i.content_hash, r.row FROM rows r JOIN images i USING (image_id)
            JOIN files f USING (image_id) WHERE r.store = ? AND r.row < ? GROUP BY r.row ORDER BY r.row"""
        found = self._connection.execute(query, (store, rows))
        return [(os.fsdecode(path), content_hash, row) for path, content_hash, row in found]


def _lies_apart(path: bytes, folders: list[tuple[bytes, bytes]]) -> bool:
    return not any(low <= path < high for low, high in folders)


def _list_below(connection: sqlite3.Connection, table: str, folder: Path) -> list[bytes]:
    query = f"SELECT path FROM {table} WHERE path = ? OR path >= ? AND path < ?"
    return [path for (path,) in connection.execute(query, (os.fsencode(folder), *bound_paths(str(folder))))]


def _move_all(connection: sqlite3.Connection, table: str, paths: list[bytes], old: Path, new: Path) -> None:
    """Take all out before the first goes in: a new path may be another's old one."""
    taken = [connection.execute(f"SELECT * FROM {table} WHERE path = ?", (path,)).fetchone() for path in paths]
    connection.executemany(f"DELETE FROM {table} WHERE path = ?", [(path,) for path in paths])
    for path, *rest in taken:
        marks = ",".join("?" * (1 + len(rest)))
        connection.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", (_move(path, old, new), *rest))


def _move(path: bytes, old: Path, new: Path) -> bytes:
    below = path[len(os.fsencode(old)) :].lstrip(os.fsencode(os.sep))
    return os.path.join(os.fsencode(new), below) if below else os.fsencode(new)


def _require_apart(
    connection: sqlite3.Connection, moved_folders: list[bytes], moved_files: list[bytes], old: Path, new: Path
) -> None:
    """Each moved file lies in a picture folder, and no moved folder in another; else the next walk would lose it."""
    folders = {Path(os.fsdecode(path)) for (path,) in connection.execute("SELECT path FROM folders")}
    moved = {Path(os.fsdecode(_move(path, old, new))) for path in moved_folders}
    others = folders - moved
    for folder in sorted(moved):
        if any(other in folder.parents or folder in other.parents for other in others):
            raise SourceError(f"{spell(folder)} would lie in another picture folder, or hold one. Move it apart.")
    for path in moved_files:
        file = Path(os.fsdecode(_move(path, old, new)))
        if folders.isdisjoint(file.parents):
            raise SourceError(
                f"{spell(file)} would lie in none of the collection's picture folders, which are "
                f"{', '.join(map(spell, sorted(folders)))}. Give the old and the new place of a whole picture folder."
            )
