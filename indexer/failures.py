"""What cannot be searched, as a table that a spreadsheet opens.

Rule: a file is named by its whole path, with its reason and what to do about it.
"""

from collections.abc import Iterable

from indexer.catalog_reader import UnsearchableFile
from indexer.tables import format_table

COLUMNS = ("file", "kind", "reason", "what to do", "seen")


def format_unsearchable(files: Iterable[UnsearchableFile]) -> bytes:
    """As `tables.format_table`."""
    rows = ((one.path, one.kind, one.reason, one.advice, f"{one.seen:%Y-%m-%d %H:%M:%S}") for one in files)
    return format_table(COLUMNS, rows)
