"""Small networks with random weights, and the same weights as others would have saved them."""

import hashlib
import json
import re
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from seer_model.checkpoint import Checkpoint, drop_counters, read_checkpoint, write_checkpoint
from seer_model.key_tables import HUGGINGFACE, TIMM, VISSL, KeyTable
from seer_model.regnet import Architecture, RegNet

TINY = Architecture(depths=(1, 2, 3, 1), widths=(16, 24, 48, 64), group_widths=(8, 12, 16, 64))
"""Another group width in every stage, and blocks enough to number."""


def randomise_norms(network: torch.nn.Module, seed: int = 0) -> None:
    """Give every batch normalisation statistics and gains as a trained one has; a fresh one is almost the identity."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.2, generator=generator)
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)


def make_network(architecture: Architecture = TINY, *, seed: int = 0) -> RegNet:
    network = RegNet(architecture, generator=torch.Generator().manual_seed(seed)).eval()
    randomise_norms(network, seed)
    return network


def make_checkpoint(architecture: Architecture = TINY, *, seed: int = 0, heads: dict | None = None) -> Checkpoint:
    trunk = drop_counters(make_network(architecture, seed=seed).state_dict())
    return Checkpoint(architecture=architecture, trunk=trunk, heads=heads or {}, layout="made")


def make_projection_heads(dimension: int = TINY.dimension) -> dict[str, Tensor]:
    """SwAV's heads: two linear layers with a normalisation between, and 10 prototypes."""
    generator = torch.Generator().manual_seed(3)
    shapes = {
        "projection.0.weight": (8, dimension),
        "projection.0.bias": (8,),
        **{f"projection.1.{leaf}": (8,) for leaf in ("weight", "bias", "running_mean", "running_var")},
        "projection.3.weight": (4, 8),
        "prototypes.0.weight": (10, 4),
    }
    return {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def spell_trunk(checkpoint: Checkpoint, table: KeyTable) -> dict[str, Tensor]:
    return {table.spell(key): weight for key, weight in checkpoint.trunk.items()}


def spell_vissl_heads(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Our head names as VISSL writes them, by hand: the table under test reads this direction only."""
    names = {"projection.": "0.projection_head.", "prototypes.0.": "0.prototypes0.", "classifier.": "0.clf.0."}
    found = [(ours, theirs, key) for key in checkpoint.heads for ours, theirs in names.items() if key.startswith(ours)]
    return {theirs + key.removeprefix(ours): checkpoint.heads[key] for ours, theirs, key in found}


def nest(trunk: dict, heads: object, kind: str | None = None) -> dict:
    """VISSL's levels around a trunk and heads."""
    content = {"classy_state_dict": {"base_model": {"model": {"trunk": trunk, "heads": heads}}}}
    return content | ({"type": kind} if kind else {})


def add_part_level(name: str) -> str:
    """The level that activation checkpointing put into the names of the 10B file: two groups in stage 3."""

    def add(match: re.Match) -> str:
        stage, block = match.groups()
        part = 1 if stage == "3" and int(block) >= 2 else 0
        return f".block{stage}-part{part}.block{stage}-{block}."

    return re.sub(r"\.block(\d)-(\d+)\.", add, name)


def add_wrappers(name: str) -> str:
    """FSDP's levels: around each stage and each normalisation, of an older and a newer kind."""
    name = re.sub(r"\.(res\d)\.", r".\1._fsdp_wrapped_module._fpw_module.", name)
    return name.replace(".final_bn.", ".final_bn._fsdp_wrapped_module.")


def save_vissl(checkpoint: Checkpoint, path: Path) -> Path:
    torch.save(nest(spell_trunk(checkpoint, VISSL), spell_vissl_heads(checkpoint), "consolidated"), path)
    return path


def save_vissl_parts(checkpoint: Checkpoint, path: Path) -> Path:
    trunk = {add_part_level(name): weight for name, weight in spell_trunk(checkpoint, VISSL).items()}
    assert any("block3-part1.block3-2." in name for name in trunk)
    torch.save(nest(trunk, spell_vissl_heads(checkpoint)), path)
    return path


def save_vissl_fsdp(checkpoint: Checkpoint, path: Path) -> Path:
    trunk = {add_wrappers(add_part_level(name)): weight for name, weight in spell_trunk(checkpoint, VISSL).items()}
    torch.save(nest(trunk, spell_vissl_heads(checkpoint)), path)
    return path


def save_vissl_extractor(checkpoint: Checkpoint, path: Path) -> Path:
    """As the feature extractor names a trunk, in the older file format of torch, with counters and without heads."""
    trunk = {f"base_model.{name}": weight for name, weight in spell_trunk(checkpoint, VISSL).items()}
    trunk["base_model._feature_blocks.conv1.stem.1.num_batches_tracked"] = torch.tensor(7)
    torch.save(nest(trunk, None), path, _use_new_zipfile_serialization=False)
    return path


def save_slices(checkpoint: Checkpoint, path: Path, *, listed_folder: str | None = None) -> Path:
    """VISSL's slice list: every weight in a file of its own, listed by its path."""
    layers = path.with_name(f"{path.name}_layers")
    layers.mkdir()

    def save_slice(name: str, weight: Tensor) -> str:
        filename = hashlib.sha1(name.encode()).hexdigest() + ".torch"
        torch.save({"type": "slice", "weight": weight}, layers / filename)
        return f"{listed_folder or layers}/{filename}"

    trunk = {name: save_slice(name, weight) for name, weight in spell_trunk(checkpoint, VISSL).items()}
    heads = {name: save_slice(name, weight) for name, weight in spell_vissl_heads(checkpoint).items()}
    torch.save(nest(trunk, heads, "slice_list"), path)
    return path


def save_timm(checkpoint: Checkpoint, path: Path) -> Path:
    save_file(spell_trunk(checkpoint, TIMM), path)
    return path


def save_timm_bin(checkpoint: Checkpoint, path: Path) -> Path:
    torch.save(spell_trunk(checkpoint, TIMM), path)
    return path


def save_huggingface(checkpoint: Checkpoint, path: Path) -> Path:
    torch.save({f"regnet.{name}": weight for name, weight in spell_trunk(checkpoint, HUGGINGFACE).items()}, path)
    return path


def save_shards(checkpoint: Checkpoint, folder: Path) -> Path:
    """A Hugging Face folder of three shards and their index."""
    folder.mkdir()
    weights = spell_trunk(checkpoint, HUGGINGFACE)
    shard_of = {name: f"pytorch_model-{place % 3:05d}.bin" for place, name in enumerate(weights)}
    for shard in set(shard_of.values()):
        torch.save({name: weights[name] for name in weights if shard_of[name] == shard}, folder / shard)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": shard_of}))
    return folder


SAVERS = {
    "ours": (lambda checkpoint, path: write_checkpoint(checkpoint, path) or path, "seer"),
    "vissl": (save_vissl, "vissl"),
    "vissl, parts of 10B": (save_vissl_parts, "vissl"),
    "vissl, FSDP": (save_vissl_fsdp, "vissl"),
    "vissl, extractor": (save_vissl_extractor, "vissl"),
    "vissl, slices": (save_slices, "vissl"),
    "timm safetensors": (save_timm, "timm"),
    "timm bin": (save_timm_bin, "timm"),
    "hugging face": (save_huggingface, "huggingface"),
    "hugging face, shards": (save_shards, "huggingface"),
}


def assert_same_weights(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key].cpu(), expected[key].cpu()) for key in expected)


def assert_is_the_model(path: Path) -> None:
    """That the file is what `make_checkpoint` makes, in our own layout."""
    checkpoint = read_checkpoint(path)
    assert checkpoint.layout == "seer"
    assert_same_weights(checkpoint.trunk, make_checkpoint().trunk)
