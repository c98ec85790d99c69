"""Discover: what is in a collection, without a query. Groups of look-alikes, what differs, surprises, the unusual.

Rule: each of them leads into a gallery, and each image there into a search.
"""

from collections.abc import Sequence
from math import ceil

import streamlit as st

from indexer.collection import Collection, CollectionStatus, ImageDetails
from indexer.overview import Group, Overview
from ui.gallery import show_gallery
from ui.keys import Action, Key
from ui.marking import list_favourites
from ui.seeing import Seeing, Show, enter, go_up, read_seeing, surprise_again, take_seeing_page, take_show
from ui.texts import show_path
from ui.work import offer_work

ON_PAGE, NEWEST = 48, 48
TITLES = {
    Show.GROUPS: "Groups",
    Show.DIFFER: "Most different",
    Show.SURPRISE: "Surprise me",
    Show.UNUSUAL: "Unusual ones",
}
ABOUT = {
    Show.GROUPS: "Images that look alike stand together. Nobody has named the groups: look into one.",
    Show.DIFFER: "Images that differ from each other as much as possible: what there is, at a glance.",
    Show.SURPRISE: "Images drawn at random.",
    Show.UNUSUAL: "Images that little else here is like, the oddest first.",
}
ALL_HIDDEN = "Every image is hidden. Favourites, under Hidden, has the way back."
NONE_HERE = "There is nothing to show here."
NO_SURVEY = (
    "Groups of look-alikes, unusual images, near-duplicates and a map are found once for all pictures. It takes "
    "seconds for a thousand and minutes for a hundred thousand, and goes on if this page is closed."
)
JS = f"""
const make = (tag, fields, ...children) => {{
  const element = Object.assign(document.createElement(tag), fields);
  element.append(...children);
  return element;
}};
const picture = ({{ image, name }}, isFirst) =>
  make("img", {{ src: `/t/${{image}}.webp`, alt: isFirst ? name : "", loading: "lazy", decoding: "async" }});
const draw = ({{ number, title, images }}) => make("li", {{}},
  make("button", {{
    name: "{Action.ENTER}", value: number, type: "button", ariaLabel: `Look into ${{title}} like ${{images[0].name}}`,
  }}, ...images.map((image, place) => picture(image, !place)), make("span", {{ textContent: title }})));
export default ({{ data, parentElement, setTriggerValue }}) => {{
  const list = parentElement.querySelector("ul");
  const wanted = JSON.stringify(data);
  if (list.wanted !== wanted) {{
    list.wanted = wanted;
    list.replaceChildren(...data.map(draw));
  }}
  list.onclick = ({{ target }}) => {{
    const button = target.closest("button");
    if (button) setTriggerValue(button.name, Number(button.value));
  }};
}};
"""


def show_discover(collection: Collection, overview: Overview, status: CollectionStatus) -> str | None:
    """All of it. Returns: the content hash of the image to open large, if one was asked for."""
    here, state = read_seeing(), overview.read_state()
    if not state.is_whole:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.text(NO_SURVEY)
            offer_work(collection, "survey", "Find groups", Key.SURVEY, ":material/workspaces:")
    if not state.has_groups:
        st.markdown("#### Begin with one of these")
        newest = collection.list_images(count=NEWEST)
        if not newest:
            st.info(ALL_HIDDEN, icon=":material/visibility_off:")
        return show_gallery(newest, favourites=list_favourites(collection))
    _show_ways(here)
    if here.show is Show.GROUPS:
        return _show_groups(collection, overview, here)
    images, total = _find_images(overview, here, status.images)
    if here.show is Show.SURPRISE:
        st.button("Others", key=Key.SURPRISE, icon=":material/casino:", on_click=surprise_again)
    return _show_images(collection, images, total, here)


def explain_empty(collection: Collection, page: int) -> str:
    """Why no image stands here, and the way on."""
    if not collection.list_images(count=1):
        return ALL_HIDDEN
    return f"There is nothing on page {page}. Go back to an earlier page." if page > 1 else NONE_HERE


def _show_ways(here: Seeing) -> None:
    st.session_state[Key.SHOW] = here.show
    st.segmented_control(
        "Look at", list(Show), key=Key.SHOW, format_func=TITLES.get, required=True, on_change=take_show,
        label_visibility="collapsed",
    )  # fmt: skip
    st.caption(ABOUT[here.show])


def _find_images(overview: Overview, here: Seeing, images: int) -> tuple[Sequence[ImageDetails], int]:
    first = (here.page - 1) * ON_PAGE
    if here.show is Show.SURPRISE:
        return overview.surprise(here.surprise, ON_PAGE), min(ON_PAGE, images)
    if here.show is Show.DIFFER:
        found = overview.list_exemplars(ON_PAGE + 1, first)
        return found[:ON_PAGE], first + len(found)
    odd = overview.list_outliers(ON_PAGE + 1, first)
    return [one.image for one in odd[:ON_PAGE]], first + len(odd)


def _show_groups(collection: Collection, overview: Overview, here: Seeing) -> str | None:
    if here.group is None:
        groups = overview.list_groups()
        if not groups:
            st.info(explain_empty(collection, here.page), icon=":material/search_off:")
        _show_cards(groups, "group")
        return None
    st.button(
        "All groups" if here.part is None else "The whole group", key=Key.UP, icon=":material/arrow_upward:",
        on_click=go_up,
    )  # fmt: skip
    total = overview.count_group(here.group, here.part)
    if not total:
        st.info("There is nothing in this group any more. Go back to all groups.", icon=":material/search_off:")
        return None
    if here.part is None and len(parts := overview.list_groups(here.group)) > 1:
        _show_cards(parts, "part")
    images = overview.list_group(here.group, here.part, (here.page - 1) * ON_PAGE, ON_PAGE)
    return _show_images(collection, images, total, here)


def _show_cards(groups: Sequence[Group], what: str) -> None:
    component = st.components.v2.component(Key.GROUPS, html="<ul></ul>", js=JS, isolate_styles=False)
    component(
        key=Key.GROUPS,
        data=[describe_group(group, what) for group in groups],
        **{f"on_{Action.ENTER}_change": lambda: enter(int(st.session_state[Key.GROUPS][Action.ENTER]))},
    )


def describe_group(group: Group, what: str) -> dict:
    """What the browser draws of a group."""
    return {
        "number": group.number,
        "title": f"{group.size:,} {'image' if group.size == 1 else 'images'}",
        "images": [{"image": one.content_hash, "name": show_path(one.path.name)} for one in group.images],
        "what": what,
    }


def _show_images(collection: Collection, images: Sequence[ImageDetails], total: int, here: Seeing) -> str | None:
    if not images:
        st.info(explain_empty(collection, here.page), icon=":material/search_off:")
    opened = show_gallery(images, favourites=list_favourites(collection))
    pages = ceil(total / ON_PAGE)
    if max(pages, here.page) > 1:
        st.session_state[Key.SEEING_PAGE] = min(here.page, max(pages, here.page))
        st.pagination(max(pages, here.page), key=Key.SEEING_PAGE, on_change=take_seeing_page, width="stretch")
    return opened
