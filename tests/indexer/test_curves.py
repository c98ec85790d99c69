"""The picture of a run: drawn from its log, whatever the log is like."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.curves import DOTS_PER_INCH, HEIGHT, PANELS, WIDTH, plot_run

CURVE = (0x2F, 0x6F, 0x9F)
"""Colour of what was measured."""


def make_log(looks: int, **fixed: float) -> list[dict]:
    """A run whose loss falls from 6 to 4."""
    course = np.linspace(0, 1, looks)
    return [
        {
            "step": 20 * number,
            "epoch": number / 3,
            "loss": 6 - 2 * float(part),
            "blind_loss": 5.7,
            "entropy": 4 + float(part),
            "rate": 2 - float(part),
            "images_per_second": 190 + 10 * float(part),
            "waiting_share": 0.5 - 0.4 * float(part),
        }
        | fixed
        for number, part in enumerate(course, 1)
    ]


def draw_log(lines: list[dict], path: Path) -> np.ndarray:
    """(H, W) whether a pixel has the colour of the curves."""
    plot_run(lines, path)
    with Image.open(path) as picture:
        assert (picture.format, picture.size) == ("PNG", (round(WIDTH * DOTS_PER_INCH), round(HEIGHT * DOTS_PER_INCH)))
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    return (np.abs(pixels - CURVE) < 12).all(2)


def list_panels(is_curve: np.ndarray) -> list[np.ndarray]:
    return np.array_split(is_curve, len(PANELS))


def find_ends(panel: np.ndarray) -> tuple[float, float]:
    """Height of a curve at its left and right end, in pixels from the panel's bottom."""
    rows, columns = np.nonzero(panel)
    heights = panel.shape[0] - rows
    return heights[columns == columns.min()].mean(), heights[columns == columns.max()].mean()


def test_each_panel_shows_the_course_of_its_figure(tmp_path: Path):
    ends = [find_ends(panel) for panel in list_panels(draw_log(make_log(50), tmp_path / "c.png"))]
    rises = [left < right for left, right in ends]
    assert rises == [False, True, False, True, False], "loss, entropy, rate, images/s, waiting"
    assert all(abs(left - right) > 50 for left, right in ends)


@pytest.mark.parametrize("looks", [1, 2])
def test_a_short_log_is_drawn_so_that_it_can_be_seen(tmp_path: Path, looks: int):
    for panel in list_panels(draw_log(make_log(looks), tmp_path / "c.png")):
        assert panel.sum() > 10


def test_a_loss_that_stays_is_a_level_line(tmp_path: Path):
    loss = list_panels(draw_log(make_log(50, loss=5.7), tmp_path / "c.png"))[0]
    left, right = find_ends(loss)
    assert left == right and np.nonzero(loss)[1].size > 500


def test_a_run_in_pieces_is_one_curve_without_gap(tmp_path: Path):
    # A piece that was stopped between two looks ends with a look of its own, so the distances differ.
    lines = make_log(50)
    del lines[10:20], lines[25:27]
    for panel in list_panels(draw_log(lines, tmp_path / "c.png")):
        columns = np.flatnonzero(panel.any(0))
        assert np.array_equal(columns, np.arange(columns[0], columns[-1] + 1))


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path: Path):
    plot_run(make_log(3), tmp_path / "c.png")
    before = (tmp_path / "c.png").read_bytes()
    with pytest.raises(OSError):
        plot_run(make_log(9), tmp_path / "c.png" / "below.png")
    assert (tmp_path / "c.png").read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["c.png"]
