"""Which index suits a collection: the exact answer while that is fast enough, else a reduction and inverted lists.

    rows, dimension, memory  ->  recipes to try, the preferred one first

All are of one family: a reduction, inverted lists, four-bit product codes that FAISS scans in registers. What else was
tried stands in docs/decisions/0009-search.md. The reduction does not whiten: that would change which rows are near, and
what people see are the cosines of the embeddings; where it helps it belongs into those (`seer_model/readout.py`).

Rule: chosen from figures that are given; nothing is measured, trained or loaded here.
"""

from dataclasses import dataclass

REDUCED = (256, 512, 768, 1024)
"""Numbers that are left of an embedding: the first that reaches the recall that is asked for."""
NARROW = (128, 64)
"""What is left where memory is short."""
ROWS_IN_A_LIST = 39
"""Rows to train each list with, at least; FAISS asks for as many."""
MOST_LISTS = 16_384
ID_BYTES = 8
MOST_ROW_BYTES = ID_BYTES + REDUCED[-1] // 4
"""Bytes of a row in the largest of them."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """An approximate index, described: `reduced` numbers of a row are kept, as half a byte for every two of them."""

    reduced: int
    lists: int

    @property
    def factory(self) -> str:
        """What stands behind the reduction, as FAISS's `index_factory` takes it."""
        return f"IVF{self.lists},PQ{self.reduced // 2}x4fs"

    @property
    def title(self) -> str:
        """All of it, for manifests and people."""
        return f"PCA{self.reduced},{self.factory}"

    @property
    def row_bytes(self) -> int:
        """Bytes that a row takes in the index."""
        return ID_BYTES + self.reduced // 4

    def measure(self, rows: int, dimension: int) -> int:
        """Bytes of the index in memory: codes, centres of the lists, the matrix of the reduction."""
        return rows * self.row_bytes + 4 * self.reduced * (self.lists + dimension)


def list_recipes(rows: int, dimension: int, memory_bytes: int) -> list[Recipe]:
    """Approximate indexes for (rows, dimension) within a budget, in the order in which to try them; none if none fits.

    Each is nearer to the exact answer than the one before, and takes more work of a query.
    """
    lists = choose_lists(rows)
    wide = [Recipe(reduced=size, lists=lists) for size in REDUCED if size < dimension]
    if dimension <= REDUCED[-1]:
        wide.append(Recipe(reduced=dimension - dimension % 4, lists=lists))  # turned, and nothing lost
    narrow = [Recipe(reduced=size, lists=lists) for size in NARROW if size < dimension]
    fitting = [one for one in wide if one.measure(rows, dimension) <= memory_bytes]
    return fitting or [one for one in narrow if one.measure(rows, dimension) <= memory_bytes][:1]


def choose_lists(rows: int) -> int:
    """From the root of the rows (few) to twice that (many), a power of two, and not more than can be trained."""
    wanted = min(rows**0.55 * 1.1, rows / ROWS_IN_A_LIST, MOST_LISTS)
    return 1 << max(0, int(wanted).bit_length() - 1)
