"""The gallery: images as cards, drawn by one component of our own, whose part in the browser is `JS`.

A card put together of Streamlit's elements takes seven messages, and a gallery has up to a thousand cards: that was
most of the time of an answer. The whole gallery is one message here; the browser draws what is in sight, and fetches
thumbnails as they come into sight.

Keys: arrows go from card to card, Enter searches on.

Rule: names are set as text and as attributes of elements, never read as HTML; what the browser sends back is looked up
among what is there.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

import streamlit as st

from indexer.collection import ImageDetails, Neighbour, show_similarity
from ui.address import add_term, go_to_image
from ui.keys import Action, Key
from ui.marking import switch_favourite
from ui.texts import show_path

JS = f"""
const make = (tag, fields, ...children) => {{
  const element = Object.assign(document.createElement(tag), fields);
  element.append(...children);
  return element;
}};

const press = (name, image, ariaLabel, more = {{}}) =>
  make("button", {{ name, value: image, type: "button", ariaLabel, title: ariaLabel, ...more }});

const draw = ({{ image, name, line, word, files, is_favourite, is_large }}) => make("li", {{}},
  make("button", {{ name: "{Action.SIMILAR}", value: image, type: "button", ariaLabel: `Find similar to ${{name}}` }},
    make("img", {{ src: `/t/${{image}}.webp`, alt: name, loading: "lazy", decoding: "async" }})),
  make("fieldset", {{ ariaLabel: `More for ${{name}}` }},
    press("{Action.PLUS}", image, `Search for more like ${{name}} too`),
    press("{Action.MINUS}", image, `Search for less like ${{name}}`),
    press("{Action.FAVOURITE}", image, `Favourite ${{name}}`, {{ ariaPressed: String(is_favourite) }})),
  make("div", {{}},
    make("span", {{ textContent: line, title: line }}, ...(word ? [make("em", {{ textContent: word }})] : [])),
    ...(is_large ? [] : [press("{Action.OPEN}", image, `Open ${{name}}`, {{ title: "" }})])),
  ...(files ? [make("p", {{ textContent: files, title: files }})] : []));

const STEPS = {{ ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }};
const isTyping = (target) => target.closest("input, textarea, select, [contenteditable=true], [role=slider]");

const walk = (list, event) => {{
  const step = STEPS[event.key];
  if (!step || event.altKey || event.ctrlKey || event.metaKey || isTyping(event.target)) return;
  if (document.querySelector('[role="dialog"]')) return;
  const tiles = [...list.querySelectorAll("button[name={Action.SIMILAR}]")];
  const here = tiles.findIndex((tile) => tile.closest("li").contains(document.activeElement));
  if (!tiles.length || (here < 0 && (document.activeElement !== document.body || !step[0]))) return;
  const across = Math.max(1, getComputedStyle(list).gridTemplateColumns.split(" ").length);
  const next = here < 0 ? 0 : here + step[0] + step[1] * across;
  if (!tiles[next]) return;
  tiles[next].focus();
  tiles[next].scrollIntoView({{ block: "nearest" }});
  event.preventDefault();
}};

// Where the same images stand, only a card that has changed is drawn anew: who is on it stays there.
const renew = (old, card) => {{
  const name = old.contains(document.activeElement) ? document.activeElement.name : null;
  const fresh = draw(card);
  old.replaceWith(fresh);
  if (name) fresh.querySelector(`button[name=${{name}}]`)?.focus();
}};

const fill = (list, cards) => {{
  const before = list.cards ?? [];
  list.cards = cards;
  if (before.length === cards.length && cards.every((card, at) => card.image === before[at].image)) {{
    const isChanged = (card, at) => JSON.stringify(card) !== JSON.stringify(before[at]);
    const lines = [...list.children];
    cards.forEach((card, at) => {{ if (isChanged(card, at)) renew(lines[at], card); }});
  }} else {{
    list.replaceChildren(...cards.map(draw));
    // Whatever lies under a pointer that rests was not pointed at.
    list.dataset.pointer = "rests";
  }}
}};

export default ({{ data, parentElement, setTriggerValue }}) => {{
  const list = parentElement.querySelector("ul");
  const wanted = JSON.stringify(data);
  if (list.wanted !== wanted) {{
    list.wanted = wanted;
    fill(list, data);
  }}
  list.onpointermove = ({{ movementX, movementY }}) => {{
    if (movementX || movementY) delete list.dataset.pointer;
  }};
  list.onclick = ({{ target }}) => {{
    const button = target.closest("button");
    if (button) setTriggerValue(button.name, button.value);
  }};
  const onKey = (event) => walk(list, event);
  document.addEventListener("keydown", onKey);
  return () => document.removeEventListener("keydown", onKey);
}};
"""


def show_gallery(
    images: Sequence[Neighbour] | Sequence[ImageDetails],
    *,
    words: Mapping[str, str] | None = None,
    folded: Mapping[str, int] | None = None,
    favourites: Collection[str] = (),
    key: Key = Key.GALLERY,
) -> str | None:
    """Images as cards to search on from.

    Args:
        words: content hash -> what is said of its similarity.
        folded: content hash -> how many near-copies stand under it.
        favourites: content hashes.
        key: of another gallery on the same page, in an image that is opened large: it opens none, and a press tells
            (`was_pressed`).
    Returns: the content hash of the one to open large, if one was asked for.
    """
    component = st.components.v2.component(Key.GALLERY, html="<ul></ul>", js=JS, isolate_styles=False)
    is_large = key != Key.GALLERY
    does = {
        Action.SIMILAR: go_to_image,
        Action.PLUS: partial(add_term, is_wanted=True),
        Action.MINUS: partial(add_term, is_wanted=False),
        Action.FAVOURITE: switch_favourite,
        Action.OPEN: lambda content_hash: None,
    }
    pressed = component(
        key=key,
        data=[
            describe_card(image, words or {}, folded or {})
            | {"is_favourite": image.content_hash in favourites, "is_large": is_large}
            for image in images
        ],
        **{f"on_{action}_change": partial(_do, key, action, function) for action, function in does.items()},
    )
    shown = {image.content_hash for image in images}
    return pressed[Action.OPEN] if pressed[Action.OPEN] in shown else None


def describe_card(
    image: Neighbour | ImageDetails, words: Mapping[str, str], folded: Mapping[str, int]
) -> dict[str, str | None]:
    """What the browser draws of one image: thumbnail, similarity if it is a neighbour, file name."""
    name = show_path(image.path.name)
    if not isinstance(image, Neighbour):
        return {"image": image.content_hash, "name": name, "line": name, "word": None, "files": None}
    return {
        "image": image.content_hash,
        "name": name,
        "line": show_similarity(image),
        "word": words.get(image.content_hash) or None,
        "files": show_files(image, folded.get(image.content_hash, 0)),
    }


def show_files(image: Neighbour | ImageDetails, near_copies: int = 0) -> str:
    """The first file's name, how many more files hold the same content, and how many near-copies are folded here."""
    more = len(image.paths) - 1
    same = f" (+{more} more)" if more else ""
    near = f" (+{near_copies} near {'copy' if near_copies == 1 else 'copies'})" if near_copies else ""
    return show_path(image.path.name) + same + near


def was_pressed() -> bool:
    """Whether something of the other gallery was pressed since this was last asked: the whole page has to run again."""
    return st.session_state.pop(Key.PRESSED, False)


def _do(key: Key, action: Action, function: Callable[[str], None]) -> None:
    function(str(st.session_state[key][action]))
    if key != Key.GALLERY:
        st.session_state[Key.PRESSED] = True
