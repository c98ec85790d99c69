"""Near-duplicates on the page: which are shown, as the URL says it, and their cards, drawn by a component of our own.

    mode=same subject    bound=0.8    keep=oldest    page=2

Rule: a value that makes no sense counts as not given; what the browser sends back is looked up among what is there.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import streamlit as st

from ui.address import read_page, write_parameters
from ui.keys import Action, Key, Parameter
from ui.resources import the_collection

MODES = ("same picture", "same subject")
RULES = ("largest", "oldest")
APART = "Told apart for good: they are in no group together any more."
JS = f"""
const make = (tag, fields, ...children) => {{
  const element = Object.assign(document.createElement(tag), fields);
  element.append(...children);
  return element;
}};
const press = (name, value, textContent, ariaLabel) =>
  make("button", {{ name, value, type: "button", textContent, ariaLabel }});
const draw = ({{ image, name, line, facts, folder, more, is_kept, medoid }}) => make("li", {{}},
  make("button", {{ name: "{Action.OPEN}", value: image, type: "button", ariaLabel: `Open ${{name}}` }},
    make("img", {{ src: `/t/${{image}}.webp`, alt: name, loading: "lazy", decoding: "async" }})),
  make("strong", {{ textContent: line }}), ...(is_kept ? [make("mark", {{ textContent: "keep" }})] : []),
  ...[name, facts, folder, more].filter(Boolean).map((text) => make("p", {{ textContent: text, title: text }})),
  ...(medoid
    ? [press("{Action.APART}", `${{medoid}} ${{image}}`, "Not a duplicate", `${{name}} is no duplicate`)] : []));
export default ({{ data, parentElement, setTriggerValue }}) => {{
  const place = parentElement.querySelector("div");
  const wanted = JSON.stringify(data);
  if (place.wanted !== wanted) {{
    place.wanted = wanted;
    place.replaceChildren(...data.map((group) => make("ul", {{}}, ...group.map(draw))));
  }}
  place.onclick = ({{ target }}) => {{
    const button = target.closest("button");
    if (button) setTriggerValue(button.name, button.value);
  }};
}};
"""


@dataclass(frozen=True, kw_only=True)
class CopiesAddress:
    """Which near-duplicates are shown."""

    mode: str = MODES[0]
    bound: float | None = None
    """How similar each is to the first of its group; None: as the mode means it here."""
    keep: str = RULES[0]
    page: int = 1


def read_copies() -> CopiesAddress:
    """What the URL says."""
    given = st.query_params
    mode, keep = given.get(Parameter.MODE), given.get(Parameter.KEEP)
    return CopiesAddress(
        mode=mode if mode in MODES else MODES[0],
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


def take_back() -> None:
    """What was told apart counts again. Raises: as `Decisions`."""
    decisions = the_collection().decisions
    for pair in decisions.list_apart():
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
