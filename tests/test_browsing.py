"""What the benchmark of the page in a browser works out by itself."""

import numpy as np
import pytest

from benchmarks.browsing import PARTS, find_rectangle, list_parts, show_report
from indexer.overview import Map, find_inside


@pytest.mark.parametrize("count", [3, 1000, 4999, 5000])
def test_a_lasso_is_drawn_around_as_many_points_as_are_asked_for(count: int):
    places = np.random.default_rng(0).normal(size=(5000, 2)).astype(np.float32) / 5
    none = np.zeros(5000, np.int64)
    found = Map(places=places, image_ids=np.arange(5000), hashes=none, groups=none, how="pca")
    assert abs(len(find_inside(found, find_rectangle(found, count))) - count) <= 1


def test_every_part_can_be_measured_by_its_name(tmp_path):
    given = {"rounds": 2, "searches": 1, "others": 1, "think": 0.0, "selected": 3}
    assert tuple(name for name, _ in list_parts(tmp_path, tmp_path, given, tmp_path)) == PARTS


def test_figures_are_readable():
    machine = {"processor": "P", "cores": 2, "load": 0.1, "python": "3", "torch": "2", "numpy": "2", "pillow": "13"}
    report = {"schema_version": 1, "machine": machine, "click": {"click": {"p50": 161.234}, "growth": {"rss": 0.00412}}}
    assert show_report(report).splitlines()[1] == "click: click p50 161; growth rss 0.00412"
