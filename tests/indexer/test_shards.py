"""Tar shards: which members are pictures, where their bytes lie, and what damaged ones do."""

import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer import shards
from indexer.errors import SourceError
from indexer.shards import Place, is_shard, list_pictures, read_place
from seer_model.errors import PictureError
from tests.indexer.making_shards import make_shard, png

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0/."), min_size=1, max_size=60)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    members=st.dictionaries(
        st.lists(NAMES, min_size=1, max_size=4).map("/".join), st.binary(max_size=1500), max_size=6
    ),
    format=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_the_bytes_of_a_member_are_those_that_were_put_in(tmp_path: Path, members: dict[str, bytes], format: int):
    members = {f"{name}.png": data for name, data in members.items()}
    if format == tarfile.USTAR_FORMAT:
        members = {f"{number}.png": data for number, data in enumerate(members.values())}
    shard = make_shard(tmp_path / "some.tar", members, format)
    places = list(list_pictures(shard))
    assert [read_place(place) for place in places] == list(members.values())
    with tarfile.open(shard) as oracle:
        assert [place.size_bytes for place in places] == [member.size for member in oracle]
        assert [place.offset for place in places] == [member.offset_data for member in oracle]


def test_members_that_are_no_pictures_are_passed_over(tmp_path: Path):
    members = {
        "a/000.png": png(), "a/000.json": b"{}", "a/000.cls": b"7", "a/001.JPG": b"whatever", "a/002": png(),
        "a/.hidden.png": png(), ".git/x.png": png(), "./b.png": png(), "a/c.txt": b"BM, no bitmap", "empty.cls": b"",
    }  # fmt: skip
    found = [place.name for place in list_pictures(make_shard(tmp_path / "s.tar", members))]
    assert found == ["s.tar:a/000.png", "s.tar:a/001.JPG", "s.tar:a/002", "s.tar:./b.png"]


def test_links_folders_and_pipes_are_no_pictures(tmp_path: Path):
    shard = tmp_path / "links.tar"
    with tarfile.open(shard, "w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            link = tarfile.TarInfo("link.png")
            link.type, link.linkname = kind, "/etc/passwd"
            tar.addfile(link)
    assert not list(list_pictures(shard))


def test_a_sparse_member_is_no_picture_for_its_bytes_lie_apart(tmp_path: Path):
    header = tarfile.TarInfo("sparse.png")
    header.type, header.size = tarfile.GNUTYPE_SPARSE, 512
    block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    # One stretch of 512 bytes at 4096, in a file of 4608 (octal, as GNU tar writes them).
    block[386:410], block[483:495] = b"%011o\0%011o\0" % (4096, 512), b"%011o\0" % 4608
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    shard = tmp_path / "s.tar"
    shard.write_bytes(bytes(block) + bytes(512) + make_shard(tmp_path / "t.tar", {"b.png": png()}).read_bytes())
    with tarfile.open(shard) as oracle:
        assert [member.issparse() for member in oracle] == [True, False]
    assert [place.name for place in list_pictures(shard)] == ["s.tar:b.png"]


def test_a_name_is_shown_and_never_opened(tmp_path: Path):
    outside = tmp_path / "secret.png"
    outside.write_bytes(b"not this")
    names = ["../secret.png", str(outside), "../../etc/passwd.png"]
    (tmp_path / "in").mkdir()
    places = list(list_pictures(make_shard(tmp_path / "in" / "s.tar", dict.fromkeys(names, b"but this"))))
    assert [read_place(place) for place in places] == [b"but this"] * 3
    assert places[0].name == "s.tar:../secret.png"


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_name_that_cannot_be_printed_is_escaped(tmp_path: Path, format: int):
    name = os.fsdecode(b"caf\xe9-\x1b[2J-\n-\xc3\xa9.png")
    (place,) = list_pictures(make_shard(tmp_path / "s.tar", {name: b"bytes"}, format))
    assert place.name == r"s.tar:caf\udce9-\x1b[2J-\n-é.png"
    assert read_place(place) == b"bytes"


def test_a_shard_cut_in_the_middle_is_refused_when_it_is_listed(tmp_path: Path):
    shard = make_shard(tmp_path / "s.tar", {f"{number}.png": bytes(3000) for number in range(3)})
    whole = shard.read_bytes()
    for length in (700, 512 + 2999, 4000, 2 * 3584 + 100, 3 * 3584 - 600):
        shard.write_bytes(whole[:length])
        with pytest.raises(SourceError, match=r"s\.tar is no whole"):
            list(list_pictures(shard))


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path):
    shard = make_shard(tmp_path / "s.tar", {f"{number}.png": bytes(3000) for number in range(3)})
    data = bytearray(shard.read_bytes())
    data[3584 + 10] ^= 1
    shard.write_bytes(data)
    with pytest.raises(SourceError, match="at byte 3584 is neither a header nor the end"):
        list(list_pictures(shard))


def test_a_shard_without_closing_zeros_is_whole(tmp_path: Path):
    shard = make_shard(tmp_path / "s.tar", {"0.png": bytes(512), "1.png": bytes(512)})
    shard.write_bytes(shard.read_bytes()[:2048])
    assert len(list(list_pictures(shard))) == 2


@pytest.mark.parametrize("size", [-1, -512, -1024])
def test_a_member_that_points_backwards_ends_in_a_sentence(tmp_path: Path, size: int):
    header = tarfile.TarInfo("loop.png")
    header.size = size
    shard = tmp_path / "s.tar"
    shard.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    with pytest.raises(SourceError, match="points backwards"):
        list(list_pictures(shard))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_anywhere_gives_members_or_a_sentence(tmp_path: Path, data: st.DataObject):
    format = data.draw(st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    shard = make_shard(tmp_path / "s.tar", {"é" * 120 + ".png": bytes(10), "b.png": bytes(700)}, format)
    content = bytearray(shard.read_bytes()[:6144])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    shard.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        for place in list_pictures(shard):
            read_place(place)
    except (SourceError, PictureError):
        pass


def test_a_shard_is_known_by_content(tmp_path: Path):
    shard = make_shard(tmp_path / "shard.bin", {"0.png": png()})
    text = tmp_path / "text.tar"
    text.write_text("a.png\n")
    (tmp_path / "empty").write_bytes(b"")
    assert is_shard(shard) and not is_shard(text) and not is_shard(tmp_path / "empty")
    with tarfile.open(tmp_path / "packed.tar", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("0.png"), io.BytesIO())
    assert not is_shard(tmp_path / "packed.tar")
    with pytest.raises(SourceError, match="no whole uncompressed tar"):
        list(list_pictures(tmp_path / "packed.tar"))


def test_what_happened_to_a_file_since_it_was_listed_is_its_reason(tmp_path: Path):
    file = tmp_path / "a.png"
    file.write_bytes(bytes(100))
    assert read_place(Place(str(file), 0, 100, "a")) == bytes(100)
    for place, reason in [
        (Place(str(file), 0, 99, "a"), "has 100 bytes, and had 99"),
        (Place(str(file), 60, 50, "a"), "was cut: it ends at byte 100"),
        (Place(str(file), 0, 3 << 30, "a"), "3072 MB"),
        (Place(str(tmp_path / "gone"), 0, 1, "a"), "not there"),
        (Place(str(tmp_path), 0, 1, "a"), "not a regular file"),
        (Place("/dev/zero", 0, 1, "a"), "not a regular file"),
    ]:
        with pytest.raises(PictureError, match=reason):
            read_place(place)


def test_a_file_that_is_cut_while_it_is_read_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "a.png"
    file.write_bytes(bytes(40))
    # As if it had been whole when it was looked at.
    monkeypatch.setattr(shards, "_require_whole", lambda place, status: None)
    with pytest.raises(PictureError, match="40 of 100 bytes"):
        read_place(Place(str(file), 0, 100, "a"))


def test_a_million_headers_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kept = []
    next_member = tarfile.TarFile.next

    def watch(tar: tarfile.TarFile) -> tarfile.TarInfo | None:
        kept.append(len(tar.members))
        return next_member(tar)

    monkeypatch.setattr(tarfile.TarFile, "next", watch)
    shard = make_shard(tmp_path / "s.tar", {f"{number}.png": b"" for number in range(50)})
    assert len(list(list_pictures(shard))) == 50
    assert max(kept) <= 1
