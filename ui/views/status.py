"""The status page: what the collection holds, what answers, and what is kept of uploads.

Rule: every number stands beside what a person can do about it.
"""

from datetime import datetime

import streamlit as st

from indexer.collection import Collection, CollectionStatus, GenerationFacts
from seer_model.errors import UserError
from ui.address import keep_collection
from ui.keys import Key
from ui.resources import the_collection
from ui.texts import quote, show_path, show_size
from ui.work import offer_work

WORK = "The picture folders are looked through, as seer build does; it goes on if this page is closed."
SEE_LIST = "See every file that cannot be searched, and why"


def show_counts(status: CollectionStatus) -> None:
    """The four counts."""
    counts = {
        "Images": (status.images, "Different pictures that can be searched now."),
        "Files": (status.files, "Files that could be pictures; several may hold the same image."),
        "Failed": (status.failed, "Files that cannot be searched; Not searchable has the reasons."),
        "Pending": (status.pending, "Files still to be read by seer build."),
    }
    with st.grid(4, min_column_width=130, gap="small"):
        for name, (count, meaning) in counts.items():
            st.metric(name, f"{count:,}", help=meaning, border=True)


def list_steps(status: CollectionStatus) -> list[str]:
    """What the person can do now, one sentence each; empty when all is well."""
    steps = []
    if status.generation is None:
        steps.append("Nothing has been published yet. Run seer build.")
    if status.pending and status.generation is not None:
        files = "1 file is" if status.pending == 1 else f"{status.pending:,} files are"
        published = f", or to be published in {status.engine}. Run seer build, then seer publish."
        steps.append(f"{files} still to be read{published if status.engine else '. Run seer build.'}")
    if status.failed:
        files = "1 file" if status.failed == 1 else f"{status.failed:,} files"
        steps.append(
            f"{files} cannot be searched. Repair or replace what is wrong and run seer build: it looks again at what "
            "has changed or was out of reach. Unchanged files it decodes again with --retry-failed only."
        )
    return steps


def list_facts(status: CollectionStatus) -> dict[str, str]:
    """What answers at present, by name."""
    recall = "" if status.recall in (None, 1.0) else f", recall {status.recall:.3f}"
    return {
        "Model": status.model or "none yet",
        "Embedding": f"{status.dimension} numbers an image" if status.dimension else "none yet",
        "Generation": f"{status.generation} of {status.updated:%Y-%m-%d %H:%M}" if status.updated else "none yet",
        "Kept generations": "\n".join(map(describe_generation, status.generations)) or "none yet",
        "Search": f"{status.index}{recall}" if status.index else "none yet",
        "Picture folders": "\n".join(show_path(folder) for folder in status.folders) or "none",
        "Excluded": "\n".join(map(show_path, status.excluded)) or "nothing",
        "Collection": show_path(status.folder),
    }


def describe_generation(one: GenerationFacts) -> str:
    """When it was made, of what, and whether it is the one that answers."""
    images = f"{one.images:,} {'image' if one.images == 1 else 'images'}"
    answers = " (answers)" if one.is_current else ""
    return f"{one.name} of {datetime.fromisoformat(one.made):%Y-%m-%d %H:%M}: {images}, {one.model}{answers}"


def show_facts(status: CollectionStatus) -> None:
    """The facts as two columns of plain text."""
    for name, fact in list_facts(status).items():
        label, value = st.columns([1, 6], gap="small")
        label.caption(name)
        value.text(fact)


def show_work(collection: Collection) -> None:
    """The way to bring the collection up to date from here."""
    label, value = st.columns([1, 6], gap="small", vertical_alignment="center")
    label.caption("Bring up to date")
    with value:
        offer_work(collection, "build", "Look for new pictures", Key.BUILD, ":material/sync:")
        st.text(WORK)


def show_kept(collection: Collection) -> None:
    """What is kept of uploads, and the way to have all of it deleted."""
    label, value = st.columns([1, 6], gap="small", vertical_alignment="center")
    label.caption("Kept uploads")
    try:
        count, size_bytes = collection.marks.measure_queries()
    except UserError as error:
        value.warning(quote(str(error)), icon=":material/heart_broken:")
        return
    with value.container(horizontal=True, vertical_alignment="center"):
        st.text(f"{count:,} {'picture' if count == 1 else 'pictures'}, {show_size(size_bytes)}" if count else "none")
        if count:
            # Not while the page is drawn: what a callback raises is shown as well.
            st.button(
                "Forget all", key=Key.FORGET_ALL, icon=":material/delete:", on_click=collection.marks.forget_queries
            )


def show_page() -> None:
    """The page, from top to bottom."""
    collection = the_collection()
    status = collection.read_status()
    st.header("Status")
    show_counts(status)
    for step in list_steps(status):
        st.info(quote(step), icon=":material/lightbulb:")
    if status.failed or status.pending:
        icon, kept = ":material/hide_image:", keep_collection()
        st.page_link("views/not_searchable.py", label=SEE_LIST, icon=icon, query_params=kept)
    show_facts(status)
    show_work(collection)
    show_kept(collection)


show_page()
