"""What the keyboard, the clipboard and a drop anywhere do, by a component of our own that draws nothing.

    /      to the place where pictures are chosen        Esc    back to the page before, as long as it is ours
    paste  and drop: the picture goes to that same place, as if it had been chosen there

On a page that has no such place the search is opened first.

Rule: not while somebody types, and not over a dialog; what is pasted takes the way that every upload takes.
"""

import streamlit as st

from ui.keys import Key

JS = """
const isTyping = (target) => target.closest?.("input:not([type=file]), textarea, select, [contenteditable=true]");
const isCovered = () => document.querySelector('[role="dialog"]');
const place = () => document.querySelector('[data-testid="stFileUploader"]');

const whenThere = (act, tries = 100) => {
  if (place()) act(place());
  else if (tries) setTimeout(() => whenThere(act, tries - 1), 50);
};
const goThere = (act) => {
  if (!place()) document.querySelector(".st-key-MENU a")?.click();
  whenThere(act);
};
const hand = (files) => {
  const pictures = [...files].filter(({ type }) => !type || type.startsWith("image/"));
  if (!pictures.length) return false;
  const carried = new DataTransfer();
  pictures.forEach((picture) => carried.items.add(picture));
  goThere((there) => {
    const input = there.querySelector("input[type=file]");
    input.files = carried.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  });
  return true;
};
const goBack = () => {
  // A browser without the navigation API cannot say whose page is before.
  if (window.navigation ? window.navigation.canGoBack : history.length > 1) history.back();
};

const onKey = (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || isTyping(event.target) || isCovered()) return;
  if (event.key === "/") {
    goThere((there) => there.querySelector("button")?.focus());
    event.preventDefault();
  }
  if (event.key === "Escape" && !document.querySelector('[data-baseweb="popover"]')) goBack();
};
const onPaste = (event) => {
  if (!isTyping(event.target) && event.clipboardData?.files.length && hand(event.clipboardData.files)) {
    event.preventDefault();
  }
};
const isOurs = (event) => event.dataTransfer?.types.includes("Files") && !place()?.contains(event.target);
const onOver = (event) => { if (isOurs(event)) event.preventDefault(); };
const onDrop = (event) => {
  if (!isOurs(event)) return;
  event.preventDefault();
  hand(event.dataTransfer.files);
};

export default () => {
  const heard = { keydown: onKey, paste: onPaste, dragover: onOver, drop: onDrop };
  Object.entries(heard).forEach(([name, listen]) => document.addEventListener(name, listen));
  return () => Object.entries(heard).forEach(([name, listen]) => document.removeEventListener(name, listen));
};
"""


def listen() -> None:
    """Let the page hear them."""
    st.components.v2.component("shortcuts", js=JS.replace("MENU", Key.MENU))(key=Key.SHORTCUTS)
