"""The status page: what the collection holds, what answers, and what cannot be searched and why.

Rule: every number stands beside what a person can do about it.
"""

from math import ceil

import streamlit as st

from indexer.collection import Collection, CollectionStatus
from ui.keys import Key
from ui.resources import the_collection
from ui.texts import quote, show_path

FAILURES_ON_PAGE = 50


def show_counts(status: CollectionStatus) -> None:
    """The four counts."""
    counts = {
        "Images": (status.images, "Different pictures that can be searched now."),
        "Files": (status.files, "Files that could be pictures; several may hold the same image."),
        "Failed": (status.failed, "Files that cannot be searched; the reasons stand below."),
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
        steps.append(f"{status.pending:,} files are still to be read. Run seer build.")
    if status.failed:
        steps.append(
            f"{status.failed:,} files cannot be searched. Repair or replace them and run seer build: it looks again at "
            "what has changed or was out of reach. Unchanged files it decodes again with --retry-failed only."
        )
    return steps


def list_facts(status: CollectionStatus) -> dict[str, str]:
    """What answers at present, by name."""
    recall = "" if status.recall in (None, 1.0) else f", recall {status.recall:.3f}"
    return {
        "Model": status.model or "none yet",
        "Embedding": f"{status.dimension} numbers an image" if status.dimension else "none yet",
        "Generation": f"{status.generation} of {status.updated:%Y-%m-%d %H:%M}" if status.updated else "none yet",
        "Search": f"{status.index}{recall}" if status.index else "none yet",
        "Picture folders": "\n".join(show_path(folder) for folder in status.folders) or "none",
        "Collection": show_path(status.folder),
    }


def show_facts(status: CollectionStatus) -> None:
    """The facts as two columns of plain text."""
    for name, fact in list_facts(status).items():
        label, value = st.columns([1, 6], gap="small")
        label.caption(name)
        value.text(fact)


def show_failures(collection: Collection, status: CollectionStatus) -> None:
    """Files that cannot be searched, page by page."""
    st.subheader("Files that cannot be searched")
    table = st.container()
    page = 1
    if status.failed > FAILURES_ON_PAGE:
        page = st.pagination(ceil(status.failed / FAILURES_ON_PAGE), key=Key.FAILURE_PAGE, width="stretch")
    failures = collection.list_failures((page - 1) * FAILURES_ON_PAGE, FAILURES_ON_PAGE)
    rows = [
        {"File": show_path(failure.path), "Reason": failure.reason, "Seen": f"{failure.when:%Y-%m-%d %H:%M}"}
        for failure in failures
    ]
    text = st.column_config.TextColumn
    columns = {"File": text(width="medium"), "Reason": text(width="large"), "Seen": text(width="small")}
    # A row of three lines: the end of a reason says what to do.
    table.dataframe(rows, hide_index=True, width="stretch", row_height=64, column_config=columns)
    # Written when it is asked for: of a large collection the table is long.
    st.download_button(
        "Download all as CSV", collection.export_failures, "not-searchable.csv", "text/csv", key=Key.FAILURE_TABLE
    )


def show_page() -> None:
    """The page, from top to bottom."""
    collection = the_collection()
    status = collection.read_status()
    st.header("Status")
    show_counts(status)
    for step in list_steps(status):
        st.info(quote(step), icon=":material/lightbulb:")
    show_facts(status)
    if status.failed:
        show_failures(collection, status)


show_page()
