"""What pooling, whitening, the size of an embedding and several sizes of the picture do, measured on the same pictures.

    python -m benchmarks.readouts PHOTOS --labels labels.csv --others OTHERS.tar --fit PICTURES [--scales]

The figures are those of `seer evaluate`: the same pictures, edits and measures. Each picture goes through the network
once, and its maps are read in every way; so a line here is what `seer evaluate --model` says of the model that is named
in it, fitted layers being those of `seer whiten PICTURES` with as many `--crops`.

Differences to the first line are paired: each picture's figure less its figure there, averaged; their interval is the
bootstrap of those differences, much narrower than that of two separate figures.

Rule: what is fitted sees the pictures of --fit only.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor

from indexer.edits import choose_edits
from indexer.evaluate import _draw, _Evaluating, _list_pictures
from indexer.evaluation import EvaluateSettings
from indexer.metrics import bootstrap_interval, count_nearer, measure_retrieval, rank_originals
from indexer.pile import list_sources, open_pile
from indexer.terminal import show_progress
from seer_model.backbone import _resize, open_backbone
from seer_model.checkpoint import Checkpoint, read_checkpoint
from seer_model.outputs import OWN, POOLINGS, SCALES, UNNAMED, Asked
from seer_model.poolings import normalise, pool_maps
from seer_model.readout import Readout, choose_output
from seer_model.whitening import COPIES, SIDE_PX, find_fit, fit_whitening, look_at
from seer_model.zoo import find_model

BATCH = 8
SIZES = (512, 256, 128)
MEASURES = ("P@1", "mAP", "copies")
KINDS = ("crop", "text", "blur", "rotate")
"""Of edits, those that are hard to find; of the others nearly all are."""


class EveryReading:
    """A backbone as `indexer.evaluate` wants one, whose rows are all that was pooled, side by side."""

    def __init__(self, model: str, scales: Sequence[float]) -> None:
        self.backbone = open_backbone(model, device="cpu", batch_size=BATCH)
        self.preprocessing, self.scales = self.backbone.preprocessing, scales
        side = self.preprocessing.crop_px
        parts = self._read([np.zeros((side, side, 3), np.uint8)])
        self.shapes = [tuple(part.shape[1:]) for part in parts]
        """(R, D) of each pooling at each scale."""
        self.dimension = sum(squares * width for squares, width in self.shapes)

    def embed(self, pixels: list[np.ndarray]) -> np.ndarray:
        """(len(pixels), dimension) float32."""
        batches = (self._read(pixels[first : first + BATCH]) for first in range(0, len(pixels), BATCH))
        return np.concatenate([np.concatenate([part.flatten(1).numpy() for part in parts], 1) for parts in batches])

    @torch.inference_mode()
    def _read(self, pixels: list[np.ndarray]) -> list[Tensor]:
        x = self.backbone._normalise(torch.from_numpy(np.stack(pixels)))
        every = (self.backbone._network.read_maps(_resize(x, scale)) for scale in self.scales)
        return [pool_maps(maps, pooling) for maps in every for pooling in POOLINGS.values()]

    def take(self, rows: np.ndarray, pooling: str, scale: float) -> Tensor:
        """(N, R, D) of one pooling at one scale."""
        number = self.scales.index(scale) * len(POOLINGS) + list(POOLINGS).index(pooling)
        first = sum(squares * width for squares, width in self.shapes[:number])
        squares, width = self.shapes[number]
        return torch.from_numpy(rows[:, first : first + squares * width]).unflatten(1, (squares, width))


class Gathering(_Evaluating):
    """An evaluation that stops when all rows are there."""

    def __init__(self, settings: EvaluateSettings, every: EveryReading, on_progress) -> None:
        super().__init__(settings, tuple(edit.title for edit in choose_edits(settings.edits)), on_progress)
        self.backbone = every


@dataclass(frozen=True, kw_only=True)
class Line:
    """A way of reading, named as it would be asked for."""

    name: str
    checkpoint: Checkpoint
    asked: Asked = OWN

    def form(self, every: EveryReading, rows: np.ndarray) -> np.ndarray:
        """(N, d) embeddings from all that was pooled."""
        output = choose_output(self.checkpoint.heads, self.asked)
        readout, pooling = Readout(self.checkpoint, output), next(k for k, v in POOLINGS.items() if v is output.pooling)
        with torch.inference_mode():
            parts = [readout.join(every.take(rows, pooling, scale)) for scale in output.scales]
        return normalise(torch.stack(parts).mean(0)).numpy() if len(parts) > 1 else parts[0].numpy()


def list_lines(model: str, checkpoint: Checkpoint, fitted: dict[str, Tensor], *, is_scaled: bool) -> Iterator[Line]:
    """All ways of reading a model, its own first."""
    yield Line(name=model, checkpoint=checkpoint)
    for name in POOLINGS:
        yield Line(name=f"{model}#{name}", checkpoint=checkpoint, asked=Asked(name))
    own = next(name for name, pooling in POOLINGS.items() if pooling is UNNAMED)
    wanted = [(name, None) for name in (COPIES, *POOLINGS)]
    wanted += [(name, size) for name in (own, COPIES) for size in SIZES]
    for name, numbers in wanted if fitted else ():
        fit = find_fit(name, numbers)
        rows = fitted[next(key for key, pooling in POOLINGS.items() if pooling is fit.pooling)]
        if numbers and numbers >= rows.shape[2]:
            continue  # the whole width again
        layer = {key: weight for key, weight in checkpoint.heads.items() if not key.startswith("whitening.")}
        whole = replace(checkpoint, heads=layer | fit_whitening(rows, fit))
        yield Line(name=f"whiten --readout {name}" + (f" --numbers {numbers}" if numbers else ""), checkpoint=whole)
        if is_scaled and numbers is None:
            yield Line(name=f"whiten --readout {name}, #scales", checkpoint=whole, asked=Asked(is_scaled=True))
    for name in (None, *POOLINGS) if is_scaled else ():
        behind = f"{name}+scales" if name else "scales"
        yield Line(name=f"{model}#{behind}", checkpoint=checkpoint, asked=Asked(name, is_scaled=True))


def read_fitted(checkpoint: Checkpoint, sources: Sequence[Path], crops: int) -> dict[str, Tensor]:
    """Pooling -> (N, R, D) of the pictures to fit on."""
    parts: dict[str, list[Tensor]] = {name: [] for name in POOLINGS}
    with open_pile(sources, side_px=SIDE_PX) as pile:
        for maps in look_at(checkpoint, pile, crops=crops, device=torch.device("cpu")):
            for name, pooling in POOLINGS.items():
                parts[name].append(pool_maps(maps, pooling))
    return {name: torch.cat(rows) for name, rows in parts.items()}


def measure(line: Line, every: EveryReading, gathered: Gathering) -> dict[str, np.ndarray]:
    """Measure -> a value for each query: a picture with a label, or a picture that copies were made of."""
    originals, copies, others = (
        line.form(every, rows["model"]) if len(rows["model"]) else np.empty((0, 0), np.float32)
        for rows in (gathered.originals, gathered.copies, gathered.distractors)
    )
    labelled = [number for number, label in enumerate(gathered.labels) if label]
    found = measure_retrieval(originals[labelled], [gathered.labels[number] for number in labelled])
    ranks, similarity = rank_originals(copies, gathered.right, originals)
    if len(others):
        ranks = ranks + count_nearer(copies, similarity, others)
    kinds = np.array([title.partition(" ")[0] for title in gathered.titles])
    recalls = {kind: average_by_picture(ranks, gathered.right, kinds == kind) for kind in KINDS}
    every_edit = average_by_picture(ranks, gathered.right, np.ones(len(ranks), bool))
    by_label = {"P@1": found.first_is_right, "mAP": found.average_precisions}
    return {"numbers": np.array([originals.shape[1]])} | by_label | {"copies": every_edit} | recalls


def average_by_picture(ranks: np.ndarray, right: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Share of the chosen copies that find their original first, for each picture."""
    right = right[chosen]
    return np.bincount(right, weights=ranks[chosen] == 1)[np.unique(right)] / np.unique(right, return_counts=True)[1]


def compare(values: np.ndarray, first: np.ndarray) -> dict[str, float]:
    """A mean with its 95 % interval, and the paired difference to the first line with its own."""
    low, high = bootstrap_interval(values)
    least, most = bootstrap_interval(values - first)
    return {
        "value": float(values.mean()), "low": low, "high": high,
        "difference": float((values - first).mean()), "least": least, "most": most,
    }  # fmt: skip


def tabulate(found: Sequence[tuple[str, dict[str, np.ndarray]]]) -> list[dict]:
    """Name and values of each line -> its figures, compared with the first one's."""
    return [
        {"name": name, "numbers": int(values["numbers"][0])}
        | {measure: compare(one, found[0][1][measure]) for measure, one in values.items() if measure != "numbers"}
        for name, values in found
    ]


def show(rows: Sequence[dict], measures: Sequence[str]) -> str:
    """A table in Markdown: the first line's figures with their intervals, of the others how much more or less."""
    lines = [("readout", "numbers", *measures), ("---",) * (2 + len(measures))]
    for row in rows:
        figures = [_show(row[measure], is_first=row is rows[0]) for measure in measures]
        lines.append((f"`{row['name']}`", f"{row['numbers']:,}", *figures))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _show(figure: dict[str, float], *, is_first: bool) -> str:
    if is_first:
        return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"
    is_sure = figure["least"] > 0 or figure["most"] < 0
    change = f"{figure['difference']:+.3f} ({figure['least']:+.3f} to {figure['most']:+.3f})"
    return f"{figure['value']:.3f}, {f'**{change}**' if is_sure else change}"


@click.command()
@click.argument("pictures", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--labels", required=True, type=click.Path(exists=True, path_type=Path), help="A CSV: file,label.")
@click.option("--others", multiple=True, type=click.Path(path_type=Path), help="Pictures to search among.")
@click.option("--fit", "sources", multiple=True, type=click.Path(path_type=Path), help="Pictures to fit layers on.")
@click.option("--crops", default=4096, show_default=True)
@click.option("--model", default="seer-mini", show_default=True)
@click.option("--copies", default=1000, show_default=True)
@click.option("--limit", type=int)
@click.option("--scales", "is_scaled", is_flag=True, help="Look at three sizes, too: takes four times as long.")
@click.option("--json", "as_json", is_flag=True)
def main(
    pictures: tuple[Path, ...],
    labels: Path,
    others: tuple[Path, ...],
    sources: tuple[Path, ...],
    crops: int,
    model: str,
    copies: int,
    limit: int | None,
    is_scaled: bool,
    as_json: bool,
) -> None:
    """Measure every readout of a model on PICTURES."""
    checkpoint = read_checkpoint(find_model(model).path)
    fitted = read_fitted(checkpoint, sources, crops) if sources else {}
    every = EveryReading(model, SCALES if is_scaled else (1.0,))
    with show_progress() as on_progress:
        gathered = Gathering(EvaluateSettings(model=model, copies=copies, limit=limit), every, on_progress)
        places, labels_of = _list_pictures(pictures, labels)
        places = _draw(places, limit, 0)
        gathered._embed_originals(places, [labels_of.get(place) for place in places])
        gathered._embed_distractors(list_sources(others).places if others else [])
    lines = list_lines(model, checkpoint, fitted, is_scaled=is_scaled)
    rows = tabulate([(line.name, measure(line, every, gathered)) for line in lines])
    if as_json:
        click.echo(json.dumps({"schema_version": 1, "lines": rows}))
    else:
        click.echo("\n\n".join(show(rows, measures) for measures in (MEASURES, KINDS)))


if __name__ == "__main__":
    main()
