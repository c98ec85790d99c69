"""What cannot be searched, as a table that a spreadsheet opens.

Rule: a cell is text, whatever it begins with: a spreadsheet would run a file name such as `=cmd()` as a formula.
"""

import csv
import io
import os
from collections.abc import Iterable

from indexer.catalog_reader import Failure

COLUMNS = ("file", "reason", "seen")
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def format_failures(failures: Iterable[Failure]) -> bytes:
    """CSV in UTF-8 with the mark by which spreadsheets know it; names that are not UTF-8 are escaped."""
    stream = io.StringIO(newline="")
    table = csv.writer(stream)
    table.writerow(COLUMNS)
    for failure in failures:
        path = os.fsencode(failure.path).decode("utf-8", "backslashreplace")
        table.writerow(map(_as_text, (path, failure.reason, f"{failure.when:%Y-%m-%d %H:%M:%S}")))
    return stream.getvalue().encode("utf-8-sig", "backslashreplace")


def _as_text(cell: str) -> str:
    return f"'{cell}" if cell.startswith(FORMULA_STARTS) else cell
