"""The benchmark of Milvus: both sides answer the same questions, and what is told of them is what was seen."""

from pathlib import Path

import pytest

from benchmarks.milvus import EXACT, FILTERED, HERE, THERE, measure, show_report
from tests.indexer import pixel_backbone
from tests.indexer.making_engines import build_mixed, let_go


def test_both_answer_the_same_questions_and_every_time_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pixel_backbone.install(monkeypatch)
    build_mixed(tmp_path / "collection", tmp_path / "pictures", 40)
    report = measure(tmp_path / "collection", str(tmp_path / "engine.db"), "HNSW", count=3, rounds=2)
    let_go(tmp_path / "engine.db")
    assert set(report["recall"]) == {one + more for one in (HERE, THERE, EXACT) for more in ("", FILTERED)}
    assert set(report["recall"].values()) == {1.0} and 10 < report["passing"] < 30
    assert all(len(taken) == 2 and len(taken[0]) == 3 for taken in report["times_ms"].values())
    assert report["published"]["written"] == 40 and "recall 1.000" in show_report(report)
