"""The part of a picture that is meant: a box drawn on it, by a component of our own; two sliders do the same.

Rule: what the browser sends back counts only if it makes sense (`terms.read_part`).
"""

from dataclasses import replace

import streamlit as st

from ui.address import change_term
from ui.keys import Key
from ui.terms import LEAST, WHOLE, Part, TrayTerm, read_part

JS = f"""
export default ({{ data, parentElement, setTriggerValue }}) => {{
  const frame = parentElement.querySelector("div");
  const picture = frame.querySelector("img");
  const box = frame.querySelector("span");
  if (picture.src !== data.source) picture.src = data.source;
  picture.alt = data.name;
  const place = ([left, top, width, height]) => {{
    box.hidden = false;
    Object.assign(box.style, {{
      left: `${{left / 10}}%`, top: `${{top / 10}}%`, width: `${{width / 10}}%`, height: `${{height / 10}}%`,
    }});
  }};
  if (data.part) place(data.part); else box.hidden = true;
  const find = ({{ clientX, clientY }}) => {{
    const {{ left, top, width, height }} = picture.getBoundingClientRect();
    const within = (value) => Math.max(0, Math.min({WHOLE}, Math.round(value * {WHOLE})));
    return [within((clientX - left) / width), within((clientY - top) / height)];
  }};
  let from = null, drawn = null;
  frame.onpointerdown = (event) => {{
    from = find(event);
    drawn = null;
    frame.setPointerCapture(event.pointerId);
    event.preventDefault();
  }};
  frame.onpointermove = (event) => {{
    if (!from) return;
    const to = find(event);
    drawn = [0, 1].map((side) => Math.min(from[side], to[side]))
      .concat([0, 1].map((side) => Math.abs(from[side] - to[side])));
    place(drawn);
  }};
  frame.onpointerup = () => {{
    if (drawn && drawn[2] >= {LEAST} && drawn[3] >= {LEAST}) setTriggerValue("part", drawn.join(","));
    else if (data.part) place(data.part);
    else box.hidden = true;
    from = null;
  }};
  frame.onpointercancel = frame.onpointerup;
}};
"""
HTML = "<div><img draggable='false'><span hidden></span></div>"


def choose_part(place: int, term: TrayTerm, source: str, name: str) -> None:
    """A picture to draw a box on. `source`: where the browser finds it."""
    component = st.components.v2.component(Key.PART, html=HTML, js=JS, isolate_styles=False)
    key = f"{Key.PART}-{place}"
    with st.container(key=f"{key}-box"):
        component(
            key=key,
            data={"source": source, "name": f"Draw a box on {name}", "part": term.part and list(term.part)},
            on_part_change=lambda: _take_drawn(place, term, key),
        )
    left, top, width, height = term.part or Part(0, 0, WHOLE, WHOLE)
    for axis, first, size in (("across", left, width), ("down", top, height)):
        slider = f"{key}-{axis}"
        st.session_state[slider] = (first / WHOLE, (first + size) / WHOLE)
        st.slider(
            f"From where to where {axis}", 0.0, 1.0, key=slider, step=0.01,
            on_change=_take_slid, args=(place, term, key),
        )  # fmt: skip
    if term.part:
        st.button("The whole picture", key=f"{key}-whole", on_click=change_term, args=(place, replace(term, part=None)))


def _take_drawn(place: int, term: TrayTerm, key: str) -> None:
    numbers = str(st.session_state[key]["part"]).split(",")
    if len(numbers) == len(Part._fields) and all(one.isascii() and one.isdigit() for one in numbers):
        _change(place, term, read_part(numbers))


def _take_slid(place: int, term: TrayTerm, key: str) -> None:
    spans = [[round(end * WHOLE) for end in st.session_state[f"{key}-{axis}"]] for axis in ("across", "down")]
    (left, right), (top, bottom) = spans
    _change(place, term, read_part((left, top, right - left, bottom - top)))


def _change(place: int, term: TrayTerm, part: Part | None) -> None:
    change_term(place, replace(term, part=part))
