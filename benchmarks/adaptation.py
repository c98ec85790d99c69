"""What a model gained by going on from another: both measured on the same labelled pictures, query by query.

    python -m benchmarks.adaptation --before seer-mini --after mine.safetensors --labels labels.csv

The difference is paired: each query's figure after, less its figure before, averaged; its interval is the bootstrap of
those differences, much narrower than that of two separate figures.

Rule: labels are only read here, after the training; nothing that learns sees them.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from indexer.labels import read_labels
from indexer.metrics import bootstrap_interval, measure_retrieval
from seer_model.backbone import open_backbone
from seer_model.pictures import open_picture
from seer_model.preprocess import prepare

MEASURES = {"P@1": "first_is_right", "mAP": "average_precisions"}


@click.command()
@click.option("--before", default="seer-mini", show_default=True, help="A model's name or file.")
@click.option("--after", required=True, help="A model's name or file.")
@click.option("--labels", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def main(before: str, after: str, labels: Path, as_json: bool) -> None:
    """Compare two models on the pictures that LABELS names."""
    found = read_labels(labels)
    pair = [measure_retrieval(embed_files(model, list(found)), list(found.values())) for model in (before, after)]
    rows = [compare(name, *(getattr(one, field) for one in pair)) for name, field in MEASURES.items()]
    click.echo(json.dumps({"schema_version": 1, "pictures": len(found), "figures": rows}) if as_json else show(rows))


def embed_files(model: str, files: Sequence[Path]) -> np.ndarray:
    """(N, D) embeddings, each picture decoded and prepared as a build does it."""
    backbone = open_backbone(model, batch_size=16)
    how = backbone.preprocessing
    pictures = (open_picture(file.read_bytes(), short_side_px=how.short_side_px) for file in files)
    return backbone.embed([prepare(picture.pixels, how) for picture in pictures])


def compare(measure: str, before: np.ndarray, after: np.ndarray) -> dict[str, str | float]:
    """The means of both and of their difference, with its 95 % interval."""
    low, high = bootstrap_interval(after - before)
    return {
        "measure": measure,
        "before": float(before.mean()),
        "after": float(after.mean()),
        "difference": float((after - before).mean()),
        "low": low,
        "high": high,
    }


def show(rows: Sequence[dict[str, str | float]]) -> str:
    """One line for each measure."""
    return "\n".join(
        f"{row['measure']:<4} {row['before']:.4f} -> {row['after']:.4f}   "
        f"{row['difference']:+.4f} ({row['low']:+.4f} to {row['high']:+.4f})"
        for row in rows
    )


if __name__ == "__main__":
    main()
