"""What a source of pictures is: a folder, a tar shard, or a list of paths; on a disk or behind a URL.

Rule: on a disk a source is known by its first bytes, whatever it is called; behind a URL by its suffix.
"""

import os
import shlex
import stat
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

from indexer.errors import SourceError
from indexer.remote import read_remote
from indexer.shards import SHARD_SUFFIX, is_shard
from indexer.urls import is_remote, spell
from seer_model.formats import sniff_format

HEAD_BYTES = 4096
PACKED = {
    b"\x1f\x8b": "gzip -dc {name} > plain.tar",
    b"BZh": "bzip2 -dc {name} > plain.tar",
    b"\xfd7zXZ\0": "xz -dc {name} > plain.tar",
    b"\x28\xb5\x2f\xfd": "zstd -dc {name} > plain.tar",
    b"PK\3\4": "unzip -d pictures {name}, and give that folder",
}
"""First bytes of a compressed file -> what unpacks it."""
FOLDER, SHARD, LIST = "folder", "shard", "list"
SUFFIXES = {SHARD_SUFFIX: SHARD, ".txt": LIST, ".lst": LIST}
HOW_TO_GIVE = "Give folders of pictures, tar shards, or text files with one path per line."


def recognise(source: Path) -> str:
    """What a source is: "folder", "shard" or "list".

    Raises: SourceError if it is missing, cannot be read, or is none of them; of a URL nothing is asked.
    """
    if is_remote(source):
        return SUFFIXES.get(source.suffix.lower(), FOLDER)
    try:
        mode = source.stat().st_mode
        if stat.S_ISDIR(mode):
            return FOLDER
        if not stat.S_ISREG(mode):
            raise SourceError(f"{source} is neither a file nor a folder. {HOW_TO_GIVE}")
        if is_shard(source):
            return SHARD
        with open(source, "rb") as file:
            _require_text(source, file.read(HEAD_BYTES))
        return LIST
    except FileNotFoundError as error:
        raise SourceError(f"There is no {source}. Check the name, or mount the disk that it is on.") from error
    except OSError as error:
        raise SourceError(f"{source} cannot be read ({error.strerror or error}).") from error


def is_missing(source: Path) -> bool:
    """Whether a source of a collection is not there. Raises: SourceError if it is, and has become something else."""
    try:
        return not recognise(source)
    except SourceError as error:
        if not os.path.exists(source):
            return True
        raise SourceError(f"{error} Or take it out: seer forget {source}") from error


def is_source(source: Path) -> bool:
    """Whether pictures may be looked for here."""
    try:
        return bool(recognise(source))
    except SourceError:
        return False


def read_list(source: Path) -> Iterator[str]:
    """The paths that a list names, one on each line; blank lines and those that begin with "#" name none.

    Raises: SourceError if a line is no text or names a shard; OSError.
    """
    # Whole: a list that is read while it is walked might be another one by the end.
    data = read_remote(source) if is_remote(source) else source.read_bytes()
    text = StringIO(data.decode("utf-8-sig", "surrogateescape"), newline=None)
    for number, line in enumerate(map(str.strip, text), 1):
        if "\0" in line:
            raise SourceError(f"Line {number} of {spell(source)} is no text. {HOW_TO_GIVE}")
        if line.lower().endswith(SHARD_SUFFIX):
            raise SourceError(
                f"Line {number} of {spell(source)} names a shard. Give shards themselves as sources."
            )
        if line and not line.startswith("#"):
            yield line


def _require_text(source: Path, head: bytes) -> None:
    for magic, unpack in PACKED.items():
        if head.startswith(magic):
            raise SourceError(
                f"{source} is compressed; pictures are read from their place in a shard, so it must be a plain tar. "
                f"Unpack it first: {unpack.format(name=shlex.quote(source.name))}"
            )
    if sniff_format(head) is not None:
        raise SourceError(f"{source} is a single picture. {HOW_TO_GIVE}")
    if b"\0" in head:
        raise SourceError(f"{source} is neither a tar shard (it does not begin like one) nor UTF-8 text. {HOW_TO_GIVE}")
