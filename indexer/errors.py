"""What the person can put right about folders and collections; every class stands under `UserError`.

    CollectionError
    |-- CollectionMissing     no collection there, or none at all
    |-- CollectionAmbiguous   several, and none was chosen
    |-- CollectionEmpty       nothing has been published yet
    |-- CollectionBusy        another build holds the lock
    |-- CollectionPlaceTaken  something else lies where the collection should go
    |-- CollectionUnwritable  the disk is full, or the folder may not be written
    |-- CollectionDamaged     a file of the collection is not what the catalog or the manifest says
    |-- CatalogTooNew         written by a later version of this program
    `-- FingerprintMismatch   the query's model is not the one the generation was made with
    SourceError               a picture folder is missing, empty where it was full, or not a folder
    DiskTooSmall              what is coming would not fit
    FaissMissing              FAISS is not installed, or cannot be loaded
    EngineError               another search engine cannot be used, or not for this
    |-- EngineMissing         the package that talks to it is not installed
    |-- EngineUnreachable     it does not answer
    |-- EngineMismatch        it holds nothing that belongs to this collection
    `-- VersionGone           what was asked of it has been replaced
    QueryError                a query that cannot be answered

Rule: the text says what is wrong, where, and what to run next.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seer_model.errors import UserError

REFUSALS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EIO, errno.EFBIG}
)
"""What the system says when it will not write; any other OSError is a bug of ours."""


class CollectionError(UserError):
    """Something about a collection as a whole."""


class CollectionMissing(CollectionError):
    """There is no collection at this place, or none at all."""


class CollectionAmbiguous(CollectionError):
    """There are several collections and none was chosen."""


class CollectionEmpty(CollectionError):
    """The collection has no published generation yet."""


class CollectionBusy(CollectionError):
    """Another build holds the collection's lock."""


class CollectionPlaceTaken(CollectionError):
    """Something else lies where the collection should go."""


class CollectionUnwritable(CollectionError):
    """The disk is full, or the collection's folder may not be written."""


class CollectionDamaged(CollectionError):
    """A file of the collection is not what the catalog or the manifest says."""


class CatalogTooNew(CollectionError):
    """The catalog was written by a later version of this program."""


class FingerprintMismatch(CollectionError):
    """The query would be embedded by another model than the collection was."""


class SourceError(UserError):
    """A picture folder is missing, or empty where it was full."""


class DiskTooSmall(UserError):
    """What is coming would not fit on the disk."""


class FaissMissing(UserError):
    """FAISS is not installed, or cannot be loaded."""


class EngineError(UserError):
    """Another search engine cannot be used as it was asked to be."""


class EngineMissing(EngineError):
    """The package that talks to it is not installed."""


class EngineUnreachable(EngineError):
    """It does not answer, or not in time."""


class EngineMismatch(EngineError):
    """It holds nothing that belongs to this collection as it is now."""


class VersionGone(EngineError):
    """The version that was asked has been replaced, and is no longer kept."""


class QueryError(UserError):
    """A query that cannot be answered as it stands."""


def explain_missing_folder(folder: Path) -> str:
    """What to do about a picture folder that is not there."""
    return (
        f"There is no folder {folder} any more. If its disk is not mounted, mount it; if it has moved, run seer "
        "relocate OLD NEW; if it is gone for good, run seer build --accept-removals."
    )


@contextmanager
def explain_refusal(folder: Path) -> Iterator[None]:
    """Turn the system's refusal to write a collection into CollectionUnwritable."""
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        raise CollectionUnwritable(
            f"The collection in {folder} cannot be written ({error.strerror}). What was committed is kept: free some "
            "space or allow writing there, then run again."
        ) from error
