"""Tables that a spreadsheet opens.

Rule: a cell is text, whatever it begins with: a spreadsheet would run a file name such as `=cmd()` as a formula.
"""

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def format_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """CSV in UTF-8 with the mark by which spreadsheets know it; names that are not UTF-8 are escaped.

    Args:
        rows: of texts, numbers and paths. A number stays one.
    """
    stream = io.StringIO(newline="")
    table = csv.writer(stream)
    table.writerow(columns)
    for row in rows:
        table.writerow(map(_as_cell, row))
    return stream.getvalue().encode("utf-8-sig", "backslashreplace")


def _as_cell(value: object) -> object:
    if isinstance(value, Path):
        value = os.fsencode(value).decode("utf-8", "backslashreplace")
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value
