"""A table of sentences, drawn by a component of our own, whose part in the browser is `JS`.

Streamlit's table is a drawing in a frame: it cuts what is longer than a column, and shows two columns on a phone. Here
a row grows with its text, and on a narrow page its cells stand below one another (`theme`).

Rule: what a cell holds is set as text, never read as HTML.
"""

from collections.abc import Sequence

import streamlit as st

from ui.keys import Key

JS = """
const make = (tag, fields, ...children) => {
  const element = Object.assign(document.createElement(tag), fields);
  element.append(...children);
  return element;
};

const draw = (row) => make("tr", {}, ...Object.entries(row).map(([name, text]) => {
  const cell = make("td", { textContent: text });
  cell.dataset.name = name;
  return cell;
}));

export default ({ data, parentElement }) => {
  const table = parentElement.querySelector("table");
  const wanted = JSON.stringify(data);
  if (table.wanted === wanted) return;
  table.wanted = wanted;
  const names = Object.keys(data[0]).map((name) => make("th", { scope: "col", textContent: name }));
  table.replaceChildren(make("thead", {}, make("tr", {}, ...names)), make("tbody", {}, ...data.map(draw)));
};
"""


def show_table(rows: Sequence[dict[str, str]]) -> None:
    """Rows of one form, one at least, by the names of their columns."""
    st.components.v2.component(Key.TABLE, html="<table></table>", js=JS, isolate_styles=False)(key=Key.TABLE, data=rows)
