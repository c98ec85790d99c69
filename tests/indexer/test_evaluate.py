"""The evaluation from pictures to figures, on small drawn pictures and, for the reference, on the photos."""

import io
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from indexer import evaluate as conductor
from indexer import figures, gallery
from indexer.cli import cli
from indexer.edits import EDITS, Edit
from indexer.errors import SourceError
from indexer.evaluate import evaluate
from indexer.evaluation import (
    ALL_EDITS,
    BY_MODEL,
    BY_PIXELS,
    LINEAR_PROBE,
    MEAN_AVERAGE_PRECISION,
    PRECISION_AT_1,
    RECALL_AT_1,
    Crowd,
    EvaluateSettings,
    Evaluation,
    Figure,
    SideRange,
    read_side_range,
)
from indexer.evaluation_plot import plot_evaluation, require_plot
from indexer.evaluation_text import show_evaluation
from indexer.gallery import ReadSettings, ReadTask, embed_pictures, lose_picture, read_picture
from indexer.labels import label_by_folder, read_labels
from indexer.metrics import measure_retrieval
from indexer.shards import Place, list_pictures
from seer_model.errors import SettingsError
from seer_model.preprocess import PREPROCESSINGS
from tests.indexer import pixel_backbone
from tests.indexer.making import build, draw
from tests.indexer.making_shards import make_shard

READING = ReadSettings(preprocessing=PREPROCESSINGS["vissl"], max_megapixels=50)


class InThisProcess:
    """As `indexer.workers.Workers`, without the second that starting one takes."""

    def __init__(self, work: Callable, *_: object, **__: object) -> None:
        self._work = work

    def map(self, tasks: Iterable) -> Iterator:
        return map(self._work, tasks)

    def close(self) -> None:
        pass


@pytest.fixture
def at_once(by_pixels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conductor, "Workers", InThisProcess)


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A CSV of twelve pictures in three labels, those of a label alike."""
    folder = tmp_path / "labelled"
    rng = np.random.default_rng(0)
    lines = []
    for number in range(12):
        base = Image.open(draw(tmp_path / "base.png", number % 3)).convert("RGB")
        noise = Image.fromarray(rng.integers(0, 256, (120, 140, 3), dtype=np.uint8))
        Image.blend(base, noise, 0.2).save(folder_of(folder) / f"picture-{number:02}.png")
        lines.append(f"picture-{number:02}.png,{'abc'[number % 3]}")
    return write_table(folder / "labels.csv", *lines)


def folder_of(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_table(path: Path, *lines: str, header: str = "file,label") -> Path:
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def measure(*pictures: Path, labels: Path | str | None = None, distractors: tuple = (), **chosen: object) -> Evaluation:
    chosen = {"batch_size": 4, "workers": 1, "device": "cpu", "edits": ("JPEG", "flip"), **chosen}
    return evaluate(pictures, EvaluateSettings(**chosen), labels=labels, distractors=distractors)


def place_file(path: Path) -> Place:
    return Place(str(path), 0, path.stat().st_size, str(path))


# --- the whole way -----------------------------------------------------------------------------------------------


def test_a_folder_with_bad_pictures_and_a_table_gives_every_figure_with_its_interval(
    by_pixels: None, labelled: Path, tmp_path: Path
):
    folder = labelled.parent
    (folder / "cut.png").write_bytes((folder / "picture-00.png").read_bytes()[:900])
    Image.new("RGB", (50, 40)).save(folder / "black.png")
    shutil.copy(folder / "picture-03.png", folder / "zz-same.png")
    draw(folder / "no-label.png", 77)
    distractors = [draw(tmp_path / "others" / f"{seed}.png", 100 + seed).parent for seed in range(5)]
    Image.new("RGB", (40, 40)).save(distractors[0] / "dark.png")
    stages = []
    found = evaluate(
        [folder],
        EvaluateSettings(batch_size=4, workers=2, device="cpu", copies=12, edits=("crop", "flip mirrored")),
        labels=labelled,
        distractors=distractors[:1],
        on_progress=stages.append,
    )
    assert (found.pictures, found.labelled, found.labels, found.same) == (13, 12, 3, 1)
    assert 8 <= found.edited <= 12
    reasons = {Path(one.name).name: one.reason for one in found.left_out}
    assert reasons.keys() == {"cut.png", "black.png", "dark.png"}
    assert "cut short" in reasons["cut.png"]
    assert "no finite embedding" in reasons["black.png"] == reasons["dark.png"]
    assert found.crowds == (Crowd("originals only"), Crowd("with distractors of any size", 5))
    for figure in found.figures:
        assert 0 <= figure.low <= figure.value <= figure.high <= 1, figure
        assert figure.queries == (12 if figure.crowd is None else found.edited)
    for rows in (BY_MODEL, BY_PIXELS):
        assert len(found.list_figures(rows=rows, crowd=None)) == 7
        for crowd in found.crowds:
            assert len(found.list_figures(rows=rows, crowd=crowd.name, measure=RECALL_AT_1)) == 5
    assert found.find_figure(rows=BY_MODEL, measure=PRECISION_AT_1).value == 1.0
    assert [(one.done, one.total) for one in stages if one.stage == "embedding pictures"][-1] == (16, 16)
    assert {one.stage for one in stages} >= {"loading the model", "embedding distractors", "measuring"}
    json.dumps(found.describe(), allow_nan=False)


def test_the_embeddings_are_those_that_a_build_would_store(at_once: None, labelled: Path):
    backbone = pixel_backbone.open_backbone("seer-mini")
    table = read_labels(labelled)
    rows = [pixel_backbone.embed_query(backbone, path.read_bytes(), max_megapixels=50) for path in table]
    expected = measure_retrieval(np.stack(rows), list(table.values()))
    found = measure(labels=labelled, copies=0)
    assert found.find_figure(rows=BY_MODEL, measure=PRECISION_AT_1).value == expected.precision_at_1
    precision = found.find_figure(rows=BY_MODEL, measure=MEAN_AVERAGE_PRECISION).value
    assert precision == pytest.approx(expected.mean_average_precision)


def test_the_reference_on_the_photos_is_the_one_that_is_known(
    at_once: None, photos_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """P@1 0.268 and mAP 0.114 were measured apart from this program, by other code."""
    # A probe of 14 labels takes most of a minute, and is not what is compared.
    monkeypatch.setattr("indexer.figures.can_probe", lambda: False)
    monkeypatch.setattr("indexer.evaluate.can_probe", lambda: False)
    found = measure(labels=photos_folder / "labels.csv", copies=0)
    assert (found.pictures, found.labels, found.left_out) == (699, 14, ())
    assert found.find_figure(rows=BY_PIXELS, measure=PRECISION_AT_1).value == pytest.approx(0.268, abs=0.01)
    assert found.find_figure(rows=BY_PIXELS, measure=MEAN_AVERAGE_PRECISION).value == pytest.approx(0.114, abs=0.01)


def test_equal_seeds_give_equal_figures_and_another_seed_other_ones(at_once: None, pictures: Path):
    one, again, other = (measure(pictures, labels="folders", seed=seed, edits=("crop",)) for seed in (0, 0, 1))
    assert one.figures == again.figures
    for named in ({"edit": "crop", "strength": "40 %"}, {"measure": LINEAR_PROBE}):
        values = [[figure.value for figure in found.list_figures(**named)] for found in (one, other)]
        assert values[0] != values[1], named
    values = [found.find_figure(rows=BY_MODEL, measure=PRECISION_AT_1).value for found in (one, other)]
    assert values[0] == values[1], "nothing is drawn at random in retrieval"


def test_the_pictures_of_a_limit_and_those_to_edit_are_drawn_at_random_and_kept_in_order(
    at_once: None, pictures: Path, monkeypatch: pytest.MonkeyPatch
):
    tasks: list[ReadTask] = []
    monkeypatch.setattr(InThisProcess, "map", lambda self, given: tasks.extend(given) or map(self._work, given))
    drawn, edited = set(), set()
    for seed in range(6):
        tasks.clear()
        found = measure(pictures, limit=5, copies=2, seed=seed)
        names = [task.place.path for task in tasks]
        assert (found.pictures, found.edited) == (5, 2)
        assert names == sorted(names)
        drawn.add(tuple(names))
        edited.add(tuple(task.place.path for task in tasks if task.edits))
    assert len(drawn) > 3
    assert len(edited) > 3


def test_a_copy_without_an_embedding_is_left_out_and_the_others_count(
    at_once: None, pictures: Path, monkeypatch: pytest.MonkeyPatch
):
    edit = gallery.apply_edit
    read = read_picture(ReadTask(place_file(next(pictures.rglob("picture-3.png")))), READING)
    number = int.from_bytes(read.content_hash[:8], "little")

    def fail_once(picture: Image.Image, one: Edit, **given: int) -> Image.Image:
        is_dark = given["number"] == number and one.title == "JPEG 60"
        return Image.new("RGB", (9, 9)) if is_dark else edit(picture, one, **given)

    monkeypatch.setattr(gallery, "apply_edit", fail_once)
    found = measure(pictures)
    assert [(Path(one.name).name, "no finite" in one.reason) for one in found.left_out] == [
        ("picture-3.png (JPEG 60)", True)
    ]
    recalls = found.list_figures(rows=BY_MODEL, measure=RECALL_AT_1)
    assert [(figure.strength, figure.queries) for figure in recalls][:2] == [("60", 8), ("30", 9)]
    assert [figure.value for figure in recalls if figure.edit == "JPEG"] == [1.0] * 3


def test_without_labels_copies_are_measured_and_with_them_copies_can_be_left_out(
    at_once: None, pictures: Path, labelled: Path
):
    assert {figure.measure for figure in measure(pictures).figures} == {RECALL_AT_1, MEAN_AVERAGE_PRECISION}
    alone = measure(labels=labelled, copies=0)
    assert alone.edited == 0
    assert alone.crowds == ()
    assert not [figure for figure in alone.figures if figure.edit]


def test_all_edits_together_are_the_mean_over_pictures(at_once: None, pictures: Path):
    found = measure(pictures, edits=("crop", "rotate"))
    for rows in (BY_MODEL, BY_PIXELS):
        every = found.list_figures(rows=rows, measure=MEAN_AVERAGE_PRECISION)
        assert every[-1].edit == ALL_EDITS
        assert every[-1].value == pytest.approx(np.mean([figure.value for figure in every[:-1]]))
        assert every[-1].queries == 9


# --- distractors -------------------------------------------------------------------------------------------------


def test_distractors_are_parted_by_their_short_side_and_shards_are_read(at_once: None, pictures: Path, tmp_path: Path):
    members = {f"{seed}.png": encode(Image.open(draw(tmp_path / "x.png", 50 + seed)), 32 + seed) for seed in range(4)}
    shard = make_shard(tmp_path / "others.tar", {**members, "bad.webp": b"RIFF"})
    sides = (SideRange(34), SideRange(None, 32), SideRange(33, 35))
    found = measure(pictures, distractors=(shard,), distractor_sides=sides)
    assert [(crowd.name, crowd.distractors) for crowd in found.crowds] == [
        ("originals only", 0),
        ("with distractors of 34 px and more", 2),
        ("with distractors of up to 32 px", 1),
        ("with distractors of 33 to 35 px", 3),
    ]
    assert [one.name for one in found.left_out] == ["others.tar:bad.webp"]
    only = measure(pictures, distractors=(shard,), distractor_sides=sides[1:2])
    assert only.passed_over == 3


def encode(picture: Image.Image, short_side_px: int) -> bytes:
    stream = io.BytesIO()
    picture.resize((short_side_px + 5, short_side_px)).save(stream, format="PNG")
    return stream.getvalue()


def test_a_distractor_with_the_content_of_an_original_is_passed_over_and_one_with_its_pixels_counts(
    at_once: None, pictures: Path, tmp_path: Path
):
    for file in pictures.rglob("*.png"):
        folder_of(tmp_path / "same"), folder_of(tmp_path / "pixels")
        shutil.copy(file, tmp_path / "same")
        Image.open(file).save(tmp_path / "pixels" / f"{file.stem}.bmp")
    same = measure(pictures, distractors=(tmp_path / "same",))
    assert (same.passed_over, same.crowds[1:]) == (9, ())
    twins = measure(pictures, distractors=(tmp_path / "pixels",), edits=("JPEG 60",))
    recalls = {f.crowd: f.value for f in twins.list_figures(rows=BY_MODEL, measure=RECALL_AT_1, edit="JPEG")}
    assert recalls == {"originals only": 1.0, "with distractors of any size": 0.0}


def test_more_to_be_mistaken_for_never_helps(at_once: None, pictures: Path, tmp_path: Path):
    for seed in range(40):
        draw(tmp_path / "others" / f"{seed}.png", 200 + seed)
    found = measure(pictures, distractors=(tmp_path / "others",), edits=("crop", "flip", "rotate"))
    alone, among = (found.list_figures(crowd=crowd.name) for crowd in found.crowds)
    assert all(more.value <= less.value for less, more in zip(alone, among, strict=True))
    assert any(more.value < less.value for less, more in zip(alone, among, strict=True))


@pytest.mark.parametrize(
    ("text", "range_", "inside", "outside"),
    [("128-", (128, None), 128, 127), ("-64", (None, 64), 64, 65), ("64-127", (64, 127), 127, 128)],
)
def test_a_range_of_sides_holds_both_its_ends(text: str, range_: tuple, inside: int, outside: int):
    assert read_side_range(text) == SideRange(*range_)
    assert inside in read_side_range(text)
    assert outside not in read_side_range(text)


@pytest.mark.parametrize("text", ["", "-", "128", "a-b", "200-100", "1--2", "-1-5", "9999999999-"])
def test_what_is_no_range_of_sides_is_refused(text: str):
    with pytest.raises(SettingsError, match="LEAST-MOST"):
        read_side_range(text)


# --- labels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("file,label\na.png,x\ngone.png,y\n", r"Line 3 of .*labels.csv names gone.png, and there is no such file"),
        ("file,label\na.png,x\n.,y\n", "Line 3 .* no such file"),
        ("file,label\na.png,x\n" + "n" * 5000 + ",y\n", "Line 3 .* no such file"),
        ("file,label\na.png,x\na.png,x\n", "Line 3 .* names a.png a second time"),
        ("file,label\na.png,x\n../labelled/a.png,y\n", "Line 3 .* a second time"),
        ("file,label\na.png,\n", "Line 2 .* has no label"),
        ("file,label\na.png\n", "Line 2 .* has no label"),
        ("file,label\n,x\n", "Line 2 .* has no file"),
        ("file;label\na.png;x\n", "no column file and no column label; its first line is 'file;label'"),
        ("name,label\na.png,x\n", "no column file; its first line is 'name,label'"),
        ("file,label\n", "no line below its first"),
        ("", "no column file and no column label"),
        ("file,label\na.png,x\x00y\n", "no such file|no table|NUL|a.png"),
        ('file,label\n"a.png,x\n', "no table of labels"),
        (b"file,label\n\xff\xfe.png,x\n", "no table of labels"),
    ],
)
def test_a_table_that_is_wrong_is_refused_by_its_line(tmp_path: Path, content: str | bytes, told: str):
    path = draw(tmp_path / "labelled" / "a.png", 0).with_name("labels.csv")
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    if "\0" in str(content):
        assert read_labels(path) == {path.with_name("a.png").resolve(): "x\0y"}
        return
    with pytest.raises(SourceError, match=told):
        read_labels(path)


def test_a_table_may_have_other_columns_quotes_a_mark_of_byte_order_and_absolute_paths(tmp_path: Path):
    a, b = (draw(tmp_path / "labelled" / name, 0) for name in ("a,1.png", "b.png"))
    path = write_table(a.with_name("t.csv"), f'"x, y",1,"a,1.png"\r\nz,2,{b.resolve()}', header="\ufefflabel,n,file")
    assert read_labels(path) == {a.resolve(): "x, y", b.resolve(): "z"}


def test_labels_are_of_files_in_the_folder_that_is_given_as_well(at_once: None, labelled: Path, tmp_path: Path):
    link = tmp_path / "link"
    link.symlink_to(labelled.parent)
    for folder in (labelled.parent, link):
        found = measure(folder, labels=labelled, copies=0)
        assert (found.pictures, found.labelled) == (12, 12)


def test_a_link_to_a_file_has_its_label_and_pictures_without_one_take_no_part_in_the_figures_with_labels(
    at_once: None, labelled: Path
):
    before = measure(labels=labelled, copies=0)
    for number in range(12):
        path = labelled.parent / f"picture-{number:02}.png"
        if number % 2:
            path.rename(folder_of(labelled.parent.parent / "elsewhere") / path.name)
            path.symlink_to(labelled.parent.parent / "elsewhere" / path.name)
        draw(labelled.parent / f"none-{number}.png", number)
    after = measure(labelled.parent, labels=labelled, copies=0)
    assert (after.pictures, after.labelled) == (24, 12)
    assert after.figures == before.figures


def test_the_name_of_the_folder_can_be_the_label(at_once: None, pictures: Path):
    found = measure(pictures, labels="folders", copies=0)
    assert (found.pictures, found.labelled, found.labels) == (9, 9, 2)


def test_the_folder_in_a_shard_is_a_label_and_its_top_is_none(tmp_path: Path):
    data = draw(tmp_path / "x.png", 0).read_bytes()
    shard = make_shard(tmp_path / "a:b.tar", {"cat/1.png": data, "deep/dog/2.png": data, "3.png": data})
    assert [label_by_folder(place) for place in list_pictures(shard)] == ["cat", "dog", None]
    assert label_by_folder(place_file(tmp_path / "x.png")) == tmp_path.name


def test_labels_that_cannot_be_told_apart_are_refused_before_any_work(at_once: None, labelled: Path, pictures: Path):
    names = [f"picture-{number:02}.png" for number in range(4)]
    one = write_table(labelled.with_name("one.csv"), *(f"{name},x" for name in names))
    with pytest.raises(SourceError, match="All labelled pictures have the label 'x'"):
        measure(labels=one)
    each = write_table(labelled.with_name("each.csv"), *(f"{name},{name}" for name in names))
    with pytest.raises(SourceError, match="No label of .*each.csv is on two pictures"):
        measure(labels=each)
    with pytest.raises(SourceError, match="None of the 9 pictures has a label in .*labels.csv"):
        measure(pictures, labels=labelled)


def test_where_too_few_labelled_pictures_can_be_read_copies_are_measured_all_the_same(at_once: None, labelled: Path):
    for number in range(12):
        if number % 3:
            (labelled.parent / f"picture-{number:02}.png").write_bytes(b"no picture")
    found = measure(labels=labelled)
    assert (found.pictures, len(found.left_out), found.chance) == (4, 8, None)
    assert "too few of the labelled pictures" in found.notes[0]
    assert found.figures
    assert found.notes[0] in show_evaluation(found)


def test_without_scikit_learn_the_probes_are_left_out_with_a_word(
    at_once: None, labelled: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(figures.importlib.util, "find_spec", lambda name: None)
    found = measure(labels=labelled, copies=0)
    assert found.find_figure(measure=PRECISION_AT_1)
    assert not found.find_figure(measure=LINEAR_PROBE)
    assert "scikit-learn is not installed" in show_evaluation(found)


# --- what cannot be measured -------------------------------------------------------------------------------------


def test_nothing_to_evaluate_is_said(at_once: None, tmp_path: Path, pictures: Path):
    with pytest.raises(SourceError, match="There is nothing to evaluate"):
        measure()
    with pytest.raises(SettingsError, match="there is nothing to measure"):
        measure(pictures, copies=0)
    with pytest.raises(SettingsError, match="leave --distractors out"):
        measure(pictures, labels="folders", copies=0, distractors=(pictures,))
    with pytest.raises(SettingsError, match="name them with --distractors"):
        measure(pictures, distractor_sides=(SideRange(64),))
    (folder_of(tmp_path / "bad") / "a.png").write_bytes(b"no picture")
    with pytest.raises(SourceError, match=r"None of the 1 pictures could be embedded. The first one is .*a.png: The"):
        measure(tmp_path / "bad")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"limit": 1}, "--limit is 1"),
        ({"copies": -1}, "--copies is -1"),
        ({"seed": -1}, "--seed is -1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"workers": 0}, "workers is 0"),
        ({"max_megapixels": 0}, "--max-megapixels is 0"),
    ],
)
def test_a_setting_outside_its_range_is_refused(wrong: dict, told: str):
    with pytest.raises(SettingsError, match=told):
        EvaluateSettings(**wrong)


# --- reading and editing -----------------------------------------------------------------------------------------


def test_a_picture_is_edited_alike_wherever_it_lies(tmp_path: Path):
    one = draw(tmp_path / "one.png", 3)
    other = folder_of(tmp_path / "deep") / "other.png"
    shutil.copy(one, other)
    first, second = (read_picture(ReadTask(place_file(path), tuple(EDITS)), READING) for path in (one, other))
    assert len(first.views) == len(EDITS) + 1
    for a, b in zip(first.views, second.views, strict=True):
        np.testing.assert_array_equal(a.pixels, b.pixels)


def test_a_large_picture_is_edited_at_a_size_where_edits_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sizes = []
    monkeypatch.setattr(gallery, "apply_edit", lambda picture, *_, **__: sizes.append(picture.size) or picture)
    for name, size in (("wide.jpg", (3000, 1500)), ("small.png", (300, 200)), ("tall.png", (600, 2400))):
        Image.new("RGB", size, "teal").save(tmp_path / name)
        read_picture(ReadTask(place_file(tmp_path / name), ("crop 60 %",)), READING)
    assert sizes == [(1024, 512), (300, 200), (256, 1024)]


def test_the_reference_is_the_pixels_that_the_model_sees_averaged(tmp_path: Path):
    view = read_picture(ReadTask(place_file(draw(tmp_path / "a.png", 1))), READING).views[0]
    expected = view.pixels.reshape(16, 14, 16, 14, 3).mean(axis=(1, 3)).reshape(-1) - 127.5
    np.testing.assert_allclose(view.small, expected, atol=1)


def test_whatever_is_wrong_with_a_picture_becomes_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    task = ReadTask(place_file(draw(tmp_path / "a.png", 1)), ("crop 60 %",))
    monkeypatch.setattr(gallery, "apply_edit", lambda *_, **__: 1 / 0)
    assert read_picture(task, READING).reason.startswith("The decoder failed with ZeroDivisionError")
    (tmp_path / "a.png").unlink()
    assert "not there" in read_picture(task, READING).reason
    assert lose_picture(task, "It was ended.").reason == "It was ended."


def test_pictures_come_in_order_with_their_rows_however_they_are_batched(by_pixels: None, tmp_path: Path):
    backbone = pixel_backbone.open_backbone("seer-mini")
    tasks = [ReadTask(place_file(draw(tmp_path / f"{n}.png", n)), tuple(EDITS)[: n % 4]) for n in range(12)]
    (tmp_path / "5.png").write_bytes(b"bad")
    read = [read_picture(task, READING) for task in tasks]
    together = list(embed_pictures(backbone, iter(read), batch_size=1))
    assert [embedded.picture for embedded in together] == read
    for embedded in together:
        alone = backbone.embed([view.pixels for view in embedded.picture.views] or [np.zeros((224, 224, 3))])
        np.testing.assert_array_equal(embedded.by_model, alone[: len(embedded.picture.views)])
        assert len(embedded.by_pixels) == len(embedded.picture.views)


# --- texts, plot, command ----------------------------------------------------------------------------------------


def test_the_text_shows_each_figure_with_its_interval_beside_the_reference(at_once: None, pictures: Path):
    found = measure(pictures, labels="folders", edits=("crop",))
    text = show_evaluation(found)
    for measured in (PRECISION_AT_1, MEAN_AVERAGE_PRECISION):
        both = [found.find_figure(rows=rows, measure=measured, crowd=None) for rows in (BY_MODEL, BY_PIXELS)]
        assert both[0].value != both[1].value
        line = next(line for line in text.splitlines() if line.strip().startswith(measured))
        assert [part.strip() for part in line.split("  ")[-2:]] == list(map(show, both))
    crop = {"edit": "crop", "strength": "60 %"}
    three = [(BY_MODEL, RECALL_AT_1), (BY_MODEL, MEAN_AVERAGE_PRECISION), (BY_PIXELS, RECALL_AT_1)]
    line = next(line for line in text.splitlines() if line.strip().startswith("crop 60 %"))
    expected = [show(found.find_figure(rows=rows, measure=measured, **crop)) for rows, measured in three]
    assert [part.strip() for part in line.split("  ") if part][-3:] == expected
    assert "9 pictures, 9 of them with one of 2 labels; copies made of 9" in text
    assert "searched among 9 originals" in text
    assert "all edits" in text
    assert max(map(len, text.splitlines())) <= 120


def show(figure: Figure) -> str:
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


def test_the_plot_is_a_png_with_a_panel_for_labels_and_for_each_crowd(at_once: None, labelled: Path, tmp_path: Path):
    found = measure(labels=labelled)
    path = tmp_path / "plot.png"
    plot_evaluation(found, path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        tall = picture.size
    plot_evaluation(measure(labels=labelled, copies=0), path)
    with Image.open(path) as picture:
        assert picture.height < tall[1]
        assert np.ptp(np.asarray(picture.convert("L"))) > 100
    assert [file.name for file in tmp_path.glob("*plot*")] == ["plot.png"]


def test_a_plot_that_could_not_be_written_is_refused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for wrong, told in (("plot.jpg", r"ends in .png"), ("none/plot.png", "folder that is there")):
        with pytest.raises(SettingsError, match=told):
            require_plot(tmp_path / wrong)
    require_plot(tmp_path / "plot.PNG")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="pip install matplotlib"):
        require_plot(tmp_path / "plot.png")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["evaluate", *map(str, arguments)])


def test_the_command_prints_one_line_of_json_and_draws(at_once: None, labelled: Path, tmp_path: Path):
    done = run("--labels", labelled, "--edit", "crop 60 %", "--json", "--plot", tmp_path / "p.png", "--seed", "4")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert (told["schema_version"], told["pictures"], told["settings"]["seed"]) == (1, 12, 4)
    figure = next(one for one in told["figures"] if one["edit"] == "crop")
    assert figure.keys() == Figure.__dataclass_fields__.keys()
    assert (figure["strength"], figure["rows"], figure["measure"]) == ("60 %", "model", "recall@1")
    assert (tmp_path / "p.png").is_file()


def test_neither_faiss_nor_streamlit_is_needed(at_once: None, pictures: Path, monkeypatch: pytest.MonkeyPatch):
    for library in ("faiss", "streamlit"):
        monkeypatch.setitem(sys.modules, library, None)
    done = run(pictures, "--edit", "flip", "--limit", "4")
    assert done.exit_code == 0, done.output
    assert "searched among 4 originals" in done.stdout


def test_without_pictures_the_collection_is_evaluated_with_its_model(at_once: None, pictures: Path, place: Path):
    build(place, pictures, model="regnety-400mf")
    done = run("--collection", place, "--edit", "flip")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("Model regnety-400mf; 9 pictures; copies made of 9\n")
    assert "embedding pictures 9/9" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "There is no collection yet"),
        (["--labels", "folders"], "There is no collection yet"),
        (["--labels", "gone.csv"], "The labels in gone.csv cannot be read (No such file or directory)"),
        (["gone"], "There is no gone"),
        (["--labels", "x", "--edit", "sepia"], "There is no edit 'sepia'"),
        (["--labels", "x", "--distractors-px", "9"], "--distractors-px is '9'"),
        (["--labels", "x", "--plot", "p.gif"], "ends in .png"),
    ],
)
def test_what_the_person_can_put_right_is_said_in_a_sentence(at_once: None, arguments: list[str], told: str):
    done = run(*arguments)
    assert done.exit_code == 1
    assert done.stderr.startswith("seer: ")
    assert told in done.stderr
    assert "Traceback" not in done.output
