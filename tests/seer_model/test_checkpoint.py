"""Checkpoints of every known layout become the same weights, and every weight is accounted for by its name."""

import os
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from seer_model.checkpoint import (
    Checkpoint,
    build_network,
    convert_checkpoint,
    drop_counters,
    infer_architecture,
    read_checkpoint,
    write_checkpoint,
)
from seer_model.errors import CheckpointError
from seer_model.key_tables import HUGGINGFACE, TIMM, VISSL
from seer_model.regnet import ARCHITECTURES, Architecture, RegNet
from tests.seer_model import making_weights as making

# Oracle


@pytest.mark.parametrize("size", ["200MF", "600MF"])
@pytest.mark.parametrize("has_classifier", [False, True])
def test_our_network_equals_that_of_transformers(size, has_classifier, tmp_path):
    from transformers import RegNetConfig, RegNetForImageClassification, RegNetModel

    architecture = ARCHITECTURES[size]
    config = RegNetConfig(
        embedding_size=32,
        hidden_sizes=list(architecture.widths),
        depths=list(architecture.depths),
        groups_width=architecture.group_widths[0],
        layer_type="y",
        num_labels=5,
    )
    torch.manual_seed(0)
    theirs = (RegNetForImageClassification if has_classifier else RegNetModel)(config).eval()
    making.randomise_norms(theirs)
    theirs.save_pretrained(tmp_path)

    checkpoint = read_checkpoint(tmp_path)
    ours = build_network(checkpoint).eval()

    x = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = (theirs.regnet if has_classifier else theirs)(x).last_hidden_state
        found = ours(x)
    assert checkpoint.architecture == architecture
    assert float((found - expected).abs().max()) <= 1e-5
    assert sorted(checkpoint.heads) == (["classifier.bias", "classifier.weight"] if has_classifier else [])


@pytest.mark.parametrize("save", [making.save_vissl, making.save_vissl_parts, making.save_slices])
def test_vissl_weights_give_identical_features_after_convert(save, tmp_path):
    network = making.make_network()
    trunk = drop_counters(network.state_dict())
    made = Checkpoint(architecture=making.TINY, trunk=trunk, heads=making.make_projection_heads(), layout="made")
    convert_checkpoint(save(made, tmp_path / "vissl.torch"), tmp_path / "ours.safetensors")

    converted = read_checkpoint(tmp_path / "ours.safetensors")
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    # Copied: where a weight lies in memory, mapped or not, decides the processor's kernels.
    copied = replace(converted, trunk={key: weight.clone() for key, weight in converted.trunk.items()})
    with torch.inference_mode():
        assert torch.equal(build_network(copied).eval()(x), network(x))
    making.assert_same_weights(converted.trunk, trunk)
    assert converted.layout == "seer"
    making.assert_same_weights(converted.heads, made.heads)


# Layouts


@pytest.mark.parametrize("name", making.SAVERS)
def test_every_layout_becomes_the_same_weights(name, tmp_path):
    save, layout = making.SAVERS[name]
    made = making.make_checkpoint()
    found = read_checkpoint(save(made, tmp_path / "weights.file"))
    assert (found.layout, found.architecture) == (layout, making.TINY)
    making.assert_same_weights(found.trunk, made.trunk)


@pytest.mark.parametrize("save", [making.save_vissl, making.save_slices, making.SAVERS["ours"][0]])
def test_heads_are_kept_under_our_names(save, tmp_path):
    made = making.make_checkpoint(heads=making.make_projection_heads())
    making.assert_same_weights(read_checkpoint(save(made, tmp_path / "weights.torch")).heads, made.heads)


def test_the_classifier_of_each_layout_is_one_head(tmp_path):
    classifier = {"classifier.weight": torch.ones(5, 64), "classifier.bias": torch.ones(5)}
    made = making.make_checkpoint(heads=classifier)
    save_file(making.spell_trunk(made, TIMM) | {"head.fc.weight": torch.ones(5, 64)}, tmp_path / "timm")
    assert list(read_checkpoint(tmp_path / "timm").heads) == ["classifier.weight"]
    making.assert_same_weights(read_checkpoint(making.save_vissl(made, tmp_path / "vissl")).heads, classifier)


def test_the_names_are_those_of_the_specification():
    ours = ("stem.norm.bias", "stages.0.0.shortcut.conv.weight", "stages.1.1.a.conv.weight", "stages.2.9.c.norm.weight")
    assert [VISSL.spell(key) for key in ours] == [
        "_feature_blocks.conv1.stem.1.bias",
        "_feature_blocks.res2.block1-0.proj.weight",
        "_feature_blocks.res3.block2-1.f.a.0.weight",
        "_feature_blocks.res4.block3-9.f.final_bn.weight",
    ]
    assert [TIMM.spell(key) for key in ours] == [
        "stem.bn.bias",
        "s1.b1.downsample.conv.weight",
        "s2.b2.conv1.conv.weight",
        "s3.b10.conv3.bn.weight",
    ]
    assert [HUGGINGFACE.spell(key) for key in ours] == [
        "embedder.embedder.normalization.bias",
        "encoder.stages.0.layers.0.shortcut.convolution.weight",
        "encoder.stages.1.layers.1.layer.0.convolution.weight",
        "encoder.stages.2.layers.9.layer.3.normalization.weight",
    ]


# Architecture from shapes


def list_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {key: tuple(weight.shape) for key, weight in RegNet(architecture).state_dict().items()}


@pytest.mark.parametrize("size", ARCHITECTURES)
def test_every_size_is_recognised_by_its_shapes(size):
    assert infer_architecture(list_shapes(ARCHITECTURES[size])) == ARCHITECTURES[size]


four = {"min_size": 4, "max_size": 4}


@settings(max_examples=25, deadline=None)
@given(
    depths=st.lists(st.integers(1, 3), **four),
    group_widths=st.lists(st.integers(1, 9), **four),
    groups=st.lists(st.integers(1, 4), **four),
    stem_width=st.integers(1, 40),
    data=st.data(),
)
def test_any_architecture_is_recognised_by_its_shapes(depths, group_widths, groups, stem_width, data):
    squeeze_widths = tuple(tuple(data.draw(st.integers(1, 9)) for _ in range(depth)) for depth in depths)
    architecture = Architecture(
        depths=tuple(depths),
        widths=tuple(width * count for width, count in zip(group_widths, groups, strict=True)),
        group_widths=tuple(group_widths),
        stem_width=stem_width,
        squeeze_widths=squeeze_widths,
    )
    assert infer_architecture(list_shapes(architecture)) == architecture


# Every weight is accounted for

SOME_KEYS = [
    "stem.conv.weight",
    "stages.1.0.b.conv.weight",
    "stages.2.1.c.norm.running_var",
    "stages.3.0.squeeze.expand.bias",
    "stages.2.0.squeeze.reduce.weight",
    "stages.0.0.shortcut.conv.weight",
]


@pytest.mark.parametrize("key", SOME_KEYS)
def test_a_missing_weight_is_named_as_the_file_would_name_it(key, tmp_path):
    made = making.make_checkpoint()
    del made.trunk[key]
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(making.save_timm(made, tmp_path / "timm.safetensors"))
    assert TIMM.spell(key) in str(caught.value)
    assert "missing" in str(caught.value)
    assert "timm.safetensors" in str(caught.value)


def test_a_block_missing_between_others_is_named(tmp_path):
    made = making.make_checkpoint()
    trunk = {key: weight for key, weight in made.trunk.items() if not key.startswith("stages.2.1.")}
    save_file(trunk, tmp_path / "gap.safetensors")
    with pytest.raises(CheckpointError, match=r"stages\.2\.1\.\S+' is missing"):
        read_checkpoint(tmp_path / "gap.safetensors")


@pytest.mark.parametrize("key", ["stages.2.1.c.norm.running_var", "stages.1.1.a.conv.weight", "stem.norm.weight"])
def test_a_misshapen_weight_is_named_with_both_shapes(key, tmp_path):
    made = making.make_checkpoint()
    expected = tuple(made.trunk[key].shape)
    made.trunk[key] = torch.zeros(5, *expected[1:])
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(making.save_vissl(made, tmp_path / "vissl.torch"))
    for part in (VISSL.spell(key), str((5, *expected[1:])), str(expected)):
        assert part in str(caught.value)


@pytest.mark.parametrize("extra", ["s9.b1.conv1.conv.weight", "head.fc2.weight", "s1.b1.conv4.bn.weight", "optimizer"])
def test_an_unexpected_weight_is_named(extra, tmp_path):
    weights = making.spell_trunk(making.make_checkpoint(), TIMM) | {extra: torch.zeros(3)}
    save_file(weights, tmp_path / "timm.safetensors")
    with pytest.raises(CheckpointError, match=extra):
        read_checkpoint(tmp_path / "timm.safetensors")


def test_a_shortcut_where_none_belongs_is_named(tmp_path):
    made = making.make_checkpoint()
    made.trunk["stages.2.1.shortcut.conv.weight"] = torch.zeros(48, 48, 1, 1)
    save_file(made.trunk, tmp_path / "ours.safetensors")
    with pytest.raises(CheckpointError, match=r"stages\.2\.1\.shortcut\.conv\.weight' is unexpected"):
        read_checkpoint(tmp_path / "ours.safetensors")


def test_the_same_weight_under_two_names_is_refused(tmp_path):
    trunk = making.spell_trunk(making.make_checkpoint(), VISSL)
    name = "_feature_blocks.conv1.stem.0.weight"
    torch.save(making.nest(trunk | {f"base_model.{name}": trunk[name]}, {}), tmp_path / "twice.torch")
    with pytest.raises(CheckpointError, match="twice"):
        read_checkpoint(tmp_path / "twice.torch")


def test_a_head_for_another_dimension_is_named(tmp_path):
    made = making.make_checkpoint(heads={"classifier.weight": torch.zeros(5, 63)})
    with pytest.raises(CheckpointError, match=r"classifier\.weight.*\(5, 63\).*64"):
        read_checkpoint(making.save_vissl(made, tmp_path / "vissl.torch"))


HEADS = making.make_projection_heads() | {"classifier.weight": torch.zeros(5, 64), "classifier.bias": torch.zeros(5)}


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("projection.0.weight", (8, 63)),
        ("projection.0.weight", (8, 64, 1)),
        ("projection.0.bias", (1, 2, 3)),
        ("projection.1.running_mean", (7,)),
        ("projection.1.bias", None),
        ("projection.3.weight", (4, 9)),
        ("projection.0.weight", None),
        ("prototypes.0.weight", (10, 7)),
        ("classifier.bias", (77,)),
        ("classifier.weight", None),
        ("projection.3.running_var", (4,)),
        ("projection.4.bias", (4,)),
    ],
)
def test_a_head_whose_layers_do_not_fit_each_other_is_named(key, shape, tmp_path):
    """First they are read as they should be; without a shape, the weight is left out."""
    making.save_vissl(making.make_checkpoint(heads=HEADS), tmp_path / "good.torch")
    making.assert_same_weights(read_checkpoint(tmp_path / "good.torch").heads, HEADS)
    heads = {name: weight for name, weight in HEADS.items() if name != key}
    if shape is not None:
        heads[key] = torch.zeros(shape)
    made = making.make_checkpoint(heads=heads)
    layer = key.rpartition(".")[0].replace(".", r"\.")
    is_missing = shape is None or key == "projection.4.bias"
    reason = "is missing" if is_missing else "has the shape" if key in HEADS else "is unexpected"
    with pytest.raises(CheckpointError, match=rf"the head's weight '{layer}\.\w+' {reason}"):
        read_checkpoint(making.save_vissl(made, tmp_path / "vissl.torch"))


@pytest.mark.parametrize(
    "name", ["projection_head.3.banana", "projection_head.00.weight", f"prototypes{'1' * 5000}.weight"]
)
def test_a_head_of_another_kind_is_named(name, tmp_path):
    trunk = making.spell_trunk(making.make_checkpoint(), VISSL)
    torch.save(making.nest(trunk, {f"0.{name}": torch.zeros(4)}), tmp_path / "vissl.torch")
    with pytest.raises(CheckpointError, match=f"0.{name}.*is not part of a RegNetY"):
        read_checkpoint(tmp_path / "vissl.torch")


def test_a_weight_with_and_without_the_layouts_prefix_is_there_twice(tmp_path):
    weights = making.spell_trunk(making.make_checkpoint(), HUGGINGFACE)
    name = "embedder.embedder.convolution.weight"
    torch.save(weights | {f"regnet.{name}": torch.zeros_like(weights[name])}, tmp_path / "twice.bin")
    with pytest.raises(CheckpointError, match="convolution.weight' is there twice"):
        read_checkpoint(tmp_path / "twice.bin")


def test_a_network_without_squeeze_is_no_regnety(tmp_path):
    trunk = making.spell_trunk(making.make_checkpoint(), TIMM)
    save_file({name: weight for name, weight in trunk.items() if ".se." not in name}, tmp_path / "regnetx.safetensors")
    with pytest.raises(CheckpointError, match=r"s1\.b1\.se\.fc1\.weight' is missing"):
        read_checkpoint(tmp_path / "regnetx.safetensors")


def test_other_networks_are_told_by_their_names(tmp_path):
    save_file({"layer1.0.conv1.weight": torch.zeros(1)}, tmp_path / "resnet.safetensors")
    with pytest.raises(CheckpointError, match=r"holds no RegNetY.*layer1\.0\.conv1\.weight"):
        read_checkpoint(tmp_path / "resnet.safetensors")


# Writing


def test_a_write_that_fails_leaves_the_older_file_whole(tmp_path, monkeypatch):
    target = tmp_path / "model.safetensors"
    write_checkpoint(making.make_checkpoint(seed=1), target)
    before = target.read_bytes()

    def fail(weights, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("seer_model.checkpoint.save_file", fail)
    with pytest.raises(CheckpointError, match="No space left"):
        write_checkpoint(making.make_checkpoint(seed=2), target)
    assert target.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_a_folder_that_is_not_there_is_said_before_anything_is_written(tmp_path):
    with pytest.raises(CheckpointError, match="there is no folder .*/nowhere. Make it first"):
        write_checkpoint(making.make_checkpoint(), tmp_path / "nowhere" / "model.safetensors")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such rights")
def test_written_weights_may_be_read_by_whom_the_umask_allows(tmp_path):
    (tmp_path / ".model.safetensors.part").touch(mode=0o600)  # left by one that was killed
    before = os.umask(0o027)
    try:
        write_checkpoint(making.make_checkpoint(), tmp_path / "model.safetensors")
    finally:
        os.umask(before)
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o640


def test_weights_that_do_not_fit_are_not_written(tmp_path):
    made = making.make_checkpoint()
    del made.trunk["stem.conv.weight"]
    with pytest.raises(CheckpointError, match=r"stem\.conv\.weight"):
        write_checkpoint(made, tmp_path / "model.safetensors")
    assert not any(tmp_path.iterdir())


def test_a_training_networks_weights_are_written_without_counters(tmp_path):
    network = making.make_network()
    made = Checkpoint(architecture=making.TINY, trunk=network.state_dict(), heads={}, layout="made")
    write_checkpoint(made, tmp_path / "model.safetensors")
    making.assert_same_weights(load_file(tmp_path / "model.safetensors"), drop_counters(network.state_dict()))


def test_weights_that_share_memory_are_written_apart(tmp_path):
    made = making.make_checkpoint()
    shared = torch.randn(65)
    made.trunk["stages.3.0.a.norm.weight"] = made.trunk["stages.3.0.a.norm.bias"] = shared[1:]
    made.trunk["stages.3.0.b.norm.weight"] = shared[:-1]
    write_checkpoint(made, tmp_path / "model.safetensors")
    making.assert_same_weights(read_checkpoint(tmp_path / "model.safetensors").trunk, made.trunk)


def test_a_file_of_a_newer_program_is_refused(tmp_path):
    save_file(making.make_checkpoint().trunk, tmp_path / "new.safetensors", metadata={"seer_layout": "2"})
    with pytest.raises(CheckpointError, match="layout version 2; this program knows up to 1"):
        read_checkpoint(tmp_path / "new.safetensors")


def test_a_network_takes_over_the_weights_and_copies_none(tmp_path):
    checkpoint = making.make_checkpoint()
    network = build_network(checkpoint)
    for key, weight in drop_counters(network.state_dict()).items():
        assert weight.data_ptr() == checkpoint.trunk[key].data_ptr()
