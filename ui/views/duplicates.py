"""The page of duplicates: files with the same bytes, and images that are the same picture or show the same subject.

Rule: nothing is deleted here or anywhere; what a person told apart stays apart.
"""

from collections.abc import Callable
from math import ceil

import streamlit as st

from indexer.collection import Collection, FileCopies, ImageDetails
from indexer.exports import export_copies, export_duplicates
from indexer.overview import DuplicateGroup, Overview, choose_reference
from ui import copies
from ui.components import show_footer
from ui.keys import Key
from ui.large import show_large
from ui.resources import the_collection, the_overview
from ui.texts import show_path, show_size
from ui.work import offer_work

ON_PAGE = 12
MOST_FILES, MOST_PAIRS = 100, 20
NEVER_DELETED = "Nothing is ever deleted by seer: the list is for you, or for a program of yours."
ABOUT = f"Every image of a group is at least as similar to its first one as the bound says. {NEVER_DELETED}"
ABOUT_FILES = (
    "Files with the same bytes are one image here. Of each the file that was changed first is marked to keep; of "
    f"several the first by its path. {NEVER_DELETED}"
)
NO_GRAPH = "Near-duplicates are read from the nearest neighbours of every image, which have not been found yet."
NONE = "There are no near-duplicates with this bound. Lower it to see images that are less alike."
NO_COPIES = "No file is there twice."
AWAY = "not in the collection at present"


def show_controls(here: copies.CopiesAddress, bound: float | None = None) -> None:
    """Which kind; of near-duplicates, where there is a bound, also how similar, and which to keep."""
    st.session_state[Key.MODE] = here.mode
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.segmented_control("What counts", copies.MODES, key=Key.MODE, required=True, on_change=copies.take_mode)
        if bound is None:
            return
        st.session_state[Key.BOUND], st.session_state[Key.KEEP] = round(bound, 3), here.keep
        st.number_input(
            "Similarity at least", 0.0, 1.0, key=Key.BOUND, step=0.01, format="%0.3f", on_change=copies.take_choice,
            width=170,
        )  # fmt: skip
        st.segmented_control("Mark to keep", copies.RULES, key=Key.KEEP, required=True, on_change=copies.take_choice)


def offer_table(text: str, export: Callable[[], bytes]) -> None:
    """How many there are, and all of them as a file."""
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.text(text)
        # Written when it is asked for; a run that began with the click would take away what is still to be written.
        st.download_button(
            "All as CSV", export, "duplicates.csv", "text/csv",
            key=Key.DUPLICATES_TABLE, icon=":material/download:", on_click="ignore",
        )  # fmt: skip


def find_page(count: int, here: copies.CopiesAddress) -> tuple[int, int]:
    """Which page is shown, and how many there are."""
    pages = max(1, ceil(count / ON_PAGE))
    return min(here.page, pages), pages


def show_pages(page: int, pages: int) -> None:
    """The way to the others."""
    if pages > 1:
        st.session_state[Key.LIST_PAGE] = page
        st.pagination(pages, key=Key.LIST_PAGE, on_change=copies.take_page, width="stretch")


# --- the same file -----------------------------------------------------------------------------------------------


def show_same_files(collection: Collection, here: copies.CopiesAddress) -> str | None:
    """Images that several files hold. Returns: the content hash of the one to open large, if one was asked for."""
    st.caption(ABOUT_FILES)
    show_controls(here)
    found = collection.list_copies()
    if not found:
        st.success(NO_COPIES, icon=":material/check_circle:")
        return None
    images, files = count_in_words(len(found), "image"), count_in_words(sum(one.count for one in found), "file")
    offer_table(f"{images}, {files}.", lambda: export_copies(collection))
    page, pages = find_page(len(found), here)
    shown = {one.image_id: one for one in found[(page - 1) * ON_PAGE : page * ON_PAGE]}
    details = collection.read_images(list(shown))
    opened = copies.show_cards([[describe_copies(image, shown[image.image_id]) for image in details]])
    show_pages(page, pages)
    return opened


def describe_copies(image: ImageDetails, found: FileCopies) -> dict:
    """What the browser draws of an image that several files hold: the file to keep stands first."""
    paths = sorted(image.paths, key=lambda path: path != found.oldest)
    left = len(paths) - MOST_FILES
    return {
        "image": image.content_hash,
        "name": show_path(found.oldest.name),
        "line": count_in_words(len(paths), "file"),
        "facts": describe_facts(image),
        "files": [{"path": show_path(path), "is_kept": path == found.oldest} for path in paths[:MOST_FILES]],
        "more": f"and {count_in_words(left, 'more file')}; the table has all" if left > 0 else None,
        "medoid": None,
    }


def describe_facts(image: ImageDetails) -> str:
    """Size and format."""
    return f"{image.width} × {image.height} px · {show_size(image.size_bytes)} · {image.format}"


def count_in_words(count: int, what: str) -> str:
    """1 file, 2 files."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


# --- near-duplicates ---------------------------------------------------------------------------------------------


def list_cards(group: DuplicateGroup, keep: str) -> list[dict]:
    """What the browser draws of a group."""
    kept = choose_reference(group.images, keep)
    return [
        {
            "image": image.content_hash,
            "name": show_path(image.path.name),
            "line": "first of the group" if not place else f"{min(similarity, 0.999):.3f}",
            "facts": describe_facts(image),
            "folder": show_path(image.path.parent),
            "more": f"and {count_in_words(len(image.paths) - 1, 'more file')}" if len(image.paths) > 1 else None,
            "is_kept": image is kept,
            "medoid": group.images[0].content_hash if place else None,
        }
        for place, (image, similarity) in enumerate(zip(group.images, group.similarities, strict=True))
    ]


def show_told_apart(collection: Collection) -> None:
    """How many pairs were told apart, the way to take the last one back, and each of the newest by itself."""
    pairs = collection.decisions.list_apart_newest_first()
    if not pairs:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.text(f"{len(pairs):,} {'pair was' if len(pairs) == 1 else 'pairs were'} told apart.")
        st.button("Take back the last", key=Key.TAKE_BACK, icon=":material/undo:", on_click=copies.take_last_back)
    with st.expander(f"The last {MOST_PAIRS} of them" if len(pairs) > MOST_PAIRS else "See them"):
        copies.show_pairs([describe_pair(collection, pair) for pair in pairs[:MOST_PAIRS]])


def describe_pair(collection: Collection, pair: tuple[str, str]) -> dict:
    """What the browser draws of two images that were told apart; they may be gone."""
    return {"pair": " ".join(pair), "images": [describe_image(collection, one) for one in pair]}


def describe_image(collection: Collection, content_hash: str) -> dict:
    """The image and its name; without the image where it is not there."""
    image_id = collection.find_image(content_hash)
    if image_id is None:
        return {"image": None, "name": AWAY}
    return {"image": content_hash, "name": show_path(collection.read_image(image_id).path.name)}


def show_near(collection: Collection, overview: Overview, here: copies.CopiesAddress) -> str | None:
    """Groups of near-duplicates. Returns: the content hash of the image to open large, if one was asked for."""
    st.caption(ABOUT)
    if not overview.read_state().has_graph:
        show_controls(here)
        st.info(NO_GRAPH, icon=":material/content_copy:")
        offer_work(collection, "survey", "Find them", Key.SURVEY, ":material/content_copy:")
        return None
    bound = overview.find_bound(here.mode) if here.bound is None else here.bound
    show_controls(here, bound)
    groups, images = overview.count_duplicates(here.mode, bound)
    show_told_apart(collection)
    if not groups:
        st.success(NONE, icon=":material/check_circle:")
        return None
    offer_table(
        f"{count_in_words(groups, 'group')}, {count_in_words(images, 'image')}.",
        lambda: export_duplicates(overview.find_duplicates(here.mode, bound), here.keep),
    )
    page, pages = find_page(groups, here)
    shown = overview.find_duplicates(here.mode, bound, (page - 1) * ON_PAGE, ON_PAGE)
    opened = copies.show_cards([list_cards(group, here.keep) for group in shown])
    show_pages(page, pages)
    return opened


def show_page() -> None:
    """The page, from top to bottom."""
    collection, here = the_collection(), copies.read_copies()
    st.header("Duplicates")
    is_exact = here.mode == copies.SAME_FILE
    opened = show_same_files(collection, here) if is_exact else show_near(collection, the_overview(), here)
    show_footer(collection.read_status())
    if opened is not None and (image_id := collection.find_image(opened)) is not None:
        show_large(collection, collection.read_image(image_id))


show_page()
