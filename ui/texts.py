"""Numbers, paths and sentences as a person reads them.

Rule: what comes from a disk or a program is plain text; nothing in it is ever read as Markdown or HTML.
"""

import os
import re
from datetime import datetime
from pathlib import Path

from indexer.urls import spell

UPLOAD_MB = 100
"""The largest picture that can be dropped into the page."""
BUG = "Something went wrong in the program itself. What happened stands in the terminal that runs seer ui."
UNSEEN = "\N{REPLACEMENT CHARACTER}"
UNSEEN_BREAK = "\N{WORD JOINER}"
# A colon before a word is a mark too: `:red[...]` is a colour.
MARKDOWN = re.compile(r"([\\`*_\[\]<>$~#|&]|:(?=[A-Za-z]))")
# A reader makes links of these by itself; an unseen sign inside stops it, where a backslash would not.
LINKED = re.compile(r"www(?=\.)|@(?=\S)|:(?=//)", re.IGNORECASE)
# A line that begins like this is code, an item of a list, makes the line before it a heading, or ends a paragraph.
BEGUN = re.compile(r"^(?=[ \t\n]|[-+=:]+(?:\s|$)|\d+[.)](?:\s|$))", re.MULTILINE)
# Streamlit draws these after the Markdown is read, where no backslash can stop it: names of emoji, and arrows.
DRAWN = re.compile(r":(?=[\w+-]+:)|(?<!\S)(?:<-(?=>)|[-<>~](?=[->=](?!\S)))")


def show_path(path: Path | str) -> str:
    """A path on one line; what is not UTF-8 or not printable becomes one sign (a turned-round name misleads)."""
    text = os.fsencode(spell(path)).decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else UNSEEN for letter in text)


def show_size(size_bytes: int) -> str:
    """A file's size: 512 bytes, 38 KB, 4.2 MB (1 KB = 1000 bytes)."""
    if size_bytes < 1000:
        return f"{size_bytes} bytes"
    if size_bytes < 1_000_000:
        return f"{size_bytes / 1000:.0f} KB"
    return f"{size_bytes / 1_000_000:.1f} MB"


def show_date(when: datetime) -> str:
    """A day: 25 December 2026."""
    return f"{when.day} {when:%B %Y}"


def quote(text: str) -> str:
    """Text for a place that reads Markdown, so that it comes out as it is, line by line."""
    for drawn in (DRAWN, LINKED, BEGUN):
        text = drawn.sub(rf"\g<0>{UNSEEN_BREAK}", text)
    return MARKDOWN.sub(r"\\\1", text).replace("\n", "  \n")
