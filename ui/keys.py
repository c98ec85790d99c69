"""The names of widgets and of the parameters in the URL.

Rule: a name is written here once; views and tests use it from here, and the style sheet selects by it.
"""

from enum import StrEnum


class Key(StrEnum):
    """A widget, or a container that the style sheet knows."""

    MENU = "menu"
    UPLOAD = "upload"
    COUNT = "count"
    AT_LEAST = "at_least"
    AT_MOST = "at_most"
    EXACT = "exact"
    PAGE = "page"
    START_OVER = "start_over"
    OPEN_QUERY = "open_query"
    OWN = "own"
    FORGET = "forget"
    FORGET_ALL = "forget_all"
    KIND = "kind"
    LIST_PAGE = "list_page"
    TABLE = "table"
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


class Action(StrEnum):
    """What a card of the gallery is pressed for; the name of its button."""

    SIMILAR = "similar"
    OPEN = "open"


class Parameter(StrEnum):
    """A parameter of the page's URL."""

    IMAGE = "image"
    QUERY = "query"
    COUNT = "count"
    AT_LEAST = "at_least"
    AT_MOST = "at_most"
    EXACT = "exact"
    PAGE = "page"
    KIND = "kind"
