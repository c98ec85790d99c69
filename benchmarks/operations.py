"""Where the time of a batch goes, operation by operation: python -m benchmarks.operations --model M | --preset P

    --model M     a batch embedded, pictures ready on the device
    --preset P    a step of training on pictures of noise that lie on the device

Rule: the clock is read without the profiler, which costs time itself; shares are of what the profiler saw.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

import click
import torch
from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import ProfilerActivity, profile

from benchmarks.embedders import Setting, draw_pictures, open_network
from benchmarks.machine import describe_machine, show_machine
from benchmarks.on_gpu import show_busy
from benchmarks.race import read_clock
from benchmarks.training_memory import SEER_BATCH, choose_recipe, make_step
from seer_model.errors import UserError
from seer_model.learner import start_learner
from seer_model.presets import change_recipe
from seer_model.ranks import Ranks, choose_device

LEAD_BATCHES = 3
"""Untimed: kernels are chosen."""
KEPT = 60
"""Operations that are told, and kernels."""
SHOWN = 20
NAME_WIDTH = 60


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One of torch's operations on inputs of one shape, or one kernel of a GPU."""

    name: str
    shapes: str
    """Of its inputs, as torch writes them; none of a kernel."""
    calls: float
    """In a batch."""
    seconds: float
    """In a batch; without what it calls in turn."""
    share: float
    """Of the time of all."""


@click.command()
@click.option("--model", help="A name, a file, or a size: random weights, made in seconds.")
@click.option("--preset", help="The recipe of a step.")
@click.option("--batch-size", type=click.IntRange(1), help="Left out: what the backbone chooses, or the recipe has.")
@click.option("--precision", default="auto", show_default=True, help="auto: as a build has it, or the recipe.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--steps", type=click.IntRange(1), default=10, show_default=True, help="Batches; as many profiled.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(model: str | None, preset: str | None, device: str, steps: int, as_json: bool, **how: object) -> None:
    """Say where the time of a batch goes."""
    if (model is None) == (preset is None):
        raise click.UsageError("Name one of --model and --preset.")
    try:
        place = choose_device(device)
        run, images = (prepare_batch if preset is None else prepare_step)(model or preset, place, **how)
        report = {"subject": model or preset, "images": images} | measure(run, place, steps)
    except UserError as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(report, indent=1) if as_json else show_report(report))


def prepare_batch(
    model: str, device: torch.device, batch_size: int | None, precision: str
) -> tuple[Callable[[], object], int]:
    """A batch embedded, and how many pictures it has. Raises: as `open_network`."""
    setting = Setting(model=model, device=device, batch_size=batch_size, precision=precision, is_alone=True)
    _, backbone = open_network(setting)
    how = backbone.preprocessing
    pixels = torch.from_numpy(draw_pictures(backbone.batch_size, how.crop_px or how.resize_px)).to(device)
    return lambda: backbone.embed_ready(pixels), len(pixels)


def prepare_step(
    preset: str, device: torch.device, batch_size: int | None, precision: str
) -> tuple[Callable[[], object], int]:
    """A step of training, and how many pictures it has. Raises: SettingsError."""
    given = None if precision == "auto" else precision
    recipe = change_recipe(choose_recipe(preset, SEER_BATCH), batch_size=batch_size, precision=given)
    return make_step(start_learner(recipe, Ranks(device=device)), device), recipe.batch_size


def measure(run: Callable[[], object], device: torch.device, steps: int) -> dict:
    """Run it against the clock, then under the profiler; JSON-able values."""
    machine = describe_machine(device)
    for _ in range(LEAD_BATCHES):
        run()
    started = read_clock(device)
    for _ in range(steps):
        run()
    seconds = (read_clock(device) - started) / steps
    events = record(run, device, steps)
    kernels = list_kernels(events, steps)
    operations = list_operations(events, steps, on_gpu=bool(kernels))
    return {
        "schema_version": 1,
        "device": str(device),
        "steps": steps,
        "machine": machine,
        "seconds": seconds,
        "busy_share": sum(kernel.seconds for kernel in kernels) / seconds if kernels else None,
        "operations": [asdict(one) for one in operations[:KEPT]],
        "kernels": [asdict(one) for one in kernels[:KEPT]],
    }


def record(run: Callable[[], object], device: torch.device, steps: int) -> list[FunctionEventAvg]:
    """What the profiler saw of some batches."""
    watched = [ProfilerActivity.CPU]
    if device.type == "cuda" and ProfilerActivity.CUDA in torch.profiler.supported_activities():
        watched.append(ProfilerActivity.CUDA)
    with profile(activities=watched, record_shapes=True, acc_events=True) as found:
        for _ in range(steps):
            run()
        read_clock(device)
    return list(found.key_averages(group_by_input_shape=True))


def list_operations(events: Iterable[FunctionEventAvg], steps: int, *, on_gpu: bool) -> list[Operation]:
    """Torch's operations, by their time on the GPU, or on the processor where none was seen to compute."""
    clock = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    return _rank([event for event in events if event.device_type.name == "CPU"], clock, steps)


def list_kernels(events: Iterable[FunctionEventAvg], steps: int) -> list[Operation]:
    """What ran on a GPU, copies included; none on a CPU. A name that a program gives to some of them is no kernel."""
    ran = [event for event in events if event.device_type.name == "CUDA" and not event.is_user_annotation]
    return _rank(ran, "self_device_time_total", steps)


def _rank(events: list[FunctionEventAvg], clock: str, steps: int) -> list[Operation]:
    taken = [(getattr(event, clock), event) for event in events if getattr(event, clock) > 0]
    whole = sum(microseconds for microseconds, _ in taken)
    return [
        Operation(
            name=event.key,
            shapes=str([shape for shape in event.input_shapes or () if shape]),
            calls=event.count / steps,
            seconds=microseconds / 1e6 / steps,
            share=microseconds / whole,
        )
        for microseconds, event in sorted(taken, key=lambda pair: -pair[0])
    ]


def show_report(report: dict) -> str:
    """The figures as text."""
    busy = f", {show_busy(report['busy_share'])}" if report["device"] != "cpu" else ""
    lines = [
        f"{report['subject']} on {report['device']}, {report['images']} pictures: "
        f"{report['seconds'] * 1e3:,.2f} ms a batch{busy}",
        show_machine(report["machine"]),
    ]
    for title in ("operations", "kernels"):
        if report[title]:
            lines += [f"{title}, the first {min(SHOWN, len(report[title]))}:", *map(show_one, report[title][:SHOWN])]
    return "\n".join(lines)


def show_one(one: dict) -> str:
    """One line."""
    name = one["name"] if len(one["name"]) <= NAME_WIDTH else one["name"][: NAME_WIDTH - 3] + "..."
    shapes = "" if one["shapes"] == "[]" else one["shapes"]
    return f"  {one['share']:6.1%} {one['seconds'] * 1e3:>9,.3f} ms {one['calls']:>7,.1f} x  {name} {shapes}".rstrip()


if __name__ == "__main__":
    main()
