"""A walk through links in rings, links out of the folder, links to nothing, and what other programs leave there."""

import os
from itertools import islice
from pathlib import Path

import pytest

from indexer.collection import Collection
from indexer.sources import Walk
from tests.indexer.making import build, draw

MANY = 100
"""More than there are files: who follows a ring finds the same ones again and again."""
FOUND = ["deep/deeper/own.png", "linked.png", "own.png"]


@pytest.fixture
def tangled(tmp_path: Path) -> Path:
    """A folder with two pictures of its own and a link to a third; all else in it is to be passed over."""
    folder, outside = tmp_path / "tangled", tmp_path / "outside"
    for seed, name in enumerate(("own.png", "deep/deeper/own.png", ".hidden/a.png", ".a.png", "deep/@EAdir/a.png")):
        draw(folder / name, seed)
    draw(outside / "linked.png", seed=10)
    draw(outside / "folder" / "foreign.png", seed=11)
    links = {
        "deep/deeper/ring": folder,
        "deep/sibling": folder / "deep" / "deeper",
        "itself": folder / "itself",
        "itself.png": folder / "itself.png",
        "dangling.png": tmp_path / "gone.png",
        "away": outside / "folder",
        "away.png": outside / "folder",
        "linked.png": outside / "linked.png",
    }
    for name, target in links.items():
        (folder / name).symlink_to(target)
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500))
    return folder


def test_links_to_folders_are_not_followed_and_links_to_files_are(tangled: Path):
    walk = Walk([tangled])
    found = sorted(os.path.relpath(file.path, tangled) for file in islice(walk, MANY))
    assert found == FOUND
    assert sorted(os.path.relpath(path, tangled) for path in walk.unreadable) == ["itself", "itself.png"]
    # ring, sibling, itself twice, dangling, away twice, Thumbs.db; what is hidden is not looked at.
    assert walk.ignored == 8


@pytest.mark.usefixtures("by_pixels")
def test_a_build_of_a_folder_with_links_ends_and_knows_each_file_once(tangled: Path, place: Path):
    report = build(place, tangled)
    assert (report.found, report.embedded, report.failed, report.pending) == (3, 3, 0, 0)
    with Collection(place) as collection:
        paths = [path for image in collection.list_images() for path in image.paths]
    assert sorted(str(path.relative_to(tangled)) for path in paths) == FOUND
    assert build(place).unchanged == 3
