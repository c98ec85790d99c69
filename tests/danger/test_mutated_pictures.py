"""Thousands of pictures that lie, through worker processes and through a whole build: no crash, no hang, no swelling,
and each is either decoded or listed with a reason.

`--long` tries 50,000 of them. Equal seeds give equal files; a file's number, in its name, leads to it again.
"""

import multiprocessing
import os
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from PIL import EpsImagePlugin, Image

from indexer.collection import Collection
from indexer.decode import DecodedFile, DecodePool, DecodeSettings, DecodeTask, decode_file, hash_content
from indexer.workers import DIED
from seer_model.pictures import bound_memory
from seer_model.preprocess import PREPROCESSINGS
from tests.danger import tally
from tests.danger.making_mutants import PROGRAM_STARTS, Mutant, make_mutants, make_program
from tests.indexer import pixel_backbone
from tests.indexer.making import build

SEED = 20261
COUNT, LONG_COUNT, BUILT = 2000, 50_000, 300
AT_ONCE = 1000
MEGAPIXELS = 4.0
SETTINGS = DecodeSettings(
    preprocessing=PREPROCESSINGS["vissl"], max_megapixels=MEGAPIXELS, max_seconds=20, thumbnail_px=64
)


def write(folder: Path, mutants: list[Mutant]) -> list[Path]:
    """The mutants as files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / mutant.name for mutant in mutants]
    for path, mutant in zip(paths, mutants, strict=True):
        path.write_bytes(mutant.data)
    return paths


def judge(mutant: Mutant, decoded: DecodedFile) -> str | None:
    """What is wrong with how a mutant was dealt with; None: nothing."""
    if decoded.reason is None:
        is_shown = decoded.thumbnail[8:12] == b"WEBP" and decoded.pixels.shape == (224, 224, 3)
        is_right = not mutant.is_whole or (decoded.width, decoded.height) == (96, 64)
        return None if is_shown and is_right else "decoded wrongly"
    if mutant.is_whole:
        return f"refused, though it is whole: {decoded.reason}"
    if decoded.reason == DIED or "took longer" in decoded.reason or "decoder failed with" in decoded.reason:
        return decoded.reason
    is_sentence = decoded.reason.endswith(".") and decoded.reason.isprintable() and mutant.name not in decoded.reason
    return None if is_sentence else f"no sentence: {decoded.reason}"


def read_peaks_mb() -> list[int]:
    """What the worker processes have had of memory at most."""
    peaks = []
    for process in multiprocessing.active_children():
        status = Path(f"/proc/{process.pid}/status").read_text()
        peaks += [int(line.split()[1]) >> 10 for line in status.splitlines() if line.startswith("VmHWM")]
    return peaks


def test_every_mutated_picture_is_decoded_or_has_a_reason(tmp_path: Path, request: pytest.FixtureRequest):
    count = LONG_COUNT if request.config.getoption("--long", default=False) else COUNT
    trap = tmp_path / "made by a picture"
    mutants, wrong, outcomes = make_mutants(SEED, count, trap), {}, Counter()
    pool = DecodePool(SETTINGS, workers=2)
    while batch := list(islice(mutants, AT_ONCE)):
        paths = write(tmp_path, batch)
        results = list(pool.decode(DecodeTask(str(path)) for path in paths))
        assert [result.path for result in results] == [str(path) for path in paths]
        for path, mutant, result in zip(paths, batch, results, strict=True):
            outcomes[result.format if result.reason is None else "refused"] += 1
            if said := judge(mutant, result):
                wrong[mutant.name] = said
            path.unlink()
    peaks = read_peaks_mb() if sys.platform == "linux" else []
    pool.close()
    tally.add("mutated pictures tried", outcomes.total())
    tally.add("wrong answers", len(wrong))
    print(f"\n{outcomes.total():,} mutated pictures, seed {SEED}: {dict(outcomes.most_common())}; peaks {peaks} MB")
    assert not wrong and not trap.exists()
    assert outcomes.total() == count and len(outcomes) == 11, "each format had some that were decoded"
    assert all(peak << 20 <= bound_memory(MEGAPIXELS) for peak in peaks), peaks


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")
@pytest.mark.parametrize("start", PROGRAM_STARTS)
def test_a_picture_that_is_a_program_is_not_run(start: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trap, interpreter = tmp_path / "made by a picture", tmp_path / "bin" / "gs"
    # Ghostscript itself need not be there, and would not let the program write.
    interpreter.parent.mkdir()
    interpreter.write_text(f"#!/bin/sh\necho run >'{trap}'\n")
    interpreter.chmod(0o755)
    monkeypatch.setenv("PATH", f"{interpreter.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    (path,) = write(tmp_path / "pictures", [Mutant("program.jpg", make_program(trap, start))])
    assert decode_file(DecodeTask(str(path)), SETTINGS).reason and not trap.exists()
    with pytest.raises(OSError), Image.open(path) as opened:
        opened.load()
    assert trap.exists(), "it would be run by who opened it as any picture"


def test_a_build_accounts_for_every_mutated_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pixel_backbone.install(monkeypatch)
    mutants = list(make_mutants(SEED + 1, BUILT, trap := tmp_path / "made by a picture"))
    pictures, place = tmp_path / "pictures", tmp_path / "collection"
    paths = write(pictures, mutants)
    report = build(place, pictures, workers=2, max_megapixels=MEGAPIXELS)
    with Collection(place) as collection:
        failed = {Path(failure.path) for failure in collection.list_unsearchable(0, BUILT)}
        found = {path for path in paths if path not in failed and is_searchable(collection, path)}
    unaccounted = set(paths) - failed - found
    tally.add("mutated pictures tried", len(paths))
    tally.add("files unaccounted for", len(unaccounted))
    assert not unaccounted and not trap.exists()
    assert report.found == len(paths) and report.failed == len(failed) and report.pending == 0
    assert {pictures / mutant.name for mutant in mutants if mutant.is_whole} <= found


def is_searchable(collection: Collection, path: Path) -> bool:
    """Whether a picture finds itself, by its bytes."""
    data = path.read_bytes()
    if collection.find_image(hash_content(data).hex()) is None:
        return False
    return any(path in neighbour.paths for neighbour in collection.find_similar(data, count=BUILT))
