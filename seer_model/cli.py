"""The `seer models` commands: list, fetch, convert, show.

Rule: a command parses, calls one function and prints. torch is imported only by the commands that open weights, inside.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import click

from seer_model.download import FetchProgress
from seer_model.fetch import fetch_model, show_size, show_terms
from seer_model.zoo import BEHIND, BUNDLED_WEIGHTS, FoundModel, ModelEntry, find_entry, find_model, list_models

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for a program to read.")


@click.group()
def models() -> None:
    """List, fetch, convert and inspect models."""


@models.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List the models that have a name."""
    rows = [_describe_entry(entry, is_here) for entry, is_here in list_models()]
    if as_json:
        click.echo(json.dumps({"schema_version": 1, "models": rows}))
        return
    head = ("NAME", "PARAMETERS", "SIZE", "DIMENSION", "HERE", "TERMS")
    lines = [
        (
            row["name"],
            f"{row['parameters'] / 1e6:.1f} M",
            show_size(row["size_bytes"]),
            str(row["dimension"]),
            "yes" if row["is_here"] else "no",
            row["licence"],
        )
        for row in rows
    ]
    _print_table([head, *lines])


@models.command("fetch")
@click.argument("name")
@click.option("--accept-licence", is_flag=True, help="Accept the terms of the model's weights.")
@json_option
def fetch_command(name: str, accept_licence: bool, as_json: bool) -> None:
    """Download the weights of the model NAME.

    Run it again after an interruption: it goes on where it stopped.
    """
    click.echo(show_terms(find_entry(name)), err=True)
    path = fetch_model(name, accept_licence=accept_licence, on_progress=_ProgressLines())
    click.echo(json.dumps({"schema_version": 1, "name": name, "path": str(path)}) if as_json else f"{name}: {path}")


@models.command("convert")
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--half", "is_half", is_flag=True, help="Kernels in fp16: half the size.")
@click.option("--heads/--no-heads", "has_heads", default=True, help="Write SwAV's heads, too (default).")
@json_option
def convert_command(file: Path, out: Path, is_half: bool, has_heads: bool, as_json: bool) -> None:
    """Read the weights in FILE, of whatever layout, and write them to OUT as safetensors in our own."""
    from seer_model.checkpoint import convert_checkpoint
    from seer_model.readout import choose_output, measure_dimension

    checkpoint = convert_checkpoint(file, out, is_half=is_half, has_heads=has_heads)
    dimension = measure_dimension(checkpoint, choose_output(checkpoint.heads))
    if as_json:
        click.echo(json.dumps({"schema_version": 1, "path": str(out.absolute()), "layout": checkpoint.layout}))
    else:
        click.echo(f"{out}: written from layout {checkpoint.layout}, dimension {dimension}.")


@models.command("show")
@click.argument("model")
@json_option
def show_command(model: str, as_json: bool) -> None:
    """Show what MODEL is: a name of `seer models list`, or a file of weights; and the readouts it can be opened with.

    Wherever a model is named, MODEL#NAME takes another readout, MODEL#scales or MODEL#NAME+scales looks at each picture
    at three sizes: slower. A collection belongs to the readout that it was made with.
    """
    found = find_model(model)
    description = _describe_weights(found)
    if as_json:
        click.echo(json.dumps({"schema_version": 1} | description))
        return
    _print_table((key.replace("_", " "), _show_value(value)) for key, value in description.items())
    if found.entry:
        click.echo(show_terms(found.entry))


def _describe_entry(entry: ModelEntry, is_here: bool) -> dict:
    return {
        "name": entry.name,
        "architecture": entry.architecture,
        "parameters": entry.parameters,
        "size_bytes": BUNDLED_WEIGHTS.stat().st_size if entry.is_bundled and is_here else 4 * entry.parameters,
        "dimension": entry.dimension,
        "licence": entry.licence.name,
        "must_accept": entry.licence.must_accept,
        "is_here": is_here,
        "sources": [source.address for source in entry.sources],
    }


def _describe_weights(found: FoundModel) -> dict:
    from seer_model.checkpoint import read_checkpoint
    from seer_model.readout import choose_output, list_readouts, measure_dimension
    from seer_model.regnet import name_architecture

    checkpoint = read_checkpoint(found.path)
    output = choose_output(checkpoint.heads, found.asked)
    return {
        "model": found.name,
        "path": str(found.path),
        "layout": checkpoint.layout,
        "architecture": name_architecture(checkpoint.architecture),
        **asdict(checkpoint.architecture),
        "output": str(output),
        "dimension": measure_dimension(checkpoint, output),
        "readouts": {f"{BEHIND}{name}": numbers for name, numbers in list_readouts(checkpoint).items()},
        "parameters": checkpoint.count_parameters(),
        "heads": {key: list(weight.shape) for key, weight in checkpoint.heads.items()},
        "licence": found.entry.licence.name if found.entry else None,
    }


def _show_value(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {shape}" for key, shape in value.items()) or "none"
    return "-" if value is None else str(value)


def _print_table(lines: Iterable[tuple[str, ...]]) -> None:
    lines = list(lines)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


class _ProgressLines:
    """Prints a line to stderr each time that a file has come another tenth of its way."""

    def __init__(self) -> None:
        self._last = ("", -1)

    def __call__(self, progress: FetchProgress) -> None:
        step = progress.done_bytes * 10 // max(progress.total_bytes or 1 << 30, 1)
        if (progress.filename, step) != self._last:
            self._last = (progress.filename, step)
            of_total = f" of {show_size(progress.total_bytes)}" if progress.total_bytes else ""
            click.echo(f"{progress.filename}: {show_size(progress.done_bytes)}{of_total}", err=True)
