"""A checkpoint in parts: written by any number of ranks, read by any other, and nothing in it is ever unpickled."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from seer_model.errors import CheckpointError
from seer_model.parts import fill_from_parts, read_outline, read_parts, write_parts
from seer_model.ranks import Ranks
from tests.device import DEVICE
from tests.seer_model.two_ranks import run_in_ranks

ALONE = Ranks(device=torch.device(DEVICE))
SHAPES = {"kernel": (5, 3, 2, 2), "single": (1, 4), "bias": (7,), "queue": (2, 3, 8, 4), "memory.kernel": (5, 3, 2, 2)}
"""Rows that no two ranks share evenly, and fewer rows than ranks."""
PLAIN, AXES = "bias", {"queue": 2}


def make() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def spread(ranks: Ranks, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each rank's part, of all but one."""
    if ranks.count == 1:
        return tensors
    mesh = init_device_mesh("cpu", (ranks.count,))
    return {
        name: one if name == PLAIN else distribute_tensor(one, mesh, [Shard(AXES.get(name, 0))])
        for name, one in tensors.items()
    }


def write(ranks: Ranks, folder: Path) -> None:
    tensors = spread(ranks, make())
    if not ranks.is_first:
        del tensors[PLAIN]
    write_parts(folder, tensors, ranks)


def read(ranks: Ranks, folder: Path) -> dict[str, Tensor]:
    places = spread(ranks, {name: torch.zeros(shape) for name, shape in SHAPES.items()})
    fill_from_parts(folder, places, ranks)
    return {name: one.full_tensor() if isinstance(one, DTensor) else one for name, one in places.items()}


def assert_whole(found: dict[str, Tensor]) -> None:
    torch.testing.assert_close(found, {name: one for name, one in make().items() if name in found}, rtol=0, atol=0)


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """What two ranks have written."""
    run_in_ranks(2, write, tmp_path)
    return tmp_path


def test_any_number_of_ranks_reads_what_two_have_written(parts: Path):
    assert sorted(path.suffix for path in parts.iterdir()) == [".json", ".safetensors", ".safetensors"]
    sizes = [path.stat().st_size for path in parts.glob("*.safetensors")]
    assert max(sizes) < 0.7 * sum(sizes), "each wrote a part"
    for count in (2, 4):
        for found in run_in_ranks(count, read, parts):
            assert_whole(found)
    assert_whole(read(ALONE, parts))


def test_two_ranks_read_what_one_has_written(tmp_path: Path):
    write(ALONE, tmp_path)
    for found in run_in_ranks(2, read, tmp_path):
        assert_whole(found)


def test_parts_are_read_whole_without_any_rank(parts: Path):
    found = read_parts(parts, leave_out="memory.")
    assert found.keys() == SHAPES.keys() - {"memory.kernel"}
    assert_whole(found)
    outline = read_outline(parts)
    assert {name: (tuple(one.shape), one.device.type) for name, one in outline.items()} == {
        name: (shape, "meta") for name, shape in SHAPES.items()
    }


def test_a_kernel_in_another_order_of_memory_is_written_as_it_is(tmp_path: Path):
    kernel = make()["kernel"].to(memory_format=torch.channels_last)
    write_parts(tmp_path, {"kernel": kernel}, ALONE)
    place = torch.zeros(SHAPES["kernel"]).to(memory_format=torch.channels_last)
    fill_from_parts(tmp_path, {"kernel": place}, ALONE)
    torch.testing.assert_close(place, make()["kernel"], rtol=0, atol=0)


class Bomb:
    """What a pickle could do to whoever reads it."""

    def __reduce__(self) -> tuple:
        return (pytest.fail, ("a pickle was read",))


def test_a_pickle_beside_the_parts_is_not_read(parts: Path):
    (parts / ".metadata").write_bytes(pickle.dumps(Bomb()))
    assert_whole(read_parts(parts, leave_out="memory."))
    assert_whole(read(ALONE, parts))


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {
    "the first part is gone": lambda folder: min(folder.glob("*.safetensors")).unlink(),
    "the last part is gone": lambda folder: max(folder.glob("*.safetensors")).unlink(),
    "half a part": lambda folder: halve(next(folder.glob("*.safetensors"))),
    "no shapes": lambda folder: (folder / "parts.json").unlink(),
    "half the shapes": lambda folder: halve(folder / "parts.json"),
    "no shapes by name": lambda folder: (folder / "parts.json").write_text("[]"),
    "another shape": lambda folder: change_shape(folder),
    "nothing": lambda folder: [path.unlink() for path in folder.iterdir()],
}


def change_shape(folder: Path) -> None:
    shapes = json.loads((folder / "parts.json").read_text())
    (folder / "parts.json").write_text(json.dumps(shapes | {"bias": [8]}))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    run_in_ranks(2, write, folder)
    return folder


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_damaged_is_a_sentence_before_anything_is_read(written: Path, tmp_path: Path, damage):
    for path in written.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert read_outline(tmp_path).keys() == SHAPES.keys()
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=r"(is damaged|lacks).*(Copy|take another)"):
        read_outline(tmp_path)


@pytest.mark.parametrize("places", [{"nobody": torch.zeros(2)}, {"bias": torch.zeros(3)}], ids=["name", "shape"])
def test_what_does_not_fit_is_a_sentence(written: Path, places: dict[str, Tensor]):
    with pytest.raises(CheckpointError, match=f"cannot be read: .*{next(iter(places))}"):
        fill_from_parts(written, places, ALONE)


def write_where_one_cannot(ranks: Ranks, folder: Path) -> str:
    where = folder if ranks.is_first else folder / "a file"
    try:
        write(ranks, where)
    except CheckpointError as error:
        return str(error)
    return "written"


def test_where_one_rank_cannot_write_all_are_told(tmp_path: Path):
    (tmp_path / "a file").write_text("in the way")
    said = run_in_ranks(2, write_where_one_cannot, tmp_path)
    assert all("on rank 1" in one and "cannot be written" in one for one in said), said
    assert not (tmp_path / "parts.json").exists()
