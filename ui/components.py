"""What the pages are drawn with: an image opened large, the footer, errors.

File names and paths are shown with `st.text`, `st.code` and as `alt`, which read no Markdown and no HTML. Pictures come
from our own routes: `st.image` would decode and encode each one anew on every run.

Rule: a component draws what it is given; only views ask the collection.
"""

from collections.abc import Sequence
from urllib.parse import urlsplit

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from indexer.collection import Answer, CollectionStatus, ImageDetails
from seer_model.errors import UserError
from ui.address import go_to_image
from ui.keys import Key
from ui.texts import BUG, quote, show_path, show_size

OPEN_ICON = ":material/open_in_full:"
SIMILAR_ICON = ":material/image_search:"
GONE = "The file is no longer where it was; this is its thumbnail. Run seer build to bring the collection up to date."


SCROLL = """
let last;
export default ({ data }) => {
  if (last !== undefined && last !== data) {
    document.querySelector('[data-testid="stMain"]')?.scrollTo(0, 0);
  }
  last = data;
};
"""


def scroll_to_top(place: str) -> None:
    """Begin at the top of the page whenever `place` differs from the last run's: the nearest neighbours stand there."""
    st.components.v2.component("scroll_to_top", js=SCROLL)(key=Key.SCROLL, data=place)


def show_menu(pages: Sequence[StreamlitPage]) -> None:
    """The ways to the pages, in sight at every width: Streamlit's own become a drawer that lies over a narrow page."""
    with st.container(key=Key.MENU, horizontal=True, gap="xxsmall"):
        for page in pages:
            st.page_link(page, width="content")


def show_error(error: Exception) -> bool:
    """Say in the page what went wrong: a UserError in its own words, a bug without its details.

    Returns: True, so that `st.App(on_script_error=)` shows nothing of its own.
    """
    st.error(quote(str(error)) if isinstance(error, UserError) else BUG, icon=":material/error:")
    return True


def read_origin() -> str:
    """Where the browser found this page, as `http://127.0.0.1:8501`: `st.image` takes a relative URL for a file."""
    parts = urlsplit(st.context.url or "http://localhost")
    return f"{parts.scheme}://{parts.netloc}"


def show_thumbnail(content_hash: str, alt: str) -> None:
    """The thumbnail of an image, as wide as its place."""
    st.image(f"{read_origin()}/t/{content_hash}.webp", alt=alt, width="stretch")


def show_large(image: ImageDetails) -> None:
    """An image in its own size over the page, where its files are, and what is known of it."""
    st.dialog(quote(show_path(image.path.name)), width="large")(_show_large)(image)


def _show_large(image: ImageDetails) -> None:
    is_there = any(path.is_file() for path in image.paths)
    with st.container(key=Key.LARGE):
        if is_there:
            st.image(f"{read_origin()}/o/{image.content_hash}", alt=show_path(image.path.name))
        else:
            show_thumbnail(image.content_hash, alt=show_path(image.path.name))
            st.warning(GONE, icon=":material/image_not_supported:")
    st.text(describe_image(image))
    for path in image.paths:
        st.code(show_path(path), language=None, wrap_lines=True)
    with st.container(horizontal=True):
        chosen = {"on_click": go_to_image, "args": (image.content_hash,)}
        if st.button("Find similar", key=Key.LARGE_SIMILAR, type="primary", icon=SIMILAR_ICON, **chosen):
            # A dialog runs by itself; only a run of the whole page closes it and shows the answer.
            st.rerun()
        if is_there:
            st.link_button("Download", f"/o/{image.content_hash}?download", icon=":material/download:")


def describe_image(image: ImageDetails) -> str:
    """Size, format and date of an image in one line."""
    return (
        f"{image.width} × {image.height} px · {show_size(image.size_bytes)} · {image.format} · "
        f"{image.modified:%Y-%m-%d %H:%M}"
    )


def show_footer(status: CollectionStatus, answer: Answer | None = None, milliseconds: float | None = None) -> None:
    """One quiet line: what answered, how, and how fast."""
    parts = [
        f"{status.images:,} images",
        f"model {show_path(status.model or 'none')}",
        f"generation {status.generation}",
    ]
    if answer is not None:
        parts.append("searched exactly" if answer.is_exact else f"searched approximately, recall {answer.recall:.3f}")
    if milliseconds is not None:
        parts.append(f"{milliseconds:.0f} ms")
    with st.container(key=Key.FOOTER, gap="xxsmall"):
        st.text(" · ".join(parts))
