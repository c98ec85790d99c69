"""What stands above every page: the ways to the pages, and which collection is shown where there are several.

Rule: in sight at every width; a way to another page keeps the collection.
"""

from collections.abc import Sequence

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from ui.address import keep_collection, take_collection
from ui.keys import Key
from ui.resources import find_chosen, list_collections
from ui.texts import show_path


def show_menu(pages: Sequence[StreamlitPage]) -> None:
    """All of it. Streamlit's own menu becomes a drawer that lies over a narrow page."""
    with st.container(key=Key.MENU, horizontal=True, gap="xxsmall", vertical_alignment="center"):
        for page in pages:
            st.page_link(page, width="content", query_params=keep_collection())
    _show_collections()


def _show_collections() -> None:
    names, chosen = list_collections(), find_chosen()
    if len(names) < 2:
        return
    st.session_state[Key.COLLECTION] = chosen if chosen in names else None
    with st.container(key=Key.COLLECTIONS):
        st.selectbox(
            "Collection", names, key=Key.COLLECTION, format_func=show_path, on_change=take_collection,
            label_visibility="collapsed", placeholder="Choose a collection", index=0 if chosen in names else None,
        )  # fmt: skip
