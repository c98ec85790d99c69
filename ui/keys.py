"""The names of widgets and of the parameters in the URL.

Rule: a name is written here once; views and tests use it from here, and the style sheet selects by it.
"""

from enum import StrEnum


class Key(StrEnum):
    """A widget, or a container that the style sheet knows."""

    UPLOAD = "upload"
    COUNT = "count"
    AT_LEAST = "at_least"
    PAGE = "page"
    START_OVER = "start_over"
    OPEN_QUERY = "open_query"
    NOT_KEPT = "not_kept"
    FORGET = "forget"
    FORGET_ALL = "forget_all"
    KIND = "kind"
    LIST_PAGE = "list_page"
    FAILURE_TABLE = "failure_table"
    GALLERY = "gallery"
    RAIL = "rail"
    CONTROLS = "controls"
    QUERY = "query"
    FOOTER = "footer"
    LARGE = "large"
    LARGE_SIMILAR = "large_similar"
    UPLOADS_SO_FAR = "uploads_so_far"
    SCROLL = "scroll"


class Parameter(StrEnum):
    """A parameter of the page's URL."""

    IMAGE = "image"
    QUERY = "query"
    COUNT = "count"
    AT_LEAST = "at_least"
    PAGE = "page"
    KIND = "kind"


def key_of_similar(content_hash: str) -> str:
    """The button over a thumbnail that searches on from it."""
    return f"similar-{content_hash[:16]}"


def key_of_open(content_hash: str) -> str:
    """The button under a thumbnail that opens the original."""
    return f"open-{content_hash[:16]}"
