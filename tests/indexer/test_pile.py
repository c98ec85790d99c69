"""Piles of pictures: what each kind of source brings, the order, and what bad pictures do."""

import gzip
import io
import itertools
import os
import shutil
import signal
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer import pile
from indexer.errors import SourceError
from indexer.pile import Pile, SqueezeSettings, list_sources, open_pile, recognise, squeeze_place
from indexer.shards import Place
from indexer.sources import Walk
from seer_model.errors import SettingsError
from seer_model.squares import Square, squeeze
from tests.indexer.making_shards import make_shard, png
from tests.seer_model.making_pictures import encode, make_scene

HOW = SqueezeSettings(side_px=16)


def die_at_poison(place: Place, how: SqueezeSettings) -> Square | str:
    """In a worker: the kernel ends it for one picture."""
    if "poison" in place.name:
        os.kill(os.getpid(), signal.SIGKILL)
    return squeeze_place(place, how)


def save(path: Path, width: int, height: int = 10) -> Path:
    """A picture whose width says which one it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(width, height))
    return path


def names_of(*sources: Path, exclude: tuple[str, ...] = ()) -> list[str]:
    return [Path(place.name).name for place in list_sources(sources, exclude).places]


def widths_of(squares: Iterator[Square | None]) -> list[int | None]:
    return [None if square is None else round(square.aspect * 10) for square in squares]


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """Thirty pictures, 1 to 30 pixels wide, with what WebDataset puts beside them."""
    members = {}
    for number in range(30):
        members |= {f"{number:06d}.png": png(number + 1, 10), f"{number:06d}.json": b"{}"}
    return make_shard(tmp_path / "shards" / "s-0.tar", members)


@pytest.fixture
def opened(shard: Path) -> Iterator[Pile]:
    with open_pile([shard], side_px=16, workers=2) as one:
        yield one


# --- reading -----------------------------------------------------------------------------------------------------


def test_a_square_is_the_picture_squeezed(shard: Path, opened: Pile):
    assert len(opened) == 30
    (square,) = opened.read([20])
    np.testing.assert_array_equal(square.pixels, squeeze(make_scene(21, 10), 16).pixels)
    assert square.aspect == 2.1


def test_squares_come_in_the_order_of_the_numbers_and_the_middle_is_the_tail_of_the_whole(opened: Pile):
    numbers = [int(number) for number in np.random.default_rng(0).permutation(30)] * 12
    whole = widths_of(opened.read(numbers))
    assert whole == [number + 1 for number in numbers]
    assert widths_of(opened.read(numbers[173:])) == whole[173:]


def test_a_long_order_is_read_ahead_by_a_bounded_number(opened: Pile):
    numbers = iter(range(1000))
    squares = opened.read(number % 30 for number in numbers)
    assert widths_of(itertools.islice(squares, 5)) == [1, 2, 3, 4, 5]
    squares.close()
    assert next(numbers) <= 2 * pile.AHEAD_PER_WORKER * pile.CHUNK + 1
    assert widths_of(opened.read([7])) == [8]


def test_a_pile_tells_where_its_files_begin_and_whether_one_is_far_away(shard: Path, opened: Pile, tmp_path: Path):
    second = make_shard(tmp_path / "shards" / "s-1.tar", {f"{number}.png": png(5, 5) for number in range(4)})
    loose = [save(tmp_path / "loose" / f"{number}.png", 9) for number in range(2)]
    listing = list_sources([shard, second, loose[0].parent])
    whole = Pile(listing, HOW)
    assert whole.starts == [0, 30, 34, 35] and opened.starts == [0]
    assert not whole.is_remote
    listing.places[33] = replace(listing.places[33], path="s3:/bucket/s-1.tar")
    assert whole.is_remote


def test_large_squares_travel_in_small_chunks():
    assert [SqueezeSettings(side_px=side).chunk for side in (64, 128, 256, 512, 4096)] == [64, 64, 21, 5, 1]


def test_a_number_that_is_not_there_is_a_mistake(opened: Pile):
    for number in (-1, 30):
        with pytest.raises(IndexError, match=f"no picture {number} in a pile of 30"):
            list(opened.read([number]))


def test_a_photo_is_upright_and_a_shrunken_one_keeps_its_aspect(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode(make_scene(1001, 301), "JPEG", exif=exif, quality=95))
    square = squeeze_place(Place(str(path), 0, path.stat().st_size, "photo"), HOW)
    assert square.aspect == 301 / 1001
    upright = make_scene(1001, 301).transpose(Image.Transpose.ROTATE_270)
    assert np.abs(square.pixels.astype(int) - squeeze(upright, 16).pixels).max() <= 12


def test_a_decoder_does_not_shrink_a_photo_below_twice_the_side(tmp_path: Path):
    photo = make_scene(120, 120)
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode(photo, "JPEG", quality=95))
    square = squeeze_place(Place(str(path), 0, path.stat().st_size, "photo"), SqueezeSettings(side_px=60))
    np.testing.assert_array_equal(square.pixels, squeeze(Image.open(path), 60).pixels)


# --- bad pictures ------------------------------------------------------------------------------------------------


def test_a_bad_picture_is_none_and_has_a_reason(tmp_path: Path):
    members = {"0.png": png(1), "1.png": b"no picture", "2.png": png(3)[:-30], "3.png": b"", "4.png": png(5)}
    with open_pile([make_shard(tmp_path / "s.tar", members)], side_px=16, workers=1) as one:
        assert widths_of(one.read([0, 1, 2, 3, 4, 1])) == [1, None, None, None, 5, None]
        assert list(one.reasons) == ["s.tar:1.png", "s.tar:2.png", "s.tar:3.png"]
        assert "no picture in a known format" in one.reasons["s.tar:1.png"]
        assert "cut short" in one.reasons["s.tar:2.png"] and "empty" in one.reasons["s.tar:3.png"]
        assert one.describe()["bad"] == 3


def test_a_picture_that_kills_its_worker_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pile, "squeeze_place", die_at_poison)
    for number in range(80):
        save(tmp_path / "in" / f"{number:02d}{'-poison' if number in (3, 70) else ''}.png", number + 1)
    with open_pile([tmp_path / "in"], side_px=16, workers=2) as one:
        widths = widths_of(one.read(range(80)))
        assert widths == [None if number in (3, 70) else number + 1 for number in range(80)]
        assert [Path(name).name for name in one.reasons] == ["03-poison.png", "70-poison.png"]
        assert all("ended from outside" in reason for reason in one.reasons.values())


def test_whatever_a_decoder_throws_is_the_reason_of_one_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_, **__):
        raise BufferError("what nobody thought of")

    monkeypatch.setattr(pile, "open_picture", fail)
    path = save(tmp_path / "a.png", 3)
    outcome = squeeze_place(Place(str(path), 0, path.stat().st_size, "a"), HOW)
    assert outcome == "The decoder failed with BufferError: what nobody thought of."


def test_a_shard_that_is_cut_after_it_was_listed_loses_its_tail(shard: Path, opened: Pile):
    os.truncate(shard, 20 * 2048 + 600)
    widths = widths_of(opened.read(range(30)))
    assert widths == [*range(1, 21), *[None] * 10]
    assert "was cut" in opened.reasons["s-0.tar:000029.png"]


def test_a_pile_of_which_nothing_can_be_read_stops(tmp_path: Path):
    members = {f"{number}.png": b"rubbish" for number in range(3)}
    with open_pile([make_shard(tmp_path / "s.tar", members)], side_px=16, workers=1) as one:
        squares = one.read(itertools.cycle(range(3)))
        with pytest.raises(SourceError, match="None of the 3 pictures can be read"):
            list(itertools.islice(squares, 20))


def test_a_picture_above_the_limit_is_a_bad_one(tmp_path: Path):
    save(tmp_path / "large.png", 200, 100)
    save(tmp_path / "small.png", 20, 10)
    with open_pile([tmp_path], side_px=16, workers=1, max_megapixels=0.01) as one:
        assert widths_of(one.read([0, 1])) == [None, 20]


# --- folders -----------------------------------------------------------------------------------------------------


def test_a_folder_brings_its_pictures_in_sorted_order_and_leaves_shards_alone(tmp_path: Path):
    for name in ("b.png", "a/2.png", "a/10.png", "c/d/x.png", ".hidden/x.png"):
        save(tmp_path / "in" / name, 5)
    make_shard(tmp_path / "in" / "more.tar", {"0.png": png()})
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    assert names_of(tmp_path / "in") == ["b.png", "10.png", "2.png", "x.png"]


def test_a_folder_of_nothing_but_shards_brings_those(tmp_path: Path):
    for number in (1, 0):
        make_shard(tmp_path / "in" / f"s-{number}.tar", {"0.png": png(), "1.png": png()})
    assert names_of(tmp_path / "in") == ["s-0.tar:0.png", "s-0.tar:1.png", "s-1.tar:0.png", "s-1.tar:1.png"]
    assert names_of(tmp_path / "in", exclude=("s-0*", "0.png")) == ["s-1.tar:1.png"]
    counts = Pile(list_sources([tmp_path / "in"]), HOW).describe()
    assert counts == {
        "pictures": 4, "bytes": 4 * len(png()), "folders": 1, "folder_pictures": 0, "shards": 2, "shard_pictures": 4,
        "lists": 0, "list_pictures": 0, "unreadable": 0, "bad": 0,
    }  # fmt: skip


def test_what_is_excluded_is_left_out_of_every_kind_of_source(tmp_path: Path):
    for name in ("in/a.png", "in/b.gif", "in/old/c.png", "listed/d.png", "listed/old/e.png"):
        save(tmp_path / name, 5)
    shard = make_shard(tmp_path / "s.tar", {"old/f.png": png(), "g.gif": png(), "h.png": png(), "new/i.png": png()})
    (tmp_path / "listed" / "list.txt").write_text("d.png\nold/e.png\n")
    sources = tmp_path / "in", shard, tmp_path / "listed" / "list.txt"
    assert names_of(*sources, exclude=("*.gif", "old/*", "i.png")) == ["a.png", "s.tar:h.png", "d.png"]


# --- file lists --------------------------------------------------------------------------------------------------


def test_a_list_names_files_from_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("a.png", "in/b c.png", "#1.png", "out/ä.png"):
        save(tmp_path / name, 5)
    text = f"\ufeffout/ä.png\r\n# a comment\r\n\r\n  in/b c.png  \r\n./#1.png\r\n{tmp_path}/a.png\r\nin/../a.png"
    (tmp_path / "list.txt").write_text(text, encoding="utf-8", newline="")
    monkeypatch.chdir(tmp_path / "in")
    places = list_sources([Path("../list.txt")]).places
    assert [Path(place.name).name for place in places] == ["ä.png", "b c.png", "#1.png", "a.png"]
    assert all(place.size_bytes == len(png(5)) for place in places)


def test_a_listed_file_that_is_missing_is_a_bad_picture(tmp_path: Path):
    save(tmp_path / "a.png", 5)
    (tmp_path / "list").write_text("gone.png\na.png\n.\n")
    with open_pile([tmp_path / "list"], side_px=16, workers=1) as one:
        assert widths_of(one.read([0, 1, 2])) == [None, 5, None]
        assert "not there" in one.reasons[str(tmp_path / "gone.png")]


def test_a_name_that_is_not_utf8_is_read_from_folder_and_list(tmp_path: Path):
    name = b"caf\xe9.png"
    try:
        path = save(tmp_path / os.fsdecode(name), 5)
    except OSError:
        pytest.skip("this disk knows UTF-8 names only")
    (tmp_path / "list").write_bytes(name + b"\n")
    for source in (tmp_path, tmp_path / "list"):
        (place,) = list_sources([source]).places
        assert place.path == str(path) and place.name.endswith(r"caf\udce9.png")
        assert squeeze_place(place, HOW).aspect == 0.5


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"a.png\nshards/0.tar\n", "Line 2 of .* names a shard"), (b"x" * 5000 + b"\na\0.png\n", "Line 2 of .* no text")],
)
def test_a_list_with_a_line_that_can_be_no_picture_is_refused(tmp_path: Path, content: bytes, reason: str):
    (tmp_path / "list").write_bytes(content)
    with pytest.raises(SourceError, match=reason):
        list_sources([tmp_path / "list"])


# --- sources together --------------------------------------------------------------------------------------------


def test_what_was_met_before_is_not_counted_again(tmp_path: Path, shard: Path):
    for name in ("in/a.png", "in/sub/b.png"):
        save(tmp_path / name, 5)
    (tmp_path / "link").symlink_to(tmp_path / "in", target_is_directory=True)
    (tmp_path / "shards" / "again.tar").symlink_to(shard)
    (tmp_path / "list").write_text(f"link/sub/b.png\nin/a.png\n{tmp_path}/in/a.png\n")
    folders = tmp_path / "in" / "sub", tmp_path / "in", tmp_path / "link", tmp_path / "list"
    assert names_of(*folders) == ["b.png", "a.png"]
    assert len(names_of(shard, tmp_path / "shards", shard.with_name("again.tar"))) == 30


def test_the_same_pile_has_the_same_order_and_fingerprint_wherever_it_lies(tmp_path: Path, shard: Path):
    for name in ("in/a.png", "in/sub/b.png"):
        save(tmp_path / name, 5)
    (tmp_path / "in" / "list").write_text("sub/b.png\na.png\n")
    shutil.copytree(tmp_path, tmp_path.with_name("moved"))

    def look(root: Path, *below: str) -> str:
        return list_sources([root / name for name in below]).fingerprint

    sources = "in/sub", "shards/s-0.tar", "in", "in/list"
    assert look(tmp_path, *sources) == look(tmp_path, *sources) == look(tmp_path.with_name("moved"), *sources)
    others = {
        look(tmp_path, *sources),
        look(tmp_path, *reversed(sources)),
        look(tmp_path, "in"),
        look(tmp_path, "in/list"),
    }
    save(tmp_path / "in" / "a.png", 50)
    others.add(look(tmp_path, *sources))
    assert len(others) == 5


def test_a_shard_is_known_by_content_whatever_its_suffix(shard: Path):
    assert recognise(shard.rename(shard.with_suffix(".pictures"))) == "shard"


def test_what_is_no_source_is_refused_with_a_sentence(tmp_path: Path, shard: Path):
    def write(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as tar:
        tar.add(shard)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").mkdir()
    refused = {
        write("s.tar.gz", gzip.compress(shard.read_bytes())): r"compressed.*gzip -dc s\.tar\.gz",
        write("s.tar", packed.getvalue()): r"compressed.*xz -dc s\.tar",
        save(tmp_path / "one.png", 5): "single picture",
        write("list.bin", b"abc\0def"): "neither a tar shard .* nor UTF-8 text",
        write("list.txt", b"\n# nothing\n"): "no picture in .*list.txt",
        write("nothing", b""): "no picture in .*nothing",
        make_shard(tmp_path / "texts.tar", {"0.txt": b"text"}): "no picture in .*texts.tar",
        tmp_path / "empty": "no picture in .*empty",
        tmp_path / "gone": "There is no .*gone",
        tmp_path / "pipe": "neither a file nor a folder",
    }
    for source, reason in refused.items():
        with pytest.raises(SourceError, match=reason):
            open_pile([shard, source], side_px=16)
    with pytest.raises(SourceError, match="nothing to learn from"):
        open_pile([], side_px=16)
    with pytest.raises(SourceError, match=r"leaving out \*\.png"):
        open_pile([shard], side_px=16, exclude=("*.png",))


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save(tmp_path / "in" / "a.png", 5)
    locked = save(tmp_path / "in" / "locked" / "b.png", 5).parent
    list_entries = Walk._list_entries

    def refuse_one(walk: Walk, folder: str) -> list[os.DirEntry]:
        return list_entries(walk, folder if folder != str(locked) else folder + "-gone")

    monkeypatch.setattr(Walk, "_list_entries", refuse_one)
    one = Pile(list_sources([tmp_path / "in"]), HOW)
    assert (len(one), one.unreadable) == (1, (f"{locked}-gone",))
    assert one.describe()["unreadable"] == 1


def test_places_are_found_from_any_working_folder(shard: Path, monkeypatch: pytest.MonkeyPatch):
    # The process that forks the workers keeps the working folder that it was started in.
    monkeypatch.chdir(shard.parent)
    assert {place.path for place in list_sources([Path(shard.name)]).places} == {str(shard)}


def test_settings_out_of_range_are_refused(shard: Path):
    with pytest.raises(SettingsError, match="side_px is 0"):
        open_pile([shard], side_px=0)
    with pytest.raises(SettingsError, match="max_megapixels is nan"):
        open_pile([shard], side_px=16, max_megapixels=float("nan"))
