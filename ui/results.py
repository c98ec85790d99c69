"""An answer made ready for the gallery: folded, in the order that is asked for, with words; and as files to keep.

Rule: what is folded or sorted stands in the same answer; nothing is left out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import streamlit as st

from indexer.collection import Answer, Collection, Neighbour
from indexer.exports import export_json, export_originals, export_table
from indexer.overview import Words
from ui.address import Address, Sort
from ui.keys import Key
from ui.texts import show_size

ORDERS: dict[Sort, Callable[[Neighbour], object]] = {
    Sort.SIMILARITY: lambda one: one.rank,
    Sort.NEWEST: lambda one: -one.modified.timestamp(),
    Sort.OLDEST: lambda one: one.modified.timestamp(),
    Sort.LARGEST: lambda one: -one.width * one.height,
    Sort.NAME: lambda one: (one.path.name.casefold(), one.rank),
}
MOST_FOLDED = 1000
"""Neighbours that are folded; beyond them there is no page."""
MOST_ZIP_BYTES = 200_000_000
"""Of originals together, in one file to keep."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """What the gallery shows."""

    neighbours: list[Neighbour]
    has_more: bool
    """Whether there is another page."""
    folded: dict[str, int] = field(default_factory=dict)
    """Content hash -> near-copies under it."""
    words: dict[str, str] = field(default_factory=dict)
    """Content hash -> what is said of its similarity."""


def count_wanted(here: Address, *, is_folded: bool) -> tuple[int, int]:
    """How many neighbours make a page, and how many are passed over: folded, what comes before decides what is next."""
    return (MOST_FOLDED, 0) if is_folded else (here.count + 1, here.first)


def arrange(
    collection: Collection, neighbours: Sequence[Neighbour], words: Words | None, here: Address, *, is_plain: bool
) -> Results:
    """One page of an answer.

    Args:
        neighbours: as many as `count_wanted` says.
        words: the collection's; None where words would mislead.
        is_plain: whether it is searched from one whole picture: only then a similarity has a word.
    """
    shown, folded = list(neighbours), {}
    if here.is_folded and words:
        groups = collection.fold_copies(shown, words.same_picture)[here.first :]
        shown = [first for first, _ in groups]
        folded = {first.content_hash: len(under) for first, under in groups if under}
    page = shown[: here.count]
    named = {one.content_hash: words.name(one.similarity) or "" for one in page} if words and is_plain else {}
    return Results(
        neighbours=sorted(page, key=ORDERS[here.sort]), has_more=len(shown) > here.count, folded=folded, words=named
    )


def offer_export(
    collection: Collection, answer: Answer, milliseconds: float
) -> None:
    """What is shown as files to keep, in the order of similarity: a table, the same for programs, the originals."""
    neighbours = sorted(answer.neighbours, key=lambda one: one.rank)
    size_bytes = sum(one.size_bytes for one in neighbours)
    write_json = partial(export_json, collection, replace(answer, neighbours=neighbours), milliseconds)
    with st.popover("Export", icon=":material/download:"):
        kinds = (
            ("Table (CSV)", "neighbours.csv", "text/csv", partial(export_table, neighbours)),
            ("For programs (JSON)", "neighbours.json", "application/json", write_json),
        )
        for label, name, media_type, make in kinds:
            st.download_button(label, make, name, media_type, key=f"{Key.EXPORT}-{name}", on_click="ignore")
        is_small = size_bytes <= MOST_ZIP_BYTES
        st.download_button(
            f"Originals (ZIP, {show_size(size_bytes)})", partial(export_originals, collection, neighbours),
            "neighbours.zip", "application/zip", key=f"{Key.EXPORT}-zip", on_click="ignore", disabled=not is_small,
            help=None if is_small else f"More than {show_size(MOST_ZIP_BYTES)}: show fewer neighbours.",
        )  # fmt: skip
