"""An evaluation as a person reads it in a terminal: aligned tables, each figure with its interval.

Rule: text in, text out of nothing but the evaluation; who prints it is not decided here.
"""

from collections.abc import Iterator, Sequence

from indexer.evaluation import (
    ALL_EDITS,
    BY_MODEL,
    BY_PIXELS,
    MEAN_AVERAGE_PRECISION,
    RECALL_AT_1,
    Crowd,
    Evaluation,
    Figure,
)

SHOWN_LEFT_OUT = 20
INTERVALS = "In brackets: where the mean would lie with 95 % if other pictures of this kind had been asked for."


def show_evaluation(found: Evaluation) -> str:
    """Everything that was found, in lines."""
    parts = [_show_head(found), _show_labelled(found), *(_show_crowd(found, crowd) for crowd in found.crowds)]
    parts += [INTERVALS, "\n".join(_list_notes(found))]
    return "\n\n".join(part for part in parts if part)


def name_crowd(found: Evaluation, crowd: Crowd) -> str:
    """What copies were searched among, in words."""
    among = f"among {found.pictures:,} originals"
    if not crowd.distractors and crowd == found.crowds[0]:
        return among
    return f"{among} and {crowd.distractors:,} {crowd.name.removeprefix('with ')}"


def _show_head(found: Evaluation) -> str:
    model = found.model
    lines = [f"Model {model['model']}; {_count(found.pictures, 'picture')}"]
    if found.labels:
        lines[0] += f", {found.labelled:,} of them with one of {found.labels:,} labels"
    if found.edited:
        lines[0] += f"; copies made of {found.edited:,}"
    return lines[0]


def _show_labelled(found: Evaluation) -> str:
    figures = found.list_figures(rows=BY_MODEL, crowd=None)
    if not figures:
        return ""
    rows = [("", "", name_model(found), BY_PIXELS)]
    for figure in figures:
        reference = found.find_figure(rows=BY_PIXELS, crowd=None, measure=figure.measure)
        rows.append(("", figure.measure, show_figure(figure), show_figure(reference)))
    queries = f"{_count(figures[0].queries, 'query', 'queries')}; P@1 by chance {found.chance:.3f}"
    return f"By label, each picture searched among the others ({queries})\n{_align(rows)}"


def _show_crowd(found: Evaluation, crowd: Crowd) -> str:
    rows = [("", "", f"{RECALL_AT_1}", MEAN_AVERAGE_PRECISION, f"{RECALL_AT_1} by {BY_PIXELS}")]
    for recall in found.list_figures(rows=BY_MODEL, crowd=crowd.name, measure=RECALL_AT_1):
        same = {"crowd": crowd.name, "edit": recall.edit, "strength": recall.strength}
        precision = found.find_figure(rows=BY_MODEL, measure=MEAN_AVERAGE_PRECISION, **same)
        reference = found.find_figure(rows=BY_PIXELS, measure=RECALL_AT_1, **same)
        rows.append(("", name_edit(recall), *map(show_figure, (recall, precision, reference))))
    return f"Edited copies, searched {name_crowd(found, crowd)}\n{_align(rows)}"


def _list_notes(found: Evaluation) -> Iterator[str]:
    yield from found.notes
    if found.same:
        yield f"{_count(found.same, 'file')} left out: the content is that of another picture here."
    if found.passed_over:
        yield (
            f"{_count(found.passed_over, 'distractor')} passed over: of another size than asked for, "
            "or with the content of an original."
        )
    if found.left_out:
        yield f"{_count(len(found.left_out), 'picture')} left out:"
        yield from (f"  {one.name}: {one.reason}" for one in found.left_out[:SHOWN_LEFT_OUT])
    if len(found.left_out) > SHOWN_LEFT_OUT:
        yield f"  ... and {len(found.left_out) - SHOWN_LEFT_OUT:,} more"


def show_figure(figure: Figure | None) -> str:
    """A value with its interval: 0.268 [0.235, 0.302]."""
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]" if figure else ""


def name_edit(figure: Figure) -> str:
    """An edit with its strength: crop 60 %."""
    return ALL_EDITS if figure.edit == ALL_EDITS else f"{figure.edit} {figure.strength}"


def name_model(found: Evaluation) -> str:
    """The model's name; of a file, the last part: a whole path would push columns apart."""
    return str(found.model["model"]).replace("\\", "/").rpartition("/")[2]


def _align(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _count(number: int, word: str, words: str | None = None) -> str:
    return f"{number:,} {word if number == 1 else words or word + 's'}"
