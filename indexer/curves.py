"""A training run as a picture: its loss beside a blind guess, the spread of its assignments, its rate, its speed.

Rule: it draws what the log says; matplotlib comes in inside the function, without pyplot.
"""

from collections.abc import Sequence
from pathlib import Path

from seer_model.durable import write_durably

COLOUR, REFERENCE = "#2f6f9f", "#a0a0a0"
WIDTH, HEIGHT = 7.0, 9.0
DOTS_PER_INCH = 130
PANELS = (
    ("loss", "blind_loss", "loss (grey: a blind guess)"),
    ("entropy", "blind_loss", "entropy of first choices, nats (grey: even)"),
    ("rate", None, "learning rate"),
    ("images_per_second", None, "images/s"),
    ("waiting_share", None, "part of the time in which the device waited for pictures"),
)


def plot_run(lines: Sequence[dict], path: Path) -> None:
    """Draw the figures of a run's log against its epochs; write a PNG.

    Args:
        lines: of log.jsonl, in order, at least one.
    Raises: OSError if it cannot be written; then `path` is what it was.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Paper

    paper = Paper(figsize=(WIDTH, HEIGHT), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(paper)
    epochs = [line["epoch"] for line in lines]
    dot = "o" if len(lines) == 1 else ""  # one point has no line
    for place, (name, reference, title) in zip(paper.subplots(len(PANELS), 1, sharex=True), PANELS, strict=True):
        if reference:
            place.plot(
                epochs, [line[reference] for line in lines], color=REFERENCE, linewidth=1, marker=dot, markersize=3
            )
        place.plot(epochs, [line[name] for line in lines], color=COLOUR, linewidth=1.4, marker=dot, markersize=4)
        place.set_title(title, loc="left", fontsize=9)
        place.tick_params(labelsize=8)
        place.spines[["top", "right"]].set_visible(False)
    place.set_xlabel("epoch", fontsize=9)
    write_durably(path, lambda aside: paper.savefig(aside, format="png"))
