"""What cannot be searched, as a table that a spreadsheet opens.

Rule: a cell is text, whatever it begins with: a spreadsheet would run a file name such as `=cmd()` as a formula.
"""

import csv
import io
import os
from collections.abc import Iterable

from indexer.catalog_reader import UnsearchableFile

COLUMNS = ("file", "kind", "reason", "what to do", "seen")
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def format_unsearchable(files: Iterable[UnsearchableFile]) -> bytes:
    """CSV in UTF-8 with the mark by which spreadsheets know it; names that are not UTF-8 are escaped."""
    stream = io.StringIO(newline="")
    table = csv.writer(stream)
    table.writerow(COLUMNS)
    for file in files:
        path = os.fsencode(file.path).decode("utf-8", "backslashreplace")
        cells = path, file.kind, file.reason, file.advice, f"{file.seen:%Y-%m-%d %H:%M:%S}"
        table.writerow(map(_as_text, cells))
    return stream.getvalue().encode("utf-8-sig", "backslashreplace")


def _as_text(cell: str) -> str:
    return f"'{cell}" if cell.startswith(FORMULA_STARTS) else cell
