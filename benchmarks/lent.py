"""To and from a computer with a GPU that is lent for minutes: python -m benchmarks.lent prepare | call | join

    prepare    here: folders of what is to travel, in .lent/, each small enough for one call
    call       there: what has come along is unpacked beside the repository, `benchmarks.on_gpu` runs, and what it has
               written so far is packed
    join       here: what came back, in a folder

Of a run that did not come to its end the newest checkpoint comes back (`seer_model.run_folder` says what lies there),
and `prepare --run` takes it along once more.

Rule: the repository there is written anew with each call, so nothing stays in it; large things travel in pieces.
"""

import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from benchmarks.on_gpu import PARTS, REPOSITORY, exiting_on_sigterm
from benchmarks.timed_pretraining import HALF, name_half

BROUGHT = REPOSITORY / ".lent"
ROOM = REPOSITORY.parent / "seer-lent"
"""There, from call to call: wheels, pictures, what was written."""
PIECE_BYTES = 16_000_000
PIECES_EACH = 2
"""Of a run, in one folder that travels."""
FIGURES, RUN, PHOTOS = "figures", "run", "photos"
"""What travels in pieces."""
WEIGHTS = ".safetensors"
CLOSING_SECONDS = 40.0
"""Of a call, for a step that is to save itself, and for packing."""
WHEELS = ("blake3", "platformdirs")
"""What the host is known to lack."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


@click.group()
def main() -> None:
    """To and from a computer with a GPU that is lent for minutes."""


@main.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--run", type=click.Path(exists=True, file_okay=False, path_type=Path), help="To be gone on with.")
@click.option("--python", default="3.12", show_default=True, help="Of that computer.")
def prepare(data: Path, run: Path | None, python: str) -> None:
    """Make folders of what is to travel out of DATA/photos and the shards in DATA/unlabelled."""
    shutil.rmtree(BROUGHT, ignore_errors=True)
    fetch_wheels(BROUGHT / "wheels", python)
    write_pieces([(data / "photos", PHOTOS)], BROUGHT / PHOTOS, PHOTOS)
    for shard in sorted((data / "unlabelled").glob("*.tar")):
        compress(shard, BROUGHT / shard.stem)
    if run is not None:
        split_into_folders(write_pieces(list_run(run), BROUGHT / RUN, RUN))
    for folder in sorted(BROUGHT.iterdir()):
        click.echo(f"{sum(file.stat().st_size for file in folder.iterdir()) / 1e6:6.1f} MB  {folder}")


@main.command()
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
@click.option("--limit", type=click.FloatRange(1), default=540, show_default=True, help="Seconds the call may take.")
@click.option("--rehearse", "is_rehearsed", is_flag=True, help="In small, on a pretended GPU.")
@click.option("--back", required=True, type=click.Path(path_type=Path), help="For what is to come back.")
def call(parts: tuple[str, ...], limit: float, is_rehearsed: bool, back: Path) -> None:
    """Unpack what has come along, run PARTS, pack what they have written."""
    started = time.monotonic()
    unpack(BROUGHT, ROOM)
    if not parts:
        return
    seconds = max(1.0, limit - CLOSING_SECONDS - (time.monotonic() - started))
    try:
        with exiting_on_sigterm():
            status = run_parts([*parts, "--seconds", str(seconds), *(["--rehearse"] if is_rehearsed else [])], ROOM)
    finally:
        for name, members in ((FIGURES, list_figures(ROOM / "out")), (RUN, list_unfinished(ROOM / "out"))):
            write_pieces(members, back, name)
    sys.exit(status)


@main.command()
@click.argument("came", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
def join(came: Path, folder: Path) -> None:
    """Unpack the pieces in CAME into FOLDER."""
    for name in (FIGURES, RUN):
        found = len(list(came.glob(f"{name}-*-of-*")))
        if not join_pieces(came, name, folder) and (found or name == FIGURES):
            raise click.ClickException(f"Of {name} {found} pieces lie in {came}, and some are missing.")


def fetch_wheels(folder: Path, python: str) -> None:
    """Of the versions that are tested. Raises: subprocess.CalledProcessError."""
    where = ["--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    constraints = ["--no-deps", "-c", str(REPOSITORY / "constraints.txt"), "-d", str(folder)]
    pip = [sys.executable, "-m", "pip", "download", "-q", *where, *platforms, *constraints, *WHEELS]
    subprocess.run(pip, check=True)


def compress(shard: Path, folder: Path) -> None:
    """A shard without the air between its members."""
    folder.mkdir(parents=True)
    with open(shard, "rb") as whole, gzip.open(folder / f"{shard.name}.gz", "wb") as small:
        shutil.copyfileobj(whole, small)


def write_pieces(members: Iterable[tuple[Path, str]], folder: Path, name: str) -> list[Path]:
    """A tar of files and folders under the names they are to have, in pieces NAME-00-of-04, ...; none of nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    members, packed = list(members), io.BytesIO()
    if not members:
        return []
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path, placed in members:
            tar.add(path, placed)
    whole = packed.getvalue()
    starts = range(0, len(whole), PIECE_BYTES)
    pieces = [folder / f"{name}-{number:02}-of-{len(starts):02}" for number in range(len(starts))]
    for piece, start in zip(pieces, starts, strict=True):
        piece.write_bytes(whole[start : start + PIECE_BYTES])
    return pieces


def join_pieces(came: Path, name: str, folder: Path) -> bool:
    """Unpack a tar that came in pieces. Returns: whether all of them are there."""
    pieces = sorted(came.glob(f"{name}-*-of-*"))
    if not pieces or len(pieces) < int(pieces[0].name.rpartition("-")[2]):
        return False
    whole = io.BytesIO(b"".join(piece.read_bytes() for piece in pieces))
    with tarfile.open(fileobj=whole) as tar:
        tar.extractall(folder, filter="data")
    return True


def split_into_folders(pieces: list[Path]) -> None:
    """Put so many pieces each into a folder of their own, beside theirs."""
    for number, piece in enumerate(pieces):
        folder = piece.parent.with_name(f"{piece.parent.name}-{number // PIECES_EACH}")
        folder.mkdir(exist_ok=True)
        piece.rename(folder / piece.name)
    pieces[0].parent.rmdir()


def unpack(brought: Path, room: Path) -> None:
    """What has come along with this call, and take it away; pieces wait until all of theirs are there."""
    waiting = room / "pieces"
    for folder in (waiting, room / "pictures", room / "photos", room / "out"):
        folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(file for file in brought.rglob("*") if file.is_file()):
        if file.suffix == ".gz":
            with gzip.open(file) as small, open(room / "pictures" / file.stem, "wb") as whole:
                shutil.copyfileobj(small, whole)
        elif file.suffix != ".whl":
            shutil.copy(file, waiting)
    if wheels := sorted(map(str, brought.rglob("*.whl"))):
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--upgrade"]
        subprocess.run([*pip, "--target", str(room / "site"), *wheels], check=True)
    for name, folder in ((PHOTOS, room), (RUN, room / "out")):
        if join_pieces(waiting, name, folder):
            for piece in waiting.glob(f"{name}-*"):
                piece.unlink()
    shutil.rmtree(brought, ignore_errors=True)  # Ignored files stay there from call to call.


def run_parts(words: list[str], room: Path) -> int:
    """`on_gpu`, with the wheels. Returns: its status."""
    places = ["--photos", room / "photos", "--pictures", room / "pictures", "--output", room / "out"]
    command = [sys.executable, "-m", "benchmarks.on_gpu", *words, *map(str, places)]
    environment = os.environ | {"PYTHONPATH": str(room / "site"), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, cwd=REPOSITORY, env=environment) as process:
        try:
            return process.wait()
        finally:
            process.terminate()  # It ends its step, and waits for it.


def list_figures(written: Path) -> Iterator[tuple[Path, str]]:
    """Figures, logs and curves, and models in half precision."""
    for file in sorted(written.glob("*")):
        if file.is_file() and (file.suffix != WEIGHTS or file.stem.endswith(HALF)):
            yield file, file.name
    for run in find_runs(written):
        yield from list_files(run)


def list_unfinished(written: Path) -> Iterator[tuple[Path, str]]:
    """Of each run that has no model in half precision what it needs to go on."""
    for run in find_runs(written):
        if not name_half(run.with_suffix("")).exists():
            yield from list_run(run)


def find_runs(written: Path) -> list[Path]:
    """The folders of runs."""
    return sorted(written.glob(f"*{WEIGHTS}.run"))


def list_run(run: Path) -> Iterator[tuple[Path, str]]:
    """Settings, log and the newest checkpoint."""
    yield from list_files(run)
    for step in sorted(run.glob("step-*"))[-1:]:
        yield step, f"{run.name}/{step.name}"


def list_files(run: Path) -> Iterator[tuple[Path, str]]:
    """Without its checkpoints."""
    return ((file, f"{run.name}/{file.name}") for file in sorted(run.glob("*")) if file.is_file())


if __name__ == "__main__":
    main()
