"""All that only a GPU can show, a command for each part: python -m benchmarks.on_gpu PART... --output FOLDER

    pretrain   a whole run of seven minutes, and its model in half precision
    longer     eight minutes of a run of 24; the next time the next eight
    tests      the tests of the network, of training and of the embedding, on the GPU
    network    images/s of seer-mini and of SEER's sizes, beside timm, transformers, torchvision and the ceilings
    profile    where the time of a batch goes, and that of a training step, operation by operation
    compiled   seer-mini and 32GF once more, with ours and timm by torch.compile: minutes before the first figure
    largest    memory and images/s of the 10B shape in bf16
    job        the whole job from JPEG files, beside its parts and the plain script
    training   a training step beside the plain one; its memory, and the largest recipe that fits

A GPU may be lent for minutes: each step is a process of its own with a limit of time. One that fails or takes too long
is told, and the next begins. With --rehearse all of it runs in small, on a pretended GPU (`tests.pretended_gpu`).

Rule: figures and logs go to files in a folder; what came of each step goes to stdout.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

REPOSITORY = Path(__file__).resolve().parent.parent
NETWORK_TESTS = ("tests/seer_model", "tests/indexer/test_embed.py")
FIRST_TESTS = tuple(f"tests/seer_model/test_{name}.py" for name in ("cuda", "numerics", "sync_norm", "pretrain"))
"""Of what is otherwise on a GPU."""
MODEL, LONGER = "seer-mini.safetensors", "seer-mini-longer.safetensors"
PLACE_OF_PHOTOS = "SEER_TEST_PHOTOS"
"""Where the tests look, of which those of real photos must not be skipped."""
SAVING_SECONDS = 20.0
"""That a step which takes too long has for an end of its own."""
TIMED = ("--rounds", "3", "--steps", "5")
FEW = ("--rounds", "2", "--steps", "3")
ONCE = ("--rounds", "1", "--steps", "1")
TOLD = 5
"""Operations of a profile."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command and how long it may take."""

    name: str
    module: str
    arguments: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What is measured on."""

    photos: Path
    """A folder of JPEGs."""
    pictures: Path
    """To train on: a folder, of tar shards for one."""
    models: Path
    """A folder for what is trained."""


def list_steps(part: str, sources: Sources, *, is_rehearsed: bool = False) -> list[Step]:
    """The steps of one part of `PARTS`."""
    steps = (PARTS_IN_SMALL if is_rehearsed else PARTS)[part]
    placed = {"PHOTOS": sources.photos, "PICTURES": sources.pictures}
    placed |= {name: sources.models / name for name in (MODEL, LONGER)}
    return [
        Step(name=name, module=module, arguments=tuple(str(placed.get(word, word)) for word in words), seconds=seconds)
        for name, module, words, seconds in steps
    ]


def _embed(model: str, *words: str, seconds: float, name: str = "") -> tuple:
    given = ("--model", model, "--device", "cuda", *words, "--json")
    return name or f"network-{model}", "benchmarks.embedding", given, seconds


def _pretrain(name: str, output: str, *words: str) -> tuple:
    given = ("PICTURES", "--device", "cuda", "--output", output, *words)
    return name, "benchmarks.timed_pretraining", given, 540


def _train(name: str, *words: str, seconds: float) -> tuple:
    given = ("--preset", name, "--device", "cuda", "--pictures", "PICTURES", *words, "--json")
    return f"step-{name}", "benchmarks.training_step", given, seconds


def _build(*words: str, device: str = "cuda") -> tuple:
    return "job", "benchmarks.job", ("--pictures", "PHOTOS", "--device", device, *words, "--json"), 240


def _profile(option: str, subject: str, *words: str) -> tuple:
    given = (option, subject, "--device", "cuda", *words, "--json")
    return f"profile-{subject}", "benchmarks.operations", given, 90


def _fit(*words: str) -> tuple:
    return "step-memory", "benchmarks.training_memory", ("--device", "cuda", *words, "--json"), 330


def _test(name: str, *words: str, device: str) -> tuple:
    # -v: also of one that is ended too early it is known what has failed. A warning is no failure there, and of the
    # plugins that the computer happens to have (see `run_step`) one alone is wanted.
    how = ("-v", "-W", "default", "-p", "no:cacheprovider", "-p", "xdist")
    return name, "pytest", ("--device", device, *how, *words), 240


def _leave_out(files: tuple[str, ...]) -> list[str]:
    return [f"--ignore={file}" for file in files]


EAGER = ("-k", "not compiled")
"""Compiling takes minutes."""
PARTS = {
    "pretrain": [_pretrain("pretrain", MODEL, "--minutes", "7")],
    "longer": [_pretrain("longer", LONGER, "--minutes", "24", "--piece", "8")],
    "tests": [
        _test("tests-first", *FIRST_TESTS, *EAGER, "-n", "4", "--dist", "loadfile", device="cuda"),
        _test(
            "tests", *NETWORK_TESTS, *_leave_out(FIRST_TESTS), *EAGER, "-n", "8", "--dist", "loadfile", device="cuda"
        ),
        _test("tests-compiled", *NETWORK_TESTS, "--long", "-k", "compiled", device="cuda"),
    ],
    "network": [
        _embed("32GF", *TIMED, seconds=150),
        _embed("seer-mini", "--rounds", "3", "--steps", "20", seconds=120),
        _embed("64GF", "--batch-size", "128", *TIMED, seconds=200),
        _embed("128GF", "--batch-size", "64", *FEW, seconds=200),
        _embed("256GF", "--batch-size", "32", *FEW, seconds=200),
    ],
    "profile": [
        _profile("--preset", "mini"),
        _profile("--model", "seer-mini"),
        _profile("--model", "32GF", "--batch-size", "64"),
        _profile("--preset", "seer-32gf"),
    ],
    "compiled": [
        _embed("32GF", "--compiled", *TIMED, seconds=420, name="compiled-32GF"),
        _embed("seer-mini", "--compiled", "--rounds", "3", "--steps", "20", seconds=300, name="compiled-seer-mini"),
    ],
    "largest": [_embed("10B", "--alone", "--precision", "bf16", "--batch-size", "64", *TIMED, seconds=300)],
    "job": [_build("--times", "15", "--rounds", "3")],
    "training": [
        _train("mini", "--rounds", "3", "--steps", "30", seconds=240),
        _train("seer-32gf", "--batch-size", "32", "--rounds", "2", "--steps", "5", seconds=240),
        _fit("--seconds", "150"),
    ],
}
"""Part -> its steps, in the order of what is asked for first: name, module, words, seconds."""
SMALL_RUN = ("--preset", "tiny", "--steps", "1", "--workers", "1")
PARTS_IN_SMALL = {
    "pretrain": [_pretrain("pretrain", MODEL, "--minutes", "0.5", *SMALL_RUN)],
    "longer": [_pretrain("longer", LONGER, "--minutes", "1", "--piece", "0.1", *SMALL_RUN)],
    "tests": [_test("tests", "tests/seer_model/test_learner.py", "-n", "2", device="pretended")],
    "network": [
        _embed("seer-mini", "--precision", "bf16", "--batch-size", "2", *ONCE, seconds=120),
        _embed("400MF", "--alone", "--precision", "bf16", "--batch-size", "2", *ONCE, seconds=120),
    ],
    "profile": [
        _profile("--model", "400MF", "--precision", "bf16", "--batch-size", "2", "--steps", "1"),
        _profile("--preset", "tiny", "--batch-size", "8", "--steps", "1"),
    ],
    # Which the pretended GPU does not do.
    "compiled": [_embed("200MF", "--compiled", "--precision", "bf16", "--batch-size", "2", *ONCE, seconds=120)],
    "largest": [_embed("800MF", "--alone", "--precision", "bf16", "--batch-size", "2", *ONCE, seconds=120)],
    # Its rounds are processes of their own, which nobody pretends to.
    "job": [_build("--times", "2", "--limit", "16", "--rounds", "1", device="cpu")],
    "training": [
        _train("tiny", "--batch-size", "8", "--limit", "16", "--workers", "1", *ONCE, seconds=120),
        _fit("--preset", "tiny", "--steps", "1"),
    ],
}


@click.command()
@click.argument("parts", nargs=-1, required=True, type=click.Choice(list(PARTS)))
@click.option("--output", required=True, type=click.Path(file_okay=False, path_type=Path), help="For figures and logs.")
@click.option("--photos", type=click.Path(exists=True, path_type=Path), required=True, help="A folder of JPEGs.")
@click.option("--pictures", type=click.Path(exists=True, path_type=Path), required=True, help="To train on.")
@click.option("--seconds", type=click.FloatRange(1), default=3600, show_default=True, help="For all of it together.")
@click.option("--rehearse", "is_rehearsed", is_flag=True, help="In small, on a pretended GPU.")
def main(parts: tuple[str, ...], output: Path, seconds: float, is_rehearsed: bool, **places: Path) -> None:
    """Run parts one after the other; the status is 1 where a step of them has not come to its end."""
    output.mkdir(parents=True, exist_ok=True)
    sources, until = Sources(**places, models=output), time.monotonic() + seconds
    steps = [step for part in parts for step in list_steps(part, sources, is_rehearsed=is_rehearsed)]
    with exiting_on_sigterm():  # So that the step in hand is ended, too.
        outcomes = run_steps(steps, output, until, sources, is_rehearsed=is_rehearsed)
    sys.exit(not all(outcome.startswith("ended") for outcome in outcomes))


@contextlib.contextmanager
def exiting_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end the program as an error does: what is in hand is tidied up."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_steps(
    steps: list[Step], output: Path, until: float, sources: Sources, *, is_rehearsed: bool
) -> list[str]:
    """Run steps one after the other, and print what came of each."""
    outcomes = []
    for step in steps:
        outcomes.append(run_step(step, output, until, sources, ("tests.pretended_gpu",) if is_rehearsed else ()))
        click.echo(f"{step.name:<18} {outcomes[-1]}")
        for line in list_figures(output / f"{step.name}.out") if outcomes[-1].startswith("ended") else ():
            click.echo(f"    {line}")
    return outcomes


def run_step(step: Step, output: Path, until: float, sources: Sources, before: tuple[str, ...] = ()) -> str:
    """Run one step to its end, or to that of its time; say what came of it."""
    started = time.monotonic()
    if until <= started:
        return "not begun: no time was left"
    before = () if step.module == "pytest" else before
    command = [sys.executable, "-m", *before, step.module, *step.arguments]
    environment = os.environ | {PLACE_OF_PHOTOS: str(sources.photos), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    with open(output / f"{step.name}.out", "wb") as out, open(output / f"{step.name}.log", "wb") as log:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, stdout=out, stderr=log, env=environment, start_new_session=True
        )
        try:
            status = process.wait(min(step.seconds, until - started))
        except subprocess.TimeoutExpired:
            return f"took longer than {time.monotonic() - started:.0f} s and was ended; its log says how far it came"
        finally:
            end(process)
    took = f"{time.monotonic() - started:.0f} s"
    return f"ended in {took}" if status == 0 else f"failed with status {status} after {took}; its .log or .out says why"


def end(process: subprocess.Popen) -> None:
    """Nobody waits for it any more, and it may hold the GPU: a training run saves itself first."""
    if process.poll() is not None:
        return
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(SAVING_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def list_figures(result: Path) -> list[str]:
    """A step's JSON in lines: medians of rates and ratios, and so on; of tests the last line; else nothing."""
    text = result.read_text(encoding="utf-8", errors="replace").strip() if result.exists() else ""
    try:
        told = json.loads(text)
    except ValueError:
        return text.splitlines()[-1:]
    rates = [f"{name}: {_show_rate(rate)}" for name, rate in told.get("images_per_second", {}).items()]
    ratios = [f"{name}: {ratio['median']:.2f}" for name, ratio in told.get("ratios", {}).items()]
    busy = [show_busy(told["busy_share"])] if "busy_share" in told else []
    operations = [f"{one['share']:.0%} {one['name']} {one['shapes']}" for one in told.get("operations", [])[:TOLD]]
    memory = [f"memory {name}: {size / 1e9:.2f} GB" for name, size in told.get("memory", {}).items()]
    tried = [
        f"{one['preset']}, activations {'computed again' if one['recompute'] else 'kept'}: {one['outcome']}"
        for one in told.get("tried", [])
    ]
    return [*rates, *ratios, *memory, *tried, *busy, *operations]


def show_busy(share: float | None) -> str:
    """How much of the time a GPU was at work, as a profile has it."""
    return "the profiler saw no kernel" if share is None else f"the GPU is at work {share:.0%} of the time"


def _show_rate(rate: dict) -> str:
    waited = f", waiting {rate['waiting_share']:.0%}" if rate.get("waiting_share") else ""
    return f"{rate['median']:,.1f} images/s{waited}"


if __name__ == "__main__":
    main()
