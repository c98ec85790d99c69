"""How a training run looks: one block that is drawn again in a terminal, lines elsewhere."""

import io
from dataclasses import replace

import pytest
from click.testing import CliRunner
from rich.console import Console

from indexer import terminal
from indexer.cli import cli
from indexer.terminal import LearningLines, _LearningBlock, show_learning
from seer_model.vigil import Figures
from tests.indexer.screen import read_screen

FIGURES = Figures(
    step=1240,
    steps=7500,
    epoch=2.48,
    loss=4.2381,
    blind_loss=5.7038,
    entropy=5.641,
    largest_share=0.01,
    rate=1.98,
    images_per_second=197.2,
    waiting_share=0.124,
    seconds=800,
    remaining_seconds=4200,
    bad=3,
)
LONGEST = replace(
    FIGURES,
    step=123_456,
    steps=1_234_567,
    epoch=123.45,
    loss=11.2345,
    rate=1.23e-5,
    images_per_second=12345,
    waiting_share=1.0,
    remaining_seconds=3600 * 123.5,
    bad=12_345,
)


def make_console(*, is_terminal: bool = True, columns: int = 80) -> Console:
    return Console(
        file=io.StringIO(), force_terminal=is_terminal, force_interactive=is_terminal, width=columns, height=24
    )


def show(told: list[Figures | str], *, columns: int = 80) -> list[str]:
    """What stands in the terminal after a run told this, without the bar."""
    console = make_console(columns=columns)
    block = _LearningBlock(console)
    for one in told:
        (block.on_message if isinstance(one, str) else block.on_figures)(one)
    block.stop()
    lines = read_screen(console.file.getvalue(), columns=columns)
    return [line.lstrip("━╸╺ ") for line in lines if line]


# --- in a terminal -----------------------------------------------------------------------------------------------


def test_a_terminal_shows_the_last_figures_once_below_the_messages():
    first = replace(FIGURES, step=20, loss=5.9, bad=0)
    lines = show(["64,000 pictures", first, "going on from step 20 of 7,500", FIGURES])
    assert lines == [
        "64,000 pictures",
        "going on from step 20 of 7,500",
        "1,240/7,500  epoch 2.48  1 h 10 min left  3 bad",
        "loss 4.238 (blind 5.70)  entropy 5.64  rate 1.98  197 images/s  device waits 12%",
    ]


def test_a_block_is_two_lines_of_80_columns_at_most_whatever_the_figures():
    lines = show([FIGURES, LONGEST, FIGURES, LONGEST])
    assert len(lines) == 2 and max(map(len, lines)) <= 80
    assert lines[0] == "123,456/1,234,567  epoch 123.45  123 h 30 min left  12,345 bad"
    assert lines[1].startswith("loss 11.235 (blind 5.70)  entropy 5.64  rate 1.23e-05  12345 images/s")


def test_a_narrow_terminal_cuts_the_lines_instead_of_wrapping_them():
    lines = show([FIGURES, LONGEST], columns=40)
    assert len(lines) == 2


def test_the_bar_shows_how_far_the_run_is():
    console = make_console()
    block = _LearningBlock(console)
    block.on_figures(replace(FIGURES, step=75, steps=100))
    block.stop()
    assert read_screen(console.file.getvalue())[0].startswith("━" * 15 + "╺" + "━" * 4 + " 75/100")


def test_a_run_that_is_refused_at_once_leaves_its_messages_alone():
    assert show(["8 pictures"]) == ["8 pictures"]
    assert show([]) == []


def test_a_long_path_is_not_broken_and_brackets_are_no_markup():
    path = "curves: /" + "a" * 100 + "/[bold]m.run/curves.png"
    lines = show([path, FIGURES])
    assert "".join(lines).startswith(path)


def test_the_end_of_a_run_has_no_time_left():
    assert "left" not in show([replace(FIGURES, step=7500, remaining_seconds=0)])[0]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_who_watches_sees_a_block_and_a_file_gets_lines(monkeypatch: pytest.MonkeyPatch, is_terminal: bool):
    console = make_console(is_terminal=is_terminal)
    monkeypatch.setattr(terminal, "Console", lambda stderr: console)
    with show_learning() as screen:
        assert isinstance(screen, _LearningBlock) == is_terminal
        screen.on_figures(FIGURES)
        screen.on_figures(FIGURES)
    written = console.file.getvalue()
    assert ("\x1b" in written) == is_terminal
    assert len([line for line in read_screen(written) if "loss" in line]) == (1 if is_terminal else 2)


# --- elsewhere ---------------------------------------------------------------------------------------------------


def test_a_line_says_all_that_the_block_says():
    console = make_console(is_terminal=False)
    LearningLines(console).on_figures(FIGURES)
    assert console.file.getvalue() == (
        "step 1,240/7,500  epoch 2.48  1 h 10 min left  3 bad  loss 4.238 (blind 5.70)  entropy 5.64  rate 1.98  "
        "197 images/s  device waits 12%\n"
    )


def test_what_did_not_happen_is_not_said():
    console = make_console(is_terminal=False)
    LearningLines(console).on_figures(replace(FIGURES, waiting_share=0.009, bad=0))
    assert "bad" not in console.file.getvalue() and "device waits" not in console.file.getvalue()
    assert console.file.getvalue().endswith("images/s  pictures wait\n")


def test_without_sources_the_usage_is_shown():
    refused = CliRunner().invoke(cli, ["pretrain", "--output", "m.safetensors"])
    assert refused.exit_code == 2 and "Missing argument 'SOURCES...'" in refused.stderr
