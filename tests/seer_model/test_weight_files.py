"""Files that are damaged, foreign or lead elsewhere: each is refused with a sentence, and nothing in them is run."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from seer_model.checkpoint import read_checkpoint
from seer_model.errors import CheckpointError
from seer_model.key_tables import VISSL
from seer_model.weight_files import read_weights
from tests.seer_model import making_weights as making


class Trap:
    """Unpickled in the ordinary way, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_foreign_pickle_is_refused_and_never_run(is_zip, tmp_path):
    trunk = making.spell_trunk(making.make_checkpoint(), VISSL)
    content = making.nest(trunk, {}) | {"hooks": Trap(tmp_path / "sprung")}
    torch.save(content, tmp_path / "foreign.torch", _use_new_zipfile_serialization=is_zip)
    with pytest.raises(CheckpointError, match="refused"):
        read_checkpoint(tmp_path / "foreign.torch")
    assert not (tmp_path / "sprung").exists()
    torch.load(tmp_path / "foreign.torch", weights_only=False)
    assert (tmp_path / "sprung").exists(), "the trap must work, or this test shows nothing"


def test_a_bare_pickle_is_refused_and_never_run(tmp_path):
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / "bare.pth")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("is_zip", [True, False])
def test_numbers_of_numpy_beside_the_weights_are_passed_over(is_zip, tmp_path):
    made = making.make_checkpoint()
    content = making.nest(making.spell_trunk(made, VISSL), {}) | {"loss": np.float64(3.5), "iteration": np.int64(7)}
    path = tmp_path / "vissl.torch"
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    making.assert_same_weights(read_checkpoint(path).trunk, made.trunk)
    if not is_zip:  # There a name can be made that of numpy 1: it stands without its length and without a checksum.
        path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
        making.assert_same_weights(read_checkpoint(path).trunk, made.trunk)


def test_an_array_of_numpy_is_not_passed_over_where_a_weight_should_be(tmp_path):
    trunk = making.spell_trunk(making.make_checkpoint(), VISSL)
    torch.save(making.nest(trunk | {"_feature_blocks.conv1.stem.0.weight": np.float64(1)}, {}), tmp_path / "odd.torch")
    with pytest.raises(CheckpointError, match=r"conv1\.stem\.0\.weight'; expected a weight"):
        read_checkpoint(tmp_path / "odd.torch")


@pytest.mark.parametrize(
    "weight",
    [
        torch.zeros((), dtype=torch.float32).expand(32, 3, 3, 3),
        torch.zeros(20).as_strided((32, 3, 3, 3), (0, 1, 1, 1)),
        torch.zeros(32, 3, 3, 3).to_sparse(),
        torch.zeros(32, 3, 3, 3, device="meta"),
    ],
    ids=["stride 0", "overlapping", "sparse", "meta"],
)
@pytest.mark.parametrize("is_head", [False, True])
def test_a_weight_whose_numbers_are_not_all_there_is_refused(weight, is_head, tmp_path):
    trunk = making.spell_trunk(making.make_checkpoint(), VISSL)
    name = "heads.0.clf.0.weight" if is_head else "_feature_blocks.conv1.stem.0.weight"
    content = making.nest(trunk, {"0.clf.0.weight": weight}) if is_head else making.nest(trunk | {name: weight}, {})
    torch.save(content, tmp_path / "odd.torch")
    with pytest.raises(CheckpointError, match=f"for every place of '{name}'"):
        read_checkpoint(tmp_path / "odd.torch")


def test_weights_in_another_order_of_memory_are_weights(tmp_path):
    made = making.make_checkpoint()
    kept = {
        name: weight.contiguous(memory_format=torch.channels_last) if weight.ndim == 4 else weight
        for name, weight in making.spell_trunk(made, VISSL).items()
    }
    torch.save(kept, tmp_path / "channels_last.torch")
    making.assert_same_weights(read_checkpoint(tmp_path / "channels_last.torch").trunk, made.trunk)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page"),
        (b"\n  <html>" + b"x" * 500, "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5", "no format that is known"),
        (bytes(range(0x90, 0x97)), "no format that is known"),
        (b"PK\x03\x04" + bytes(200), "damaged"),
        (b"\x80\x02" + bytes(200), "refused|damaged"),
        (b"\xff\xff\xff\xff\xff\xff\xff\x7f{" + bytes(100), "damaged"),
    ],
)
def test_what_is_no_weights_file_is_told_as_what_it_is(content, reason, tmp_path):
    (tmp_path / "weights.torch").write_bytes(content)
    with pytest.raises(CheckpointError, match=reason):
        read_checkpoint(tmp_path / "weights.torch")


@pytest.mark.parametrize("save", [making.save_vissl, making.save_timm, making.save_vissl_extractor])
def test_a_truncated_file_is_refused_wherever_it_ends(save, tmp_path):
    whole = save(making.make_checkpoint(), tmp_path / "whole").read_bytes()
    for part in (1, 5, 9, 60, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        (tmp_path / "part").write_bytes(whole[:part])
        with pytest.raises(CheckpointError):
            read_checkpoint(tmp_path / "part")


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 3000), value=st.integers(0, 255))
@pytest.mark.parametrize("kind", ["timm safetensors", "timm bin", "vissl, extractor"])
def test_a_changed_byte_gives_weights_or_a_sentence_never_a_traceback(kind, place, value, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / kind
    if not folder.exists():
        folder.mkdir()
        making.SAVERS[kind][0](making.make_checkpoint(), folder / "whole")
    content = bytearray((folder / "whole").read_bytes())
    content[place] = value
    (folder / "changed").write_bytes(content)
    try:
        read_checkpoint(folder / "changed")
    except CheckpointError as error:
        assert "changed" in str(error)


def test_a_file_is_known_whatever_the_length_of_its_header(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "load", None)  # Newer ones read these files, too; older ones do not.
    path, beginnings = tmp_path / "one.safetensors", set()
    for length in range(0, 256, 8):
        save_file({"weight": torch.ones(2)}, path, metadata={"note": "x" * length})
        beginnings.add(path.read_bytes()[0])
        assert read_weights(path)["weight"].tolist() == [1, 1]
    assert len(beginnings) == 32 and 0x80 in beginnings, "each length that there is, as far as its first byte goes"


def test_a_file_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(CheckpointError, match="No such file"):
        read_checkpoint(tmp_path / "nothing.torch")
    with pytest.raises(CheckpointError, match="holds no weights"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        making.nest({}, {}, "shard_list") | {"shards": ["a_shard0.torch"]},
        making.nest({}, [], "shard"),
    ],
)
def test_vissl_shards_are_refused_with_what_to_do(content, tmp_path):
    torch.save(content, tmp_path / "shards.torch")
    with pytest.raises(CheckpointError, match=r"convert_sharded_checkpoint\.py"):
        read_checkpoint(tmp_path / "shards.torch")


@pytest.mark.parametrize(
    "content",
    [
        {"classy_state_dict": 3},
        {"classy_state_dict": {"base_model": {}}},
        making.nest({"a": "text"}, {}),
        making.nest({"a": torch.zeros(1)}, [1]),
        {"epoch": 3},
        {3: torch.zeros(1)},
        [1, 2],
        torch.zeros(3),
    ],
)
def test_content_of_another_kind_is_a_sentence(content, tmp_path):
    torch.save(content, tmp_path / "odd.torch")
    with pytest.raises(CheckpointError, match=r"odd\.torch"):
        read_checkpoint(tmp_path / "odd.torch")


def test_slices_are_found_after_their_folder_moved(tmp_path):
    made = making.make_checkpoint()
    (tmp_path / "old").mkdir()
    making.save_slices(made, tmp_path / "old" / "model.torch", listed_folder="/gone/checkpoints/model.torch_layers")
    shutil.move(tmp_path / "old", tmp_path / "new")
    making.assert_same_weights(read_checkpoint(tmp_path / "new" / "model.torch").trunk, made.trunk)


@pytest.mark.parametrize(
    "leaf",
    [
        *("../outside.torch", "{tmp_path}/outside.torch", "link.torch", "a/../../outside.torch"),
        *("a\0b.torch", "x" * 300, "x/" * 3000, "loop.torch"),
    ],
)
def test_a_slice_outside_of_the_folder_is_refused(leaf, tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    torch.save({"type": "slice", "weight": torch.zeros(3)}, tmp_path / "outside.torch")
    (inside / "link.torch").symlink_to(tmp_path / "outside.torch")
    (inside / "loop.torch").symlink_to(inside / "loop.torch")
    leaf = leaf.format(tmp_path=tmp_path)
    torch.save(making.nest({"_feature_blocks.conv1.stem.0.weight": leaf}, {}, "slice_list"), inside / "model.torch")
    with pytest.raises(CheckpointError, match=r"conv1\.stem\.0\.weight.*not in the folder"):
        read_checkpoint(inside / "model.torch")


def change_index(folder, change) -> None:
    index = folder / "pytorch_model.bin.index.json"
    content = json.loads(index.read_text())
    change(content["weight_map"])
    index.write_text(json.dumps(content))


def test_an_index_must_say_just_what_its_shards_hold(tmp_path):
    folder = making.save_shards(making.make_checkpoint(), tmp_path / "shards")
    change_index(folder, lambda weight_map: weight_map.update({"a.new.weight": "pytorch_model-00000.bin"}))
    with pytest.raises(CheckpointError, match=r"lacks the weight 'a\.new\.weight'"):
        read_checkpoint(folder)
    change_index(folder, lambda weight_map: weight_map.pop("a.new.weight"))
    change_index(folder, lambda weight_map: weight_map.pop("embedder.embedder.convolution.weight"))
    with pytest.raises(CheckpointError, match=r"also holds the weight 'embedder\.embedder\.convolution\.weight'"):
        read_checkpoint(folder / "pytorch_model.bin.index.json")


@pytest.mark.parametrize(
    "name", ["../outside.bin", "{tmp_path}/outside.bin", "sub/inside.bin", "..\\outside.bin", "a\0b"]
)
def test_an_index_leads_only_to_files_beside_it(name, tmp_path):
    folder = making.save_shards(making.make_checkpoint(), tmp_path / "shards")
    for path in (tmp_path / "outside.bin", folder / "sub" / "inside.bin", folder / "..\\outside.bin"):
        path.parent.mkdir(exist_ok=True)
        torch.save({"x": torch.zeros(1)}, path)
    change_index(folder, lambda weight_map: weight_map.update({"x": name.format(tmp_path=tmp_path)}))
    with pytest.raises(CheckpointError, match="only files in its own folder are read"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}', '{"weight_map": ' + "[" * 100_000]
)
def test_an_index_of_another_kind_is_a_sentence(content, tmp_path):
    (tmp_path / "pytorch_model.bin.index.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"index\.json"):
        read_checkpoint(tmp_path)


def test_a_shard_whose_name_no_system_can_have_is_a_sentence(tmp_path):
    folder = making.save_shards(making.make_checkpoint(), tmp_path / "shards")
    change_index(folder, lambda weight_map: weight_map.update({"x": "x" * 300}))
    with pytest.raises(CheckpointError, match="xxx cannot be read"):
        read_checkpoint(folder)


def test_a_missing_shard_is_named(tmp_path):
    folder = making.save_shards(making.make_checkpoint(), tmp_path / "shards")
    (folder / "pytorch_model-00001.bin").unlink()
    with pytest.raises(CheckpointError, match="pytorch_model-00001.bin cannot be read"):
        read_checkpoint(folder)
