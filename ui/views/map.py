"""The page with the map: the whole collection in one picture, look-alikes near each other.

Rule: what is selected stands in the URL, and below the map as a gallery.
"""

from math import ceil

import streamlit as st

from indexer.collection import Collection
from ui import address
from ui.components import show_footer
from ui.gallery import show_gallery
from ui.keys import Key, Parameter
from ui.large import show_large
from ui.map_drawing import list_inside, name_map, read_lasso, show_map
from ui.marking import list_favourites
from ui.resources import the_collection, the_overview
from ui.work import offer_work

ON_PAGE = 96
NO_MAP = "The map of this collection has not been drawn yet."
ABOUT = "Every point is an image; look-alikes lie near each other. Click one to search on, or draw around some."
HOW = {"pca": "drawn by principal components", "t-SNE": "drawn by t-SNE over the nearest neighbours"}


def show_selected(collection: Collection, images: list[int]) -> str | None:
    """The images in the lasso, page by page. Returns: the content hash of the one to open large, if any."""
    page = address.read_page(st.query_params.get(Parameter.PAGE, ""))
    pages = max(1, ceil(len(images) / ON_PAGE))
    page = min(page, pages)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.text(f"{len(images):,} {'image' if len(images) == 1 else 'images'} selected.")
        st.button("Select none", key=Key.UP, icon=":material/deselect:", on_click=address.write_parameters, args=({},))
    shown = collection.read_images(images[(page - 1) * ON_PAGE : page * ON_PAGE])
    opened = show_gallery(shown, favourites=list_favourites(collection))
    if pages > 1:
        st.session_state[Key.LIST_PAGE] = page
        st.pagination(pages, key=Key.LIST_PAGE, on_change=take_page, width="stretch")
    return opened


def take_page() -> None:
    """Another page of what is selected."""
    lasso = st.query_params.get(Parameter.LASSO)
    address.write_parameters({Parameter.LASSO: lasso, Parameter.PAGE: str(st.session_state[Key.LIST_PAGE])})


def show_page() -> None:
    """The page, from top to bottom."""
    collection, overview, opened = the_collection(), the_overview(), None
    found = overview.read_map()
    if found is None:
        st.info(NO_MAP, icon=":material/scatter_plot:")
        offer_work(collection, "survey", "Draw it", Key.SURVEY, ":material/scatter_plot:")
        return
    st.caption(f"{ABOUT} {len(found.places):,} images, {HOW[found.how]}.")
    lasso = read_lasso(st.query_params.get(Parameter.LASSO, ""))
    show_map(name_map(collection.read_generation(), found), found, lasso)
    if lasso:
        opened = show_selected(collection, list_inside(found, lasso))
    show_footer(collection.read_status())
    if opened is not None and (image_id := collection.find_image(opened)) is not None:
        show_large(collection, collection.read_image(image_id))


show_page()
