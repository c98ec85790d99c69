"""What a picture shows, as a person has said it: a CSV of files and labels, or the names of folders.

Rule: labels are text and compared as they are; a table that contradicts itself or the disk is refused, by its line.
"""

import csv
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from indexer.errors import SourceError
from indexer.shards import Place

FILE, LABEL = "file", "label"
AN_EXAMPLE = "It is UTF-8 text with commas; its first line names the columns, file,label, in any order, among others."


def read_labels(path: Path) -> dict[Path, str]:
    """The labels of a CSV, by absolute path, in its order.

    The columns `file` (relative to the CSV's folder) and `label` count; others may be there.

    Raises: SourceError, naming the line, if a file is not there or stands there twice, or a label is missing; or if
        this is no such table.
    """
    labels: dict[Path, str] = {}
    for line, file, label in _read_lines(path):
        place = _resolve(path, line, file)
        if place in labels:
            raise SourceError(f"Line {line} of {path} names {file} a second time. Keep one line for each file.")
        labels[place] = label
    if not labels:
        raise SourceError(f"{path} has no line below its first. {AN_EXAMPLE}")
    return labels


def label_by_folder(place: Place) -> str | None:
    """The name of the folder that a picture lies in; for one at the top of a shard, None."""
    if place.offset == 0:
        return Path(place.path).parent.name or None
    member = place.name[len(Path(place.path).name) + 1 :]
    return PurePosixPath(member).parent.name or None


def _read_lines(path: Path) -> Iterator[tuple[int, str, str]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            _require_columns(path, reader.fieldnames or [])
            for row in reader:
                values = [(row[column] or "").strip() for column in (FILE, LABEL)]
                if not all(values):
                    missing = LABEL if values[0] else FILE
                    raise SourceError(f"Line {reader.line_num} of {path} has no {missing}. Add it, or remove the line.")
                yield reader.line_num, *values
    except OSError as error:
        raise SourceError(f"The labels in {path} cannot be read ({error.strerror or error}).") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise SourceError(f"{path} is no table of labels ({error}). {AN_EXAMPLE}") from error


def _require_columns(path: Path, found: list[str]) -> None:
    missing = [column for column in (FILE, LABEL) if column not in found]
    if missing:
        raise SourceError(
            f"{path} has no column {' and no column '.join(missing)}; its first line is {','.join(found)!r}. "
            f"{AN_EXAMPLE}"
        )


def _resolve(path: Path, line: int, file: str) -> Path:
    try:
        found = (path.absolute().parent / file).resolve(strict=True)
        if found.is_file():
            return found
    except (OSError, ValueError, RuntimeError):
        pass  # Said below: a name that is too long, has a NUL, or is a link to itself is as good as none.
    raise SourceError(
        f"Line {line} of {path} names {file}, and there is no such file. Paths are relative to {path.parent}."
    )
