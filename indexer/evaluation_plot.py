"""An evaluation as a picture: bars with their intervals, the model's beside the reference's.

Rule: matplotlib comes in here, inside the functions, and without pyplot: no window, no state that outlives a call.
"""

import importlib.util
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from indexer.evaluation import BY_MODEL, BY_PIXELS, RECALL_AT_1, Crowd, Evaluation, Figure
from indexer.evaluation_text import name_crowd, name_edit, name_model
from seer_model.durable import write_durably
from seer_model.errors import SettingsError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIX = ".png"
COLOURS = {BY_MODEL: "#2f6f9f", BY_PIXELS: "#c9c9c9"}
BAR, GROUP = 0.38, 0.26
"""Height of a bar, of a row's 1; and of a row on paper, in inches."""
WIDTH, MARGIN = 7.0, 1.1
DOTS_PER_INCH = 130
TITLE_LETTERS = 80


def require_plot(path: Path) -> None:
    """Refuse a place where no plot could be written, before the minutes that its figures take.

    Raises: SettingsError.
    """
    if path.suffix.lower() != SUFFIX:
        raise SettingsError(f"--plot is {path}; the plot is a PNG, so give a name that ends in {SUFFIX}.")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise SettingsError(f"--plot is {path}; give a file in a folder that is there.")
    if importlib.util.find_spec("matplotlib") is None:
        raise SettingsError("--plot needs matplotlib, which is not installed. Run: pip install matplotlib")


def plot_evaluation(found: Evaluation, path: Path) -> None:
    """Draw the figures with labels and, for each crowd, recall@1 per edit and strength; write a PNG.

    Raises: SettingsError if it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Paper

    panels = _list_panels(found)
    heights = [len(figures) * GROUP + MARGIN for _, figures in panels]
    paper = Paper(figsize=(WIDTH, sum(heights)), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(paper)
    axes = paper.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for place, (title, figures) in zip(axes, panels, strict=True):
        _draw_panel(place, found, title, figures)
    # Above the panels: wherever else it may lie, there can be bars.
    paper.legend(*axes[0].get_legend_handles_labels(), fontsize=8, ncols=2, loc="outside upper right")
    try:
        write_durably(path, lambda aside: paper.savefig(aside, format="png"))
    except OSError as error:
        raise SettingsError(f"The plot cannot be written to {path} ({error.strerror or error}).") from error


def _list_panels(found: Evaluation) -> list[tuple[str, list[Figure]]]:
    """Title and the model's figures of each panel."""
    labelled = found.list_figures(rows=BY_MODEL, crowd=None)
    panels = [(f"By label, {labelled[0].queries:,} queries", labelled)] if labelled else []
    return panels + [(_name_panel(found, crowd), _list_recalls(found, crowd)) for crowd in found.crowds]


def _name_panel(found: Evaluation, crowd: Crowd) -> str:
    return textwrap.fill(f"{RECALL_AT_1} of edited copies, {name_crowd(found, crowd)}", TITLE_LETTERS)


def _list_recalls(found: Evaluation, crowd: Crowd) -> list[Figure]:
    return found.list_figures(rows=BY_MODEL, crowd=crowd.name, measure=RECALL_AT_1)


def _draw_panel(place: "Axes", found: Evaluation, title: str, figures: list[Figure]) -> None:
    for shift, rows in ((-BAR / 2, BY_MODEL), (BAR / 2, BY_PIXELS)):
        _draw_bars(place, [_find_same(found, figure, rows) for figure in figures], shift, rows, _name_rows(found, rows))
    place.set_yticks(range(len(figures)), [name_edit(one) if one.edit else one.measure for one in figures], fontsize=8)
    place.invert_yaxis()
    place.set_xlim(0, 1)
    place.set_title(title, fontsize=9, loc="left")
    place.grid(axis="x", alpha=0.3)
    place.set_axisbelow(True)


def _name_rows(found: Evaluation, rows: str) -> str:
    # A name that begins with "_" is not put in the legend, and "$" begins a formula.
    return "by " + (name_model(found) if rows == BY_MODEL else BY_PIXELS).replace("$", r"\$")


def _find_same(found: Evaluation, figure: Figure, rows: str) -> Figure:
    same = {name: getattr(figure, name) for name in ("measure", "edit", "strength", "crowd")}
    return found.find_figure(rows=rows, **same)


def _draw_bars(place: "Axes", figures: list[Figure], shift: float, rows: str, name: str) -> None:
    values = [figure.value for figure in figures]
    below = [figure.value - figure.low for figure in figures]
    above = [figure.high - figure.value for figure in figures]
    places = [number + shift for number in range(len(figures))]
    style = {"ecolor": "#444444", "capsize": 1.5, "error_kw": {"elinewidth": 0.8}}
    place.barh(places, values, BAR, xerr=(below, above), color=COLOURS[rows], label=name, **style)
