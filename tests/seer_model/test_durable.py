"""What was written is on the disk before it takes the place of what was there."""

import os

import pytest

from seer_model import durable


def test_the_bytes_come_before_the_name_and_the_name_before_the_return(tmp_path, monkeypatch):
    calls = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(handle: int) -> None:
        calls.append(("sync", os.fstat(handle).st_ino))
        real_sync(handle)

    def replace(source: object, target: object) -> None:
        calls.append(("rename", os.stat(source).st_ino))
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    durable.write_text_durably(tmp_path / "a.txt", "text")
    file, folder = (tmp_path / "a.txt").stat().st_ino, tmp_path.stat().st_ino
    assert calls == [("sync", file), ("rename", file), ("sync", folder)]
    assert (tmp_path / "a.txt").read_text() == "text"


def test_a_write_that_fails_leaves_the_older_file_and_nothing_beside_it(tmp_path):
    durable.write_text_durably(tmp_path / "a.txt", "old")
    with pytest.raises(ZeroDivisionError):
        durable.write_durably(tmp_path / "a.txt", lambda aside: aside.write_text(str(1 / 0)))
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
