"""Worker processes: results in order, and no file takes the others down."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer import decode
from indexer.decode import DecodePool, DecodeSettings, DecodeTask, decode_file, hash_content
from seer_model.preprocess import PREPROCESSINGS
from tests.indexer.failing_decoders import die_at_poison, hang_at_poison, want_too_much
from tests.indexer.making import draw

SETTINGS = DecodeSettings(preprocessing=PREPROCESSINGS["vissl"], max_megapixels=200, thumbnail_px=64)


def test_one_read_gives_hash_size_thumbnail_and_input(tmp_path: Path):
    file = draw(tmp_path / "one.png", seed=1)
    decoded = decode_file(DecodeTask(str(file)), SETTINGS)
    assert decoded.content_hash == hash_content(file.read_bytes())
    assert (decoded.width, decoded.height, decoded.format, decoded.reason) == (140, 120, "PNG", None)
    assert decoded.pixels.shape == (224, 224, 3)
    assert decoded.thumbnail[8:12] == b"WEBP"
    assert (decoded.size_bytes, decoded.mtime_ns) == (file.stat().st_size, file.stat().st_mtime_ns)


def test_known_content_is_not_decoded(tmp_path: Path):
    file = draw(tmp_path / "one.png", seed=1)
    decoded = decode_file(DecodeTask(str(file), (b"x" * 32, hash_content(file.read_bytes()))), SETTINGS)
    assert decoded.pixels is None and decoded.thumbnail is None and decoded.reason is None


def test_a_file_that_vanished_has_a_reason(tmp_path: Path):
    decoded = decode_file(DecodeTask(str(tmp_path / "gone.png")), SETTINGS)
    assert decoded.content_hash is None and "vanished" in decoded.reason


def test_a_file_that_changes_while_it_is_read_has_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = draw(tmp_path / "one.png", seed=1)
    fstat, calls = os.fstat, []

    def grow_in_between(handle: int) -> os.stat_result:
        calls.append(handle)
        if len(calls) == 2:
            with file.open("ab") as late:
                late.write(b"more")
        return fstat(handle)

    monkeypatch.setattr(decode.os, "fstat", grow_in_between)
    assert "changed while it was read" in decode_file(DecodeTask(str(file)), SETTINGS).reason


def test_results_come_in_the_order_of_the_tasks(tmp_path: Path):
    files = [str(draw(tmp_path / f"{number}.png", seed=number)) for number in range(40)]
    pool = DecodePool(SETTINGS, workers=2)
    assert [decoded.path for decoded in pool.decode(DecodeTask(file) for file in files)] == files
    pool.close()


@pytest.mark.parametrize(("total", "chunk"), [(0, 4), (127, 4), (128, 16)])
def test_many_files_travel_many_at_a_time_and_their_decoders_give_way(monkeypatch, total: int, chunk: int):
    asked = {}
    monkeypatch.setattr(decode, "Workers", lambda *_, **how: asked.update(how))
    monkeypatch.setattr(decode, "NICENESS", 3)
    DecodePool(SETTINGS, workers=2, total=total)
    assert (asked["chunk"], asked["limits"].niceness) == (chunk, 3)


def test_a_worker_killed_by_one_file_costs_that_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(decode, "decode_file", die_at_poison)
    names = [f"{number:02d}{'-poison' if number in (3, 20) else ''}.png" for number in range(30)]
    files = [str(draw(tmp_path / name, seed=number)) for number, name in enumerate(names)]
    pool = DecodePool(SETTINGS, workers=2)
    results = list(pool.decode(DecodeTask(file) for file in files))
    pool.close()
    assert [decoded.path for decoded in results] == files
    assert [Path(decoded.path).name for decoded in results if decoded.reason] == ["03-poison.png", "20-poison.png"]
    assert "ended from outside" in results[3].reason
    assert results[3].content_hash == hash_content(Path(files[3]).read_bytes()), "the next build leaves it alone"


def test_a_picture_that_hangs_its_decoder_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(decode, "decode_file", hang_at_poison)
    files = [str(draw(tmp_path / f"{n:02d}{'-poison' * (n in (2, 3, 9))}.png", seed=n)) for n in range(12)]
    pool = DecodePool(replace(SETTINGS, max_seconds=1), workers=2)
    results = list(pool.decode(DecodeTask(file) for file in files))
    pool.close()
    assert [result.path for result in results] == files
    assert [n for n, result in enumerate(results) if result.reason] == [2, 3, 9]
    assert "longer than 1 s" in results[2].reason and "--max-seconds" in results[2].reason
    assert results[2].content_hash == hash_content(Path(files[2]).read_bytes())


@pytest.mark.skipif(sys.platform != "linux", reason="the other systems have no such limit")
def test_memory_beyond_the_limit_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(decode, "decode_file", want_too_much)
    pool = DecodePool(replace(SETTINGS, max_megapixels=1), workers=1)
    (result,) = pool.decode([DecodeTask(str(draw(tmp_path / "poison.png", seed=1)))])
    pool.close()
    assert "MemoryError" in result.reason and result.content_hash is not None


@pytest.mark.parametrize("suffix", [".webp", ".png"])
def test_every_picture_within_the_limit_has_the_memory_that_it_needs(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # With transparency: nothing takes more. What does not depend on its size is cut down to what a process is.
    monkeypatch.setattr(decode, "MAX_FILE_BYTES", 1 << 20)
    monkeypatch.setattr("seer_model.pictures.DECODER_BYTES", 128 << 20)
    side = 6000
    row = Image.fromarray(np.arange(side * 4, dtype=np.uint32).astype(np.uint8).reshape(1, side, 4), "RGBA")
    row.resize((side, side), Image.Resampling.NEAREST).save(
        tmp_path / f"large{suffix}", method=0, quality=10, alpha_quality=0, compress_level=1
    )
    settings = replace(SETTINGS, max_megapixels=side * side / 1e6)
    pool = DecodePool(settings, workers=1)
    (result,) = pool.decode([DecodeTask(str(tmp_path / f"large{suffix}"))])
    pool.close()
    assert (result.width, result.height, result.reason) == (side, side, None)
