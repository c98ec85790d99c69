"""What the pages are drawn with: thumbnails, facts, the footer, errors.

File names and paths are shown with `st.text`, `st.code` and as `alt`, which read no Markdown and no HTML. Pictures come
from our own routes: `st.image` would decode and encode each one anew on every run.

Rule: a component draws what it is given; only views ask the collection.
"""

from urllib.parse import urlsplit

import streamlit as st

from indexer.collection import Answer, CollectionStatus, ImageDetails
from seer_model.errors import UserError
from ui.keys import Key
from ui.texts import BUG, quote, show_path, show_size

OPEN_ICON = ":material/open_in_full:"
SIMILAR_ICON = ":material/image_search:"


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
        parts.append(answer.way)
    if milliseconds is not None:
        parts.append(f"{milliseconds:.0f} ms")
    with st.container(key=Key.FOOTER, gap="xxsmall"):
        st.text(" · ".join(parts))
