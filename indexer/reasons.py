"""Why a file cannot be searched: the kinds of reasons, told by their own words, and what a person can do about each.

A reason is one sentence, written where the file was read; a reason that ends in `; what to do.` says it itself, and
better than its kind could.

Rule: what no kind knows is told as it stands, under the last kind.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """Reasons that have the same remedy. `signs`: words of which each of them has one."""

    name: str
    advice: str
    signs: tuple[str, ...] = ()


PENDING = Kind("Not read yet", "Run seer build.")
"""No failure: seen, and to be read or published by the next build."""
OTHER = Kind("Other", "Look at the reason; when it is put right, run seer build --retry-failed.")
KINDS = (
    Kind("Empty", "Restore it from a copy.", ("file is empty",)),
    Kind(
        "Not a picture",
        "Nothing, if it is none. Else open it in the program that made it and save it as JPEG or PNG.",
        ("is no picture", "there is nothing in it"),
    ),
    Kind("Cut short", "Copy it again from where it came.", ("is cut short",)),
    Kind("Damaged", "Open it in another program and save it anew.", ("is damaged", "decoder failed")),
    Kind(
        "Format not supported",
        "Install what the reason names and run seer build, or convert it to JPEG or PNG.",
        ("cannot be decoded", "pictures need", "holds no preview"),
    ),
    Kind(
        "Too large",
        "Make it smaller, or raise the limit with --max-megapixels and run seer build --retry-failed.",
        ("megapixels", "larger than allowed", "are not read", "memory", "took longer"),
    ),
    Kind(
        "Out of reach",
        "Put that right and run seer build: it looks again at each of them.",
        ("may not be read", "vanished", "could not be read", "changed while it was read", "regular file"),
    ),
    Kind("No embedding", "Choose another model with seer build --model.", ("no finite embedding",)),
    OTHER,
    PENDING,
)
"""In the order in which they are looked for; pending last, as it is none."""
QUOTED = re.compile(r"\(.*\)")
"""What other programs said, which may have any word."""
BY_NAME = {kind.name: kind for kind in KINDS}
BROKEN_OFF = "decoder failed"
"""Begins a reason whose end is a decoder's own, and says nothing of what to do."""
UNREAD = "It has not been read yet."
UNPUBLISHED = "Its content is known, and not in the generation that answers now."


def find_kind(reason: str | None) -> str:
    """The name of a reason's kind; None: that of files that are pending."""
    if reason is None:
        return PENDING.name
    own_words = QUOTED.sub("", reason)
    return next((kind.name for kind in KINDS if any(sign in own_words for sign in kind.signs)), OTHER.name)


def split_reason(reason: str) -> tuple[str, str]:
    """What is wrong, and what to do: the reason's own end, or what its kind says."""
    wrong, semicolon, remedy = reason.rpartition("; ")
    if not semicolon or BROKEN_OFF in wrong:
        return reason, BY_NAME[find_kind(reason)].advice
    return f"{wrong}.", remedy[0].upper() + remedy[1:]
