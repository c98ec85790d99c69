"""The gallery: images as cards, drawn by one component of our own, whose part in the browser is `JS`.

A card put together of Streamlit's elements takes seven messages, and a gallery has up to 96 cards: that was most of the
time of an answer. The whole gallery is one message here.

Rule: names are set as text and as attributes of elements, never read as HTML; what the browser sends back is looked up
among what is there.
"""

from collections.abc import Sequence

import streamlit as st

from indexer.collection import ImageDetails, Neighbour, show_similarity
from ui.address import go_to_image
from ui.keys import Action, Key
from ui.texts import show_path

JS = f"""
const make = (tag, fields, ...children) => {{
  const element = Object.assign(document.createElement(tag), fields);
  element.append(...children);
  return element;
}};

const draw = ({{ image, name, line, files }}) => make("li", {{}},
  make("button", {{ name: "{Action.SIMILAR}", value: image, type: "button", ariaLabel: `Find similar to ${{name}}` }},
    make("img", {{ src: `/t/${{image}}.webp`, alt: name }})),
  make("div", {{}},
    make("span", {{ textContent: line, title: line }}),
    make("button", {{ name: "{Action.OPEN}", value: image, type: "button", ariaLabel: `Open ${{name}}` }})),
  ...(files ? [make("p", {{ textContent: files, title: files }})] : []));

export default ({{ data, parentElement, setTriggerValue }}) => {{
  const list = parentElement.querySelector("ul");
  const wanted = JSON.stringify(data);
  if (list.wanted !== wanted) {{
    list.wanted = wanted;
    list.replaceChildren(...data.map(draw));
    // Whatever lies under a pointer that rests was not pointed at.
    list.dataset.pointer = "rests";
  }}
  list.onpointermove = ({{ movementX, movementY }}) => {{
    if (movementX || movementY) delete list.dataset.pointer;
  }};
  list.onclick = ({{ target }}) => {{
    const button = target.closest("button");
    if (button) setTriggerValue(button.name, button.value);
  }};
}};
"""


def show_gallery(images: Sequence[Neighbour] | Sequence[ImageDetails]) -> str | None:
    """Images as cards to search on from. Returns: the content hash of the one to open large, if one was asked for."""
    component = st.components.v2.component(Key.GALLERY, html="<ul></ul>", js=JS, isolate_styles=False)
    pressed = component(
        key=Key.GALLERY,
        data=[describe_card(image) for image in images],
        **{f"on_{Action.SIMILAR}_change": _search_on, f"on_{Action.OPEN}_change": lambda: None},
    )
    shown = {image.content_hash for image in images}
    return pressed[Action.OPEN] if pressed[Action.OPEN] in shown else None


def describe_card(image: Neighbour | ImageDetails) -> dict[str, str | None]:
    """What the browser draws of one image: thumbnail, similarity if it is a neighbour, file name."""
    name = show_path(image.path.name)
    is_neighbour = isinstance(image, Neighbour)
    return {
        "image": image.content_hash,
        "name": name,
        "line": show_similarity(image) if is_neighbour else name,
        "files": show_files(image) if is_neighbour else None,
    }


def show_files(image: Neighbour | ImageDetails) -> str:
    """The first file's name, and how many more files hold the same content."""
    more = len(image.paths) - 1
    return show_path(image.path.name) + (f" (+{more} more)" if more else "")


def _search_on() -> None:
    go_to_image(str(st.session_state[Key.GALLERY][Action.SIMILAR]))
