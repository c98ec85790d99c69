"""How fast the whole job is, from files to a collection that can be searched: python -m benchmarks.job

Who takes part is said in `job_parts` and `plain_job`, what is concluded and what is not in README.md.

Rule: figures go to stdout, progress to stderr. Nothing here loads torch before the command runs: the processes of each
round import this module again, and what they take to start is told.
"""

import json
import shutil
import tempfile
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from seer_model.errors import SettingsError, UserError

if TYPE_CHECKING:
    import numpy as np

    from benchmarks.job_parts import Job, Setting
    from benchmarks.race import Round, Spread
    from seer_model.backbone import Backbone

CEILING = "both parts combined"


@click.command()
@click.option("--pictures", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--model", default="seer-mini", show_default=True, help="A model's name or file.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--precision", default="auto", show_default=True, help="Of ours; the script has fp32.")
@click.option("--limit", type=click.IntRange(1), help="Pictures that are used, the first by name; all if left out.")
@click.option("--megapixels", type=click.FloatRange(0, min_open=True), help="Make JPEGs of this size of them first.")
@click.option("--times", type=click.IntRange(1), default=1, show_default=True, help="Each picture so often, as others.")
@click.option("--workers", type=click.IntRange(1), help="Processes that decode; one for each core if left out.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON with all rounds.")
def main(
    pictures: Path,
    device: str,
    limit: int | None,
    megapixels: float | None,
    times: int,
    rounds: int,
    as_json: bool,
    **given: object,
) -> None:
    """Measure `seer build` beside a script written the obvious way, and its two parts alone."""
    from benchmarks.job_parts import Setting
    from seer_model.ranks import choose_device

    try:
        with tempfile.TemporaryDirectory(prefix="seer-pictures-") as scratch:
            files = stage_pictures(pictures, Path(scratch) / "pictures", limit, megapixels)
            files += repeat_pictures(files, times)
            chosen = {"folder": files[0].parent, "files": tuple(files), "device": choose_device(device), **given}
            report = measure(Setting(**chosen), rounds, megapixels)
    except UserError as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(report, indent=1) if as_json else show_report(report))


def stage_pictures(source: Path, target: Path, limit: int | None, megapixels: float | None) -> list[Path]:
    """The pictures in a folder of their own: copies, or large ones made of them.

    Raises: SettingsError if there are none.
    """
    from benchmarks.large_pictures import make_large
    from indexer.sources import Walk, resolve_folders

    found = sorted(Path(file.path) for file in Walk(resolve_folders([source]), ()))
    chosen = list(islice(found, limit))
    if not chosen:
        raise SettingsError(f"There are no pictures in {source}. Name a folder that has some.")
    if megapixels:
        click.echo(f"making {len(chosen):,} pictures of {megapixels:g} megapixels", err=True)
        return make_large(chosen, target, megapixels)
    target.mkdir()
    return [
        Path(shutil.copyfile(file, target / f"{number:06d}{file.suffix}")) for number, file in enumerate(chosen)
    ]


def repeat_pictures(files: list[Path], times: int) -> list[Path]:
    """Write each picture again, so that there are `times` of it. Returns: the new ones.

    They have the same pixels, and bytes of their own behind their end: to the job they are other pictures.
    """
    made = []
    for number in range(1, times):
        for file in files:
            made.append(file.with_name(f"{file.stem}-{number:04d}{file.suffix}"))
            made[-1].write_bytes(file.read_bytes() + number.to_bytes(4, "big"))
    return made


def measure(setting: "Setting", rounds: int, megapixels: float | None) -> dict:
    """Run the race, and describe it as JSON-able values."""
    from benchmarks import job_parts as parts
    from benchmarks.machine import describe_machine
    from benchmarks.race import race, summarise

    machine, backbone = describe_machine(setting.device), setting.open_backbone()
    how = backbone.preprocessing
    jobs = parts.Job(parts.OURS, parts.run_ours, setting), parts.Job(parts.SCRIPT, parts.run_script, setting)
    try:
        others = parts.Decoding(setting, how), parts.PlainDecoding(setting, how), parts.Network(setting, backbone)
        found = race([*jobs, *others], rounds=rounds, steps=1, tell=lambda text: click.echo(text, err=True))
        cosines = parts.measure_agreement(setting, *(job.made for job in jobs))
    finally:
        for job in jobs:
            job.close()
    found[CEILING] = [
        combine(*both, is_shared=setting.device.type == "cpu")
        for both in zip(found[parts.DECODING], found[parts.NETWORK], strict=True)
    ]
    return {
        "schema_version": 1,
        **describe_setting(setting, backbone, megapixels),
        "machine": machine,
        "agreement": describe_cosines(cosines),
        "start_seconds": {job.name: job.starts for job in jobs},
        "rounds": {name: [one.describe() for one in taken] for name, taken in found.items()},
        "images_per_second": {name: summarise(taken) for name, taken in found.items()},
        "ratios": {name: asdict(ratio) for name, ratio in find_ratios(found, jobs).items()},
    }


def describe_setting(setting: "Setting", backbone: "Backbone", megapixels: float | None) -> dict:
    """What was measured on, as JSON-able values."""
    from benchmarks.plain_job import has_faiss
    from indexer.workers import count_cores

    return {
        "model": setting.model,
        "device": str(setting.device),
        "precision": backbone.settings.precision,
        "batch_size": backbone.batch_size,
        "workers": setting.workers or count_cores(),
        "pictures": len(setting.files),
        "megapixels": megapixels,
        "bytes": sum(file.stat().st_size for file in setting.files),
        "has_index": has_faiss(),
    }


def describe_cosines(cosines: "np.ndarray") -> dict[str, float]:
    """The least and the mean cosine of ours with the script's embeddings."""
    return {"least": float(cosines.min()), "mean": float(cosines.mean())}


def combine(decoding: "Round", network: "Round", *, is_shared: bool) -> "Round":
    """What a job of these two parts could reach: the slower one's rate, or, where both need the same cores, the rate
    of one after the other."""
    from benchmarks.race import Round

    seconds = 1 / decoding.rate, 1 / network.rate
    return Round(images=1, seconds=sum(seconds) if is_shared else max(seconds))


def find_ratios(found: "dict[str, list[Round]]", jobs: "tuple[Job, Job]") -> "dict[str, Spread]":
    """What is concluded: of the rates; and of the whole time of each job, its start included."""
    from benchmarks import job_parts as parts
    from benchmarks.race import Round, spread_ratio

    whole = [
        [
            Round(images=one.images, seconds=one.seconds + start)
            for one, start in zip(found[job.name], job.starts, strict=True)
        ]
        for job in jobs
    ]
    return {
        f"{parts.OURS} / {parts.SCRIPT}": spread_ratio(found[parts.OURS], found[parts.SCRIPT]),
        f"{parts.OURS} / {parts.SCRIPT}, with their starts": spread_ratio(*whole),
        f"{parts.OURS} / {CEILING}": spread_ratio(found[parts.OURS], found[CEILING]),
        f"{parts.DECODING} / DataLoader": spread_ratio(found[parts.DECODING], found[parts.PLAIN_DECODING]),
    }


def show_report(report: dict) -> str:
    """The figures as text."""
    from benchmarks.machine import show_machine
    from benchmarks.race import show_rate, show_ratio, spread

    starts = {name: spread(seconds).median for name, seconds in report["start_seconds"].items()}
    agreement, size = report["agreement"], report["bytes"] / report["pictures"]
    lines = [
        f"{report['pictures']:,} pictures of {size / 1e6:,.2f} MB, {report['model']} on {report['device']}: "
        f"{report['precision']}, batch {report['batch_size']}, {report['workers']} decoding processes",
        show_machine(report["machine"]),
        *([] if report["has_index"] else ["FAISS is absent: neither job made an index"]),
        f"Cosine of both jobs' embeddings: {agreement['least']:.5f} or more, {agreement['mean']:.5f} on average",
        "Start, apart from the rates: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in starts.items()),
        f"Median of {len(report['start_seconds']['ours'])} rounds (least to most):",
        *(show_rate(name, rate) for name, rate in report["images_per_second"].items()),
        *(show_ratio(name, ratio) for name, ratio in report["ratios"].items()),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
