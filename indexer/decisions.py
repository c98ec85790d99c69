"""Decisions: what people marked in a collection: favourites, hidden images, pairs that are not copies, bookmarks.

    favourite, hidden   an image, by its content hash
    apart               a pair of images that is no copy of each other: the hash of both hashes, which stand in the name
    bookmark            a link to an answer: the hash of the link, which stands in the name beside its title

They hold by content, so a rebuild, a move or another model changes nothing about them. They lie in the file of marks.

Rule: nothing here is ever deleted but by who decided it.
"""

import json
import time
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from indexer.decode import hash_content
from indexer.errors import QueryError
from indexer.marks_file import (
    TOLD,
    delete,
    describe_damage,
    insert,
    is_whole,
    opened_to_change,
    opened_to_read,
    read_hash,
)

HASH_BYTES = 32
MOST_LETTERS = 4000
"""Of a bookmark's link; browsers take no longer ones."""


class Kind(StrEnum):
    """What an image is marked as."""

    FAVOURITE = "favourite"
    HIDDEN = "hidden"


APART, BOOKMARK = "apart", "bookmark"


@dataclass(frozen=True, kw_only=True)
class Bookmark:
    """A link to an answer."""

    link: str
    """Of the page's URL what stands behind the `?`."""
    title: str
    made: datetime
    """In local time."""


class Decisions:
    """The decisions about one collection; may be shared by threads.

    Every method raises CollectionDamaged where the file is not what was written, CollectionUnwritable where it cannot
    be read or written now, and CatalogTooNew where a later version of this program wrote it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def mark(self, kind: Kind, content_hash: str, *, is_so: bool = True) -> None:
        """Mark an image, or take the mark away. Raises: QueryError if it is no content hash (hex)."""
        self._set(kind, _require_hash(content_hash), "", is_so=is_so)

    def list_marked(self, kind: Kind) -> list[str]:
        """Content hashes (hex), those that were marked last first."""
        return [content_hash.hex() for _, content_hash, *_ in self._list(kind)]

    def tell_apart(self, one: str, other: str, *, is_so: bool = True) -> None:
        """Say that two images, by content hash (hex), are no copies of each other, or take that back."""
        first, second = sorted((_require_hash(one), _require_hash(other)))
        if first == second:
            raise QueryError("Both images are the same one: identical content cannot be told apart.")
        self._set(APART, hash_content(first + second), f"{first.hex()} {second.hex()}", is_so=is_so)

    def list_apart(self) -> set[frozenset[str]]:
        """The pairs (hex) that are no copies of each other."""
        return set(map(frozenset, self.list_apart_newest_first()))

    def list_apart_newest_first(self) -> list[tuple[str, str]]:
        """The same pairs, those that were told apart last first."""
        return [tuple(name.split()) for _, _, name, *_ in self._list(APART)]

    def keep_bookmark(self, link: str, title: str) -> None:
        """Keep a link; one that is kept gets the new title. Raises: QueryError if it is too long."""
        if not 0 < len(link) <= MOST_LETTERS:
            raise QueryError(f"The link has {len(link)} letters; allowed are 1 to {MOST_LETTERS}.")
        text = json.dumps([link, title.encode("utf-8", "replace").decode()])
        self._set(BOOKMARK, hash_content(link.encode("utf-8", "replace")), text)

    def forget_bookmark(self, link: str) -> None:
        """Delete a bookmark; one that is not kept is none to delete."""
        self._set(BOOKMARK, hash_content(link.encode("utf-8", "replace")), "", is_so=False)

    def list_bookmarks(self) -> list[Bookmark]:
        """All of them, the newest first."""
        found = ((json.loads(name), made_at) for _, _, name, made_at, _ in self._list(BOOKMARK))
        return [
            Bookmark(link=link, title=title, made=datetime.fromtimestamp(made_at)) for (link, title), made_at in found
        ]

    def _set(self, kind: str, key: bytes, name: str, *, is_so: bool = True) -> None:
        if not is_so and not self._path.exists():
            return
        now = time.time()
        with opened_to_change(self._path) as connection:
            delete(connection, kind, key)
            if is_so:
                insert(connection, (str(kind), key, name, now, now), None)

    def _list(self, kind: str) -> list[tuple]:
        """The values of TOLD, the newest first."""
        query = f"SELECT {TOLD}, checksum, picture FROM marks WHERE kind = ? ORDER BY made_at DESC, mark DESC"
        with opened_to_read(self._path) as connection:
            found = connection.execute(query, (str(kind),)).fetchall() if connection else []
        if not all(map(is_whole, found)):
            raise describe_damage(self._path, f"a mark of the kind {kind} is not what was kept")
        return [one[:5] for one in found]


def _require_hash(content_hash: str) -> bytes:
    key = read_hash(content_hash)
    if len(key) != HASH_BYTES:
        raise QueryError(f"{content_hash!r} is no content hash; these are {2 * HASH_BYTES} letters and digits long.")
    return key
