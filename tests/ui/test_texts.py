"""Names and sentences come out in the page as they are on disk."""

import html
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ui.texts import UNSEEN, UNSEEN_BREAK, quote, show_path, show_size

READER = MarkdownIt("gfm-like", {"linkify": False, "html": True})
SIGNS = st.sampled_from("ab _*`[]()<>!~$#|&:;\\\"'-=+.^{}/\n\t190@w")
# What is a mark at the beginning of a line only, or only as a whole.
WHOLES = st.sampled_from(["\n", "\n1. ", "\n- ", "+ ", "---", "===", "    ", "```\n", "\n> ", "\n|-|\n", "<p>", "# "])
MARKED = st.lists(SIGNS | WHOLES, max_size=30).map("".join)


def read(markdown: str) -> str:
    """The text that a Markdown reader shows; marks that it obeyed would be missing, or would be tags."""
    shown = READER.render(markdown)
    assert not shown or (shown.startswith("<p>") and shown.endswith("</p>\n"))
    return html.unescape(shown[len("<p>") : -len("</p>\n")].replace("<br />\n", "\n"))


@given(MARKED)
def test_a_markdown_reader_shows_quoted_text_as_it_was(text: str):
    # Blanks at the ends of lines are not shown by any reader.
    tidy = re.sub(r"[ \t]*\n", "\n", text.rstrip())
    assert read(quote(tidy)).replace(UNSEEN_BREAK, "") == tidy


@pytest.mark.parametrize("linked", ["www.evil.com", "WWW.evil.com", "a@evil.com", "http://evil.com", "xmpp://x@y.z"])
def test_what_readers_make_links_of_by_themselves_is_broken_up(linked: str):
    # As the extension for GitHub's Markdown finds them; the walk in a browser has the real reader.
    found = re.compile(r"www\.|\w@\w|\w://", re.IGNORECASE)
    assert found.search(linked) and not found.search(quote(linked))
    assert quote(linked).replace(UNSEEN_BREAK, "").replace("\\", "") == linked


@pytest.mark.parametrize("drawn", [":smile:", ":+1:", ":material/home:", "<->", "->", "<-", "--", ">=", "<=", "~="])
def test_what_streamlit_draws_by_itself_is_broken_up(drawn: str):
    assert drawn not in quote(f"a {drawn} b").replace("\\", "") or "/" in drawn
    assert quote(f"a {drawn} b").replace("\\", "").replace(UNSEEN_BREAK, "") == f"a {drawn} b"


@pytest.mark.parametrize("mark", [":red[x]", ":blue-background[x]", "a:small[x]", ":material", "::red[x]"])
def test_a_colour_is_no_colour_but_its_name(mark: str):
    assert not re.search(r"(?<!\\):[a-z]", quote(mark))
    assert read(quote(mark)) == mark


@pytest.mark.parametrize(
    "text", ["seer build PICTURES --collection /data/photos", r"C:\Users\me", "3:45 - 4:00", "a-b"]
)
def test_a_command_can_still_be_copied(text: str):
    assert quote(text).replace("\\\\", "\\") == text


def test_a_name_that_is_not_utf8_or_hides_something_is_shown_without_it():
    assert show_path(Path(os.fsdecode(b"caf\xe9.jpg"))) == f"caf{UNSEEN}.jpg"
    turned = "photo\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe"
    assert show_path(turned) == f"photo{UNSEEN}gpj.exe"
    assert show_path("two\nlines.jpg") == f"two{UNSEEN}lines.jpg"
    assert show_path("été 東京.jpg") == "été 東京.jpg"


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 KB"), (38_400, "38 KB"), (4_200_000, "4.2 MB")],
)
def test_sizes_are_short(size_bytes: int, shown: str):
    assert show_size(size_bytes) == shown
