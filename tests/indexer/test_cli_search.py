"""`seer search` as a person and a program use it: several pictures, parts, filters, lists."""

import json
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from indexer.cli import cli
from indexer.collection import Collection, Query, Term
from indexer.snapshot import Snapshot
from tests.indexer.making import build, draw


@pytest.fixture
def built(place: Path, pictures: Path, by_pixels: None) -> Path:
    build(place, pictures)
    return place


def search(place: Path, *arguments: object, given: bytes | str | None = None) -> Result:
    """`seer search ARGUMENTS --collection PLACE`, with `given` on its standard input."""
    return CliRunner().invoke(cli, ["search", *map(str, arguments), "--collection", str(place)], input=given)


def read_names(result: Result) -> list[str]:
    """The names of the files answered, from lines or from JSON."""
    assert result.exit_code == 0, result.stderr
    if result.stdout.startswith("{"):
        return [Path(one["path"]).name for one in json.loads(result.stdout)["neighbours"]]
    return [Path(line.split("\t")[-1]).name for line in result.stdout.splitlines()]


def test_several_pictures_count_as_they_are_weighed(built: Path, pictures: Path, tmp_path: Path):
    first, second = pictures / "a" / "picture-3.png", pictures / "b" / "picture-4.png"
    plain = draw(tmp_path / "x.png", seed=50)
    odd = shutil.copy(plain, tmp_path / "half=0.5")
    assert read_names(search(built, odd)) == read_names(search(built, plain))
    terms = Term(first.read_bytes(), 2.0), Term(second.read_bytes(), 0.5), Term(odd.read_bytes(), -0.25)
    with Collection(built) as collection:
        expected = [one.path.name for one in collection.find(Query(*terms), 9).neighbours]
        four = collection.find_similar(second.read_bytes(), 1)[0]
    options = ("--minus", f"{odd}=0.25", "--count", 9)
    assert read_names(search(built, f"{first}=2", f"{second}=0.5", *options)) == expected
    assert read_names(search(built, f"{first}=2", f"image:{four.image_id}=0.5", *options, "--json")) == expected
    assert read_names(search(built, f"{first}=2", f"image:{four.content_hash}=0.5", *options)) == expected
    alone = search(built, f"image:{four.image_id}", "--count", 1)
    assert alone.stdout == f"1.000\t{second}\n"
    assert search(built, "--minus", second, "--count", 9).stdout.splitlines()[-1] == f"-1.000\t{second}"


def test_a_part_of_a_picture_is_cut_out(built: Path, pictures: Path, tmp_path: Path):
    file = pictures / "a" / "picture-3.png"
    with Image.open(file) as picture:
        picture.crop((10, 20, 70, 80)).save(tmp_path / "part.png")
    expected = search(built, tmp_path / "part.png").stdout
    assert expected and search(built, file, "--region", "10,20,60,60").stdout == expected
    refused = search(built, file, "--region", "100,0,60,60")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert f"{file} cannot be searched with. The part X,Y,W,H = 100,0,60,60 does not lie" in refused.stderr


def test_filters_bounds_and_counts_narrow_an_answer(built: Path, pictures: Path, tmp_path: Path):
    file = pictures / "a" / "picture-3.png"
    os.utime(pictures / "a" / "picture-5.png", (0, 86400 * 365))
    (pictures / "a" / "picture-7.png").write_bytes((pictures / "a" / "picture-7.png").read_bytes() + b"\0" * 40_000)
    build(built)
    assert read_names(search(built, file, "--under", pictures / "a"))[0] == "picture-3.png"
    odd = {f"picture-{number}.png" for number in (1, 3, 5, 7)}
    assert set(read_names(search(built, file, "--under", pictures / "a"))) == odd
    assert read_names(search(built, file, "--until", "1971-12-31")) == ["picture-5.png"]
    assert read_names(search(built, file, "--size", "40KB-")) == ["picture-7.png"]
    assert len(read_names(search(built, file, "--type", "png", "--px", "120-120", "--since", "2000-01-01"))) == 8
    answer = search(built, file, "--count", 3, "--json").stdout
    (tmp_path / "answer.json").write_text(answer)
    three = [Path(one["path"]).name for one in json.loads(answer)["neighbours"]]
    other = pictures / "b" / "picture-4.png"
    assert sorted(read_names(search(built, other, "--within", tmp_path / "answer.json"))) == sorted(three)
    whole = json.loads(search(built, file, "--json", "--exact").stdout)["neighbours"]
    bounds = ("--at-most", whole[2]["similarity"], "--at-least", whole[5]["similarity"])
    assert read_names(search(built, file, *bounds)) == [Path(one["path"]).name for one in whole[2:6]]
    assert search(built, file, *bounds, "--how-many").stdout == "4\n"
    told = json.loads(search(built, file, *bounds, "--how-many", "--json").stdout)
    assert list(told) == [
        "schema_version", "collection", "generation", "exact", "recall", "milliseconds", "images",
    ]  # fmt: skip
    assert (told["images"], told["exact"], told["generation"]) == (4, True, "000002")
    nothing = search(built, file, "--under", tmp_path / "elsewhere", "--type", "jxl")
    assert nothing.exit_code == 1 and f"in {tmp_path / 'elsewhere'}: 0; JXL: 0. Widen or drop one." in nothing.stderr


def test_a_list_is_answered_line_by_line_and_what_fails_stops_nothing(built: Path, pictures: Path, tmp_path: Path):
    file, gone, broken = pictures / "a" / "picture-3.png", tmp_path / "gone.png", tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    Image.new("RGB", (40, 40)).save(tmp_path / "black.png")
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    shutil.copy(file, odd)
    lines = (
        b"\n".join(map(bytes, (gone, odd, broken, tmp_path / "black.png", Path("image:1"), Path("image:99"))))
        + b"\r\n\na\0b\n/\n"
    )
    (tmp_path / "list.txt").write_bytes(lines)
    text = search(built, "--files", tmp_path / "list.txt", "--count", 1)
    assert text.exit_code == 1
    assert text.stdout.splitlines()[0] == f"{tmp_path}/caf\\xe9.png\t1.000\t{file}"
    assert [line.split("\t")[:2] for line in text.stdout.splitlines()[1:]] == [["image:1", "1.000"]]
    assert text.stderr.splitlines()[0] == f"seer: {gone} cannot be read (No such file or directory)."
    assert text.stderr.splitlines()[1].startswith(f"seer: {broken} cannot be searched with. The content is no picture")
    assert text.stderr.splitlines()[2] == f"seer: {tmp_path}/black.png cannot be searched with. no finite embedding"
    told = search(built, "--files", "-", "--json", "--count", 2, given=lines)
    objects = [json.loads(line) for line in told.stdout.splitlines()]
    assert told.exit_code == 1 and [one["query"] for one in objects] == [
        str(gone), f"{tmp_path}/caf\\xe9.png", str(broken), f"{tmp_path}/black.png", "image:1", "image:99", "a\0b", "/",
    ]  # fmt: skip
    assert ["error" in one for one in objects] == [True, False, True, True, False, True, True, True]
    assert objects[1]["neighbours"][0]["path"] == str(file) and len(objects[4]["neighbours"]) == 2
    well = search(built, "--files", "-", "--how-many", given=bytes(file))
    assert (well.exit_code, well.stdout) == (0, f"{file}\t9\n")
    # A filter that nothing passes is no matter of one query.
    refused = search(built, "--files", "-", "--type", "jxl", given=lines)
    assert refused.exit_code == 1 and refused.stderr.count("No image passes the filter") == 1


def test_an_approximate_answer_says_so_and_how_to_have_it_exact(
    approximate: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
):
    built = approximate
    monkeypatch.setattr(Snapshot, "read_recall", lambda snapshot, allowed: 0.985)
    file = pictures / "a" / "picture-3.png"
    said = search(built, file).stderr
    assert said == "Searched approximately, recall 0.985; --exact compares with every image.\n"
    assert search(built, file, "--exact").stderr == ""
    told = json.loads(search(built, file, "--json").stdout)
    assert (told["exact"], told["recall"]) == (False, 0.985)
    told = json.loads(search(built, file, "--json", "--exact").stdout)
    assert (told["exact"], told["recall"]) == (True, 1.0)


@pytest.mark.parametrize("arguments", [
    [], ["--region", "0,0,9,9"], [__file__, __file__, "--region", "0,0,9,9"], [__file__, "--files", __file__],
    ["--files", __file__, "--region", "0,0,9,9"], [__file__, "--region", "1,2,3"], [__file__, "--region", "1,2,3,-4"],
    [f"{__file__}=0"], [f"{__file__}=-1"], [f"{__file__}=nan"], [f"{__file__}=inf"], [f"{__file__}=x"], ["image:x"],
    ["image:5="], [str(Path(__file__).parent)], [__file__, "--minus", "nowhere.png"], [__file__, "--size", "5-XB"],
    [__file__, "--size", "-"], [__file__, "--size", "1.2.3-"], [__file__, "--px", "1KB-"], [__file__, "--px", "7"],
    [__file__, "--type", "eps"], [__file__, "--since", "yesterday"], [__file__, "--within", "nowhere.json"],
])  # fmt: skip
def test_what_cannot_be_meant_is_wrong_usage(place: Path, arguments: list):
    result = search(place, *arguments)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert "Traceback" not in result.stderr


def test_what_is_no_answer_cannot_be_searched_within(built: Path, pictures: Path):
    for content in ("", "{}", "[]", "nonsense", '{"neighbours": [{}]}', '{"neighbours": 3}', b"\x00\xff"):
        result = search(built, pictures / "a" / "picture-3.png", "--within", "-", given=content)
        assert result.exit_code == 1 and result.stderr.startswith("seer: "), content
        assert ("seer search --json" in result.stderr) is bool(content)


def test_a_search_among_what_an_answer_held_is_by_content(built: Path, pictures: Path, tmp_path: Path):
    """An answer of another collection names the same images by other numbers."""
    file = pictures / "a" / "picture-3.png"
    build(tmp_path / "second", pictures / "a")
    answer = search(tmp_path / "second", file, "--json").stdout
    assert set(read_names(search(built, file, "--within", "-", given=answer))) == {
        f"picture-{number}.png" for number in (1, 3, 5, 7)
    }
