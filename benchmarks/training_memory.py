"""How much memory a training step takes, and which of the recipes fit one device: python -m benchmarks.training_memory

Each recipe trains some steps on pictures of noise that lie on the device, keeping activations and computing them again
(activation checkpointing); which one does not fit is told.

Rule: figures go to stdout, progress to stderr. On a CPU no memory is told: the system's figure is not that of a step.
"""

import gc
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import replace

import click
import torch

from benchmarks.machine import describe_machine, show_machine
from benchmarks.race import read_clock
from seer_model.devices import is_out_of_memory
from seer_model.errors import UserError
from seer_model.learner import Learner, start_learner
from seer_model.presets import PretrainSettings, change_recipe, find_preset
from seer_model.ranks import Ranks, choose_device

SEER = ("seer-32gf", "seer-64gf", "seer-128gf", "seer-256gf", "seer-10b")
SEER_BATCH = 32
"""Pictures of a step of these, which are for many GPUs."""
LEAD_STEPS = 2
"""Untimed: the first one makes the momentum, and chooses kernels."""


@click.command()
@click.option("--preset", "presets", multiple=True, default=("mini", *SEER), help="May be repeated; mini and SEER's.")
@click.option("--batch-size", type=click.IntRange(2), default=SEER_BATCH, show_default=True, help="Of SEER's recipes.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--steps", type=click.IntRange(1), default=10, show_default=True, help="Timed steps.")
@click.option("--seconds", type=click.FloatRange(1), default=300, show_default=True, help="After these none is begun.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(presets: tuple[str, ...], batch_size: int, device: str, steps: int, seconds: float, as_json: bool) -> None:
    """Measure the memory of a training step, with and without activation checkpointing."""
    try:
        recipes = {name: choose_recipe(name, batch_size) for name in presets}
        report = measure(recipes, choose_device(device), steps, seconds)
    except UserError as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(report, indent=1) if as_json else show_report(report))


def choose_recipe(name: str, batch_size: int) -> PretrainSettings:
    """A preset; those for many GPUs with so many pictures on this one. Raises: SettingsError."""
    recipe = find_preset(name)
    return change_recipe(recipe, batch_size=batch_size) if name in SEER else recipe


def measure(recipes: dict[str, PretrainSettings], device: torch.device, steps: int, seconds: float) -> dict:
    """Try all, and describe it as JSON-able values."""
    machine, started, found = describe_machine(device), time.monotonic(), []
    for name, recipe in recipes.items():
        for is_recomputed in (False, True):
            if time.monotonic() - started > seconds:
                tried = {"outcome": "no time was left"}
            else:
                tried = try_recipe(replace(recipe, recompute=is_recomputed), device, steps)
            about = {"preset": name, "architecture": recipe.architecture, "batch_size": recipe.batch_size}
            found.append(about | {"recompute": is_recomputed, **tried})
            click.echo(show_one(found[-1]), err=True)
    return {"schema_version": 1, "device": str(device), "steps": steps, "machine": machine, "tried": found}


def try_recipe(recipe: PretrainSettings, device: torch.device, steps: int) -> dict:
    """Train some steps, and describe them."""
    begun = time.monotonic()
    try:
        learner = start_learner(recipe, Ranks(device=device))
        rate = take_steps(learner, device, steps)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        rate = None
    learner = None
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    clear(device)
    return {
        "outcome": "does not fit" if rate is None else "fits",
        "images_per_second": rate,
        "memory_bytes": memory,
        "seconds": round(time.monotonic() - begun, 1),
    }


def take_steps(learner: Learner, device: torch.device, steps: int) -> float:
    """Images/s of the steps after the first ones."""
    step = make_step(learner, device)
    for _ in range(LEAD_STEPS):
        step()
    started = read_clock(device)
    for _ in range(steps):
        step()
    return steps * learner.settings.batch_size / (read_clock(device) - started)


def make_step(learner: Learner, device: torch.device) -> Callable[[], None]:
    """What takes one more step on pictures of noise that lie on the device; prototypes learn, a queue is empty."""
    recipe = learner.settings
    shape = (recipe.batch_size, 3, recipe.picture_px, recipe.picture_px)
    pictures, aspects = torch.randint(0, 256, shape, dtype=torch.uint8).to(device), torch.ones(recipe.batch_size)
    numbers = itertools.count(max(recipe.swav.frozen_steps, recipe.swav.queue_start_step))

    def step() -> None:
        learner.step(pictures, aspects, next(numbers), recipe.optimizer.warmup_start_rate)

    return step


def clear(device: torch.device) -> None:
    """Let go of what the last one held, so that the next one finds all of the memory."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def show_one(one: dict) -> str:
    """One line."""
    kept = "computed again" if one["recompute"] else "kept"
    memory = f"{one['memory_bytes'] / 1e9:,.1f} GB" if one.get("memory_bytes") else "-"
    rate = f"{one['images_per_second']:,.1f} images/s" if one.get("images_per_second") else "-"
    return (
        f"  {one['preset']:<12} {one['architecture']:>6}  {one['batch_size']:>4} pictures  activations {kept:<14} "
        f"{memory:>10}  {rate:>18}  {one['outcome']}"
    )


def show_report(report: dict) -> str:
    """The figures as text."""
    lines = f"Training steps on {report['device']}, {report['steps']} timed", show_machine(report["machine"])
    return "\n".join([*lines, *map(show_one, report["tried"])])


if __name__ == "__main__":
    main()
