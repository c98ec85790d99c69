"""What was searched with in this tab: the last query again, and the ones before it.

Rule: it lives as long as the tab; what shall stay is a bookmark.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import streamlit as st

from ui import address
from ui.keys import Key
from ui.texts import quote, show_path

MOST_RECENT, MOST_UNDONE = 12, 50


@dataclass(frozen=True)
class Step:
    """One query: what names it, how it was shown last, and what people read."""

    name: str
    link: str
    title: str


def remember(here: address.Address, names: Sequence[str]) -> None:
    """Take down what is searched with now. `names`: of its pictures; none: nothing is searched with."""
    name = f"{address.keep_collection()} {here.own} {[term.spell() for term in here.terms]}"
    step = Step(name, address.read_link(), show_path(" + ".join(names)))
    trail: list[Step] = st.session_state.setdefault(Key.TRAIL, [])
    if trail and trail[-1].name == step.name:
        trail[-1] = replace(step, title=step.title or trail[-1].title)
    else:
        trail.append(step)
    del trail[:-MOST_UNDONE]
    if names:
        recent = [one for one in st.session_state.get(Key.RECENT, []) if one.name != step.name]
        st.session_state[Key.RECENT] = [step, *recent][:MOST_RECENT]


def offer_undo() -> None:
    """The way back to the query before this one."""
    if len(st.session_state.get(Key.TRAIL, [])) > 1:
        st.button("Undo", key=Key.UNDO, icon=":material/undo:", on_click=undo)


def undo() -> None:
    """Search with what was searched with before the last change of the query."""
    trail: list[Step] = st.session_state[Key.TRAIL]
    trail.pop()
    address.go_to_link(trail[-1].link)


def offer_recent() -> None:
    """The latest queries, each a way back to it."""
    recent: list[Step] = st.session_state.get(Key.RECENT, [])
    if recent:
        with st.popover("Recent", icon=":material/history:"):
            for number, step in enumerate(recent):
                st.button(
                    quote(step.title), key=f"{Key.RECENT}-{number}", on_click=address.go_to_link, args=(step.link,),
                    width="stretch", type="tertiary",
                )  # fmt: skip
