"""Duplicates on the page: which are shown, as the URL says it, and their cards, drawn by components of our own.

    mode=same file                                            page=2
    mode=same subject    bound=0.8    keep=oldest             page=2

Rule: a value that makes no sense counts as not given; what the browser sends back is looked up among what is there.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import streamlit as st

from ui.address import read_page, write_parameters
from ui.keys import Action, Key, Parameter
from ui.marking import told
from ui.resources import the_collection

SAME_FILE, SAME_PICTURE = "same file", "same picture"
MODES = (SAME_FILE, SAME_PICTURE, "same subject")
RULES = ("largest", "oldest")
APART = "Told apart for good: they are in no group together any more."
MAKE = """
const make = (tag, fields, ...children) => {
  const element = Object.assign(document.createElement(tag), fields);
  element.append(...children);
  return element;
};
"""
JS = f"""{MAKE}
const keep = (isKept) => (isKept ? [make("mark", {{ textContent: "keep" }})] : []);
const file = ({{ path, is_kept }}) => make("p", {{ title: path }}, ...keep(is_kept), path);
const press = (name, value, textContent, ariaLabel) =>
  make("button", {{ name, value, type: "button", textContent, ariaLabel }});
const draw = ({{ image, name, line, facts, folder, files, more, is_kept, medoid }}) => make("li", {{}},
  make("button", {{ name: "{Action.OPEN}", value: image, type: "button", ariaLabel: `Open ${{name}}` }},
    make("img", {{ src: `/t/${{image}}.webp`, alt: name, loading: "lazy", decoding: "async" }})),
  make("strong", {{ textContent: line }}), ...keep(is_kept),
  ...[name, facts, folder].filter(Boolean).map((text) => make("p", {{ textContent: text, title: text }})),
  ...(files ? [make("div", {{}}, ...files.map(file))] : []), ...(more ? [make("p", {{ textContent: more }})] : []),
  ...(medoid
    ? [press("{Action.APART}", `${{medoid}} ${{image}}`, "Not a duplicate", `${{name}} is no duplicate`)] : []));
export default ({{ data, parentElement, setTriggerValue }}) => {{
  const place = parentElement.querySelector("div");
  const wanted = JSON.stringify(data);
  if (place.wanted !== wanted) {{
    place.wanted = wanted;
    const kind = (group) => (group[0]?.files ? "files" : "");
    place.replaceChildren(...data.map((group) => make("ul", {{ className: kind(group) }}, ...group.map(draw))));
  }}
  place.onclick = ({{ target }}) => {{
    const button = target.closest("button");
    if (button) setTriggerValue(button.name, button.value);
  }};
}};
"""

PAIRS_JS = f"""{MAKE}
const picture = ({{ image, name }}) => make("figure", {{}},
  ...(image ? [make("img", {{ src: `/t/${{image}}.webp`, alt: "", loading: "lazy", decoding: "async" }})] : []),
  make("figcaption", {{ textContent: name, title: name }}));
const draw = ({{ pair, images }}) => make("li", {{}}, ...images.map(picture), make("button", {{
  value: pair, type: "button", textContent: "Take back",
  ariaLabel: `Take back: ${{images.map(({{ name }}) => name).join(" and ")}}`,
}}));
export default ({{ data, parentElement, setTriggerValue }}) => {{
  const list = parentElement.querySelector("ul");
  list.replaceChildren(...data.map(draw));
  list.onclick = ({{ target }}) => {{
    const button = target.closest("button");
    if (button) setTriggerValue("{Key.TAKE_BACK}", button.value);
  }};
}};
"""


@dataclass(frozen=True, kw_only=True)
class CopiesAddress:
    """Which duplicates are shown."""

    mode: str = SAME_PICTURE
    bound: float | None = None
    """How similar each is to the first of its group; None: as the mode means it here."""
    keep: str = RULES[0]
    page: int = 1


def read_copies() -> CopiesAddress:
    """What the URL says."""
    given = st.query_params
    mode, keep = given.get(Parameter.MODE), given.get(Parameter.KEEP)
    return CopiesAddress(
        mode=mode if mode in MODES else SAME_PICTURE,
        bound=_read_bound(given.get(Parameter.BOUND, "")),
        keep=keep if keep in RULES else RULES[0],
        page=read_page(given.get(Parameter.PAGE, "")),
    )


def take_mode() -> None:
    """Another kind: with the bound that it means."""
    _write(CopiesAddress(mode=st.session_state[Key.MODE], keep=read_copies().keep))


def take_choice() -> None:
    """Another bound, or another one to keep."""
    _write(replace(read_copies(), bound=st.session_state[Key.BOUND], keep=st.session_state[Key.KEEP], page=1))


def take_page() -> None:
    """Another page."""
    _write(replace(read_copies(), page=st.session_state[Key.LIST_PAGE]))


@told
def take_last_back() -> None:
    """The pair that was told apart last counts again."""
    decisions = the_collection().decisions
    for pair in decisions.list_apart_newest_first()[:1]:
        decisions.tell_apart(*pair, is_so=False)


def show_pairs(pairs: Sequence[dict]) -> None:
    """Pairs that were told apart, each with its way back."""
    component = st.components.v2.component(Key.TELL_APART, html="<ul></ul>", js=PAIRS_JS, isolate_styles=False)
    component(key=Key.TELL_APART, data=list(pairs), **{f"on_{Key.TAKE_BACK}_change": _take_back})


@told
def _take_back() -> None:
    pair = str(st.session_state[Key.TELL_APART][Key.TAKE_BACK]).split()
    decisions = the_collection().decisions
    if frozenset(pair) in decisions.list_apart():
        decisions.tell_apart(*pair, is_so=False)


def show_cards(groups: Sequence[list[dict]]) -> str | None:
    """Groups of cards. Returns: the content hash of the one to open large, if one was asked for."""
    component = st.components.v2.component(Key.DUPLICATES, html="<div></div>", js=JS, isolate_styles=False)
    pressed = component(
        key=Key.DUPLICATES,
        data=list(groups),
        **{f"on_{Action.OPEN}_change": lambda: None, f"on_{Action.APART}_change": _tell_apart},
    )
    shown = {card["image"] for group in groups for card in group}
    return pressed[Action.OPEN] if pressed[Action.OPEN] in shown else None


@told
def _tell_apart() -> None:
    pair = str(st.session_state[Key.DUPLICATES][Action.APART]).split()
    collection = the_collection()
    if len(pair) == 2 and all(collection.find_image(one) is not None for one in pair):
        collection.decisions.tell_apart(*pair)
        st.toast(APART, icon=":material/call_split:")


def _write(here: CopiesAddress) -> None:
    usual = CopiesAddress()
    write_parameters(
        {
            Parameter.MODE: None if here.mode == usual.mode else here.mode,
            Parameter.BOUND: None if here.bound is None else str(here.bound),
            Parameter.KEEP: None if here.keep == usual.keep else here.keep,
            Parameter.PAGE: None if here.page == usual.page else str(here.page),
        }
    )


def _read_bound(text: str) -> float | None:
    try:
        bound = float(text)
    except ValueError:
        return None
    return bound if math.isfinite(bound) and 0 <= bound <= 1 else None
