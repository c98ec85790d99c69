"""The map on the page: its component, whose part in the browser is `assets/map.js`, and the bytes that it fetches.

    places (n, 2) little-endian float32, groups (n,) uint8, content hashes (n, 32): one piece for a hundred thousand

Rule: what the browser sends back is a content hash or a polygon; which points lie in that is found here.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import streamlit as st

from indexer.overview import Map, find_inside
from ui.address import go_to_image, write_parameters
from ui.keys import Action, Key, Parameter

MOST_CORNERS, MOST_LETTERS = 64, 1200
COLOURS = (
    *("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2"),
    *("#edc948", "#9c755f", "#ff9da7", "#2ca089", "#8cd17d", "#a0a0a0"),
)
"""Of groups, again from the first after the last; seen on light and on dark ground."""
BUTTONS = (
    *(("in", "+", "Zoom in"), ("out", "−", "Zoom out"), ("whole", "⤢", "The whole map"), ("left", "←", "Move left")),
    *(("right", "→", "Move right"), ("up", "↑", "Move up"), ("down", "↓", "Move down")),
    ("lasso", "Lasso", "Select by drawing around images"),
    ("all", "Select what is in view", "Select what is in view"),
)
GONE = "The points of this map could not be fetched. Reload the page to try again."
HTML = (
    "<section aria-label='Map of the collection'><canvas></canvas><canvas></canvas><figure></figure>"
    f"<aside hidden><img alt=''></aside><p role='alert' hidden>{GONE}</p><nav>"
    + "".join(
        f"<button type='button' name='{name}' aria-label='{meaning}' title='{meaning}'>{sign}</button>"
        for name, sign, meaning in BUTTONS
    )
    + "</nav></section>"
)

Corner = tuple[float, float]


@lru_cache(maxsize=1)
def read_script() -> str:
    """The component's part in the browser."""
    return Path(__file__).with_name("assets").joinpath("map.js").read_text(encoding="utf-8")


def pack_map(found: Map) -> bytes:
    """What the browser fetches of a map."""
    groups = (found.groups % len(COLOURS)).astype("u1")
    return found.places.astype("<f4").tobytes() + groups.tobytes() + found.hashes.tobytes()


def name_map(generation: str, found: Map) -> str:
    """A name for these points in these places: others have another one, so that it may be kept for ever."""
    digest = hashlib.sha256(found.image_ids.tobytes() + found.places.tobytes() + found.groups.tobytes())
    return f"{generation}-{digest.hexdigest()[:16]}"


def show_map(name: str, found: Map, lasso: Sequence[Corner]) -> None:
    """Draw it; a click searches on, a lasso goes into the URL, and what is not there any more is named anew."""
    component = st.components.v2.component(Key.MAP, html=HTML, js=read_script(), isolate_styles=False)
    component(
        key=Key.MAP,
        data={
            "source": f"/map/{name}.bin",
            "count": len(found.places),
            "lasso": [list(corner) for corner in lasso],
            "colours": list(COLOURS),
        },
        **{
            f"on_{Action.SIMILAR}_change": lambda: go_to_image(str(st.session_state[Key.MAP][Action.SIMILAR])),
            # A run of the script is all that it is for: it names the points that there are now.
            "on_gone_change": lambda: None,
            "on_lasso_change": lambda: write_parameters({Parameter.LASSO: str(st.session_state[Key.MAP]["lasso"])}),
        },
    )


def read_lasso(text: str) -> list[Corner]:
    """The corners of a polygon as the URL has them; none where they make no sense."""
    if not text or len(text) > MOST_LETTERS:
        return []
    try:
        corners = [tuple(map(float, corner.split(","))) for corner in text.split(";")]
    except ValueError:
        return []
    makes_sense = 3 <= len(corners) <= MOST_CORNERS and all(
        len(corner) == 2 and all(abs(value) <= 1000 for value in corner) for corner in corners
    )
    return corners if makes_sense else []


def list_inside(found: Map, lasso: Sequence[Corner]) -> list[int]:
    """The images whose points lie in a polygon."""
    return find_inside(found, lasso).tolist()
