"""What a walk has seen, compared with what the catalog knows: what is new, changed or gone, and what is not believed.

Both are tables of one connection: `files`, and `seen`, which is the walk's and temporary.

Rule: part of one transaction, that of the whole walk; what is refused has changed nothing.
"""

import os
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from indexer.errors import SourceError
from indexer.schema import bound_paths, read_value
from indexer.urls import is_remote, spell

MOST_READ_AGAIN = 1000
"""Files that are read once more, and not decoded, only because they are others than before."""


def refuse_emptied(connection: sqlite3.Connection, folder: Path) -> None:
    """A folder that held pictures and holds none now is more likely an unmounted disk than a wish."""
    count = "SELECT count(*) FROM {} WHERE path >= ? AND path < ?"
    known = read_value(connection, count.format("files"), bound_paths(str(folder)))
    if known and not read_value(connection, count.format("seen"), bound_paths(str(folder))):
        raise SourceError(
            f"{spell(folder)} held {known} pictures and holds none now. If its disk is not mounted, mount it; "
            "if they are gone, or passed over, for good, run again with --accept-removals."
        )


def refuse_emptied_lists(connection: sqlite3.Connection) -> None:
    """The same for files that a list has named: of each folder that they lie in, or bucket."""
    gone, there = (
        Counter(map(_find_folder, _list_loose(connection, table, other)))
        for table, other in (("files", "seen"), ("seen", None))
    )
    for folder in sorted(gone.keys() - there.keys()):
        raise SourceError(
            f"Lists named {gone[folder]} pictures in {spell(os.fsdecode(folder))}; none of them is there now, or on a "
            "list. If its disk is not mounted, mount it; if they are gone, or off the lists, for good, run again with "
            "--accept-removals."
        )


def _list_loose(connection: sqlite3.Connection, table: str, other: str | None) -> Iterator[bytes]:
    """The paths of a table, and not of the other one, that lie in none of the picture folders."""
    roots = [bound_paths(os.fsdecode(root)) for (root,) in connection.execute("SELECT path FROM folders")]
    missing = f"WHERE NOT EXISTS (SELECT 1 FROM {other} o WHERE o.path = t.path)" if other else ""
    for (path,) in connection.execute(f"SELECT path FROM {table} t {missing}"):
        if not any(low <= path < high for low, high in roots):
            yield path


def _find_folder(path: bytes) -> bytes:
    """Of a URL its bucket: keys of one often lie in folders of their own."""
    folder = os.path.dirname(path)
    return b"/".join(folder.split(b"/")[:2]) if is_remote(os.fsdecode(path)) else folder


def compare_with_seen(connection: sqlite3.Connection) -> list[int | None]:
    """Take in what a walk has seen. Returns: the image of each file that is gone; None for one that was not read."""
    _notice_swaps(connection)
    gone = connection.execute(
        "SELECT image_id FROM files WHERE NOT EXISTS (SELECT 1 FROM seen WHERE seen.path = files.path)"
    ).fetchall()
    connection.execute("DELETE FROM files WHERE NOT EXISTS (SELECT 1 FROM seen WHERE seen.path = files.path)")
    # A file that could not be read (no permission, vanished) has another try: its stamp would not show a repair.
    connection.execute("UPDATE files SET reason = NULL WHERE reason IS NOT NULL")
    connection.execute(
        """INSERT INTO files (path, size_bytes, mtime_ns, inode, seen_at)
        SELECT path, size, mtime, inode, ? FROM seen WHERE true
        ON CONFLICT (path) DO UPDATE SET size_bytes = excluded.size_bytes, mtime_ns = excluded.mtime_ns,
            inode = excluded.inode, image_id = NULL, seen_at = excluded.seen_at
        WHERE size_bytes != excluded.size_bytes OR mtime_ns != excluded.mtime_ns""",
        (time.time(),),
    )
    connection.execute(
        "UPDATE files SET inode = seen.inode FROM seen WHERE seen.path = files.path AND files.inode IS NOT seen.inode"
    )
    return [image_id for (image_id,) in gone]


def _notice_swaps(connection: sqlite3.Connection) -> None:
    """A path of the same stamp that leads to another file may lead to another content, too: another look at each.

    Where they are many, a disk numbers its files anew whenever it is mounted; then of those alone that share a stamp.
    Behind a URL it is no number of a disk but the version of the content.
    """
    other = "FROM seen WHERE seen.path = files.path AND files.inode != seen.inode"
    many = read_value(connection, f"SELECT count(*) FROM files WHERE EXISTS (SELECT 1 {other})") > MOST_READ_AGAIN
    shared = "(size_bytes, mtime_ns) IN (SELECT size_bytes, mtime_ns FROM files GROUP BY 1, 2 HAVING count(*) > 1)"
    remote = "substr(files.path, 1, 1) != x'2F' AND instr(files.path, x'3A2F') > 2"
    connection.execute(f"UPDATE files SET image_id = NULL {other} AND (? OR {shared} OR {remote})", (not many,))
