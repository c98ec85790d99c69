"""Work on the collection from the page: a build or a survey is started, its progress shown, and it is asked to stop.

Rule: it is the command that a person would type, in a process of its own; the page only looks at it.
"""

import streamlit as st

from indexer.background import Work, read_work, start, stop
from indexer.collection import Collection
from seer_model.errors import UserError
from ui.keys import Key
from ui.texts import quote

EVERY_SECONDS = 1.0
KEPT = "What it had done is kept; begin again to go on."
STOPPED = f"Stopped. {KEPT}"
KILLED = f"It was ended from outside (signal {{}}), perhaps because memory ran out. {KEPT}"
FAILED = "It ended without success: {}"


def offer_work(collection: Collection, command: str, label: str, key: Key, icon: str) -> None:
    """A button that starts a command; while one is at work, how far it is, and a button that stops it."""
    work = read_work(collection.folder, command)
    if work.is_running:
        st.fragment(_watch, run_every=EVERY_SECONDS)(collection)
        return
    _show_ending(work)
    st.button(label, key=key, icon=icon, type="primary", on_click=_start, args=(collection, command))


def _show_ending(work: Work) -> None:
    """How the command ended that was started here last, where what it made does not say so."""
    if work.is_stopped:
        st.info(STOPPED, icon=":material/stop_circle:")
    elif work.status not in (0, None):
        text = KILLED.format(-work.status) if work.status < 0 else FAILED.format(work.line or "it said nothing.")
        st.warning(quote(text), icon=":material/error:")


def _start(collection: Collection, command: str) -> None:
    try:
        start(collection.folder, command)
    except UserError as error:
        st.toast(quote(str(error)), icon=":material/error:", duration="long")


def _watch(collection: Collection) -> None:
    work = read_work(collection.folder)
    if not work.is_running:
        st.rerun()  # All of the page: what was made is shown now.
    with st.container(horizontal=True, vertical_alignment="center", key=Key.WORK):
        st.text(describe_work(work))
        if work.is_ours:
            st.button("Stop", key=Key.STOP, icon=":material/stop_circle:", on_click=stop, args=(collection.folder,))


def describe_work(work: Work) -> str:
    """What is at work and how far it is, in a line."""
    return f"{work.command} is at work" + (f": {work.line}" if work.line else ".")
