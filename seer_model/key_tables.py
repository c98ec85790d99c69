"""The names that weights have in the files of others, beside ours.

One table for each layout; from one table come both directions. Stages and blocks count from 0 here; the files of others
count some from 0, some from 1, and VISSL's name a stage twice (`res2.block1-0` is our `stages.0.0`).

Rule: names only. No tensor and no file is opened here, and a name that no table knows is left to the caller to refuse.
Source: spec/seer.md, 2.4 (generated from the libraries' own converters).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from seer_model.regnet import STAGES

MOST_BLOCKS = 64
"""Blocks in a stage that the tables spell out; the deepest RegNetY has 17."""

NORM_LEAVES = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
LEAVES = {"conv": ("weight",), "norm": NORM_LEAVES, "reduce": ("weight", "bias"), "expand": ("weight", "bias")}
STEM_PARTS = ("stem.conv", "stem.norm")
BLOCK_PARTS = (
    *("a.conv", "a.norm", "b.conv", "b.norm", "squeeze.reduce", "squeeze.expand"),
    *("c.conv", "c.norm", "shortcut.conv", "shortcut.norm"),
)
WHITENING = "whitening."
"""Begins the names of the head that a model's own embeddings come from, if it has it (see `whitening`)."""
HEAD_NUMBER, HEAD_LEAF = "(?:0|[1-9][0-9]?)", "(?:" + "|".join(NORM_LEAVES) + ")"
SPELLED = "[a-z0-9]+(?:-[a-z0-9]+)*"
"""How a pooling's name may look (see `outputs`)."""
OUR_HEADS = (
    rf"classifier\.(?:weight|bias)|whitening\.(?:{SPELLED}\.)?(?:weight|bias)"
    rf"|projection\.{HEAD_NUMBER}\.{HEAD_LEAF}|prototypes\.{HEAD_NUMBER}\.weight"
)

# What training wrappers put into names: FSDP's levels, the groups of activation checkpointing (10B), and VISSL's
# feature extractor.
WRAPPERS = re.compile(r"^base_model\.|\b_fsdp_wrapped_module\.|\b_fpw_module\.|\bblock\d-part\d+\.")


@dataclass(frozen=True, kw_only=True, eq=False)
class KeyTable:
    """How one layout names the weights."""

    layout: str
    block: str
    """What comes before a block's part; may use stage, block, and the same from 1 (stage1, block1) and 2 (stage2)."""
    parts: dict[str, str]
    """Our part -> theirs, for the two of the stem and the ten of a block."""
    heads: dict[str, str]
    """Pattern of their whole name -> template of ours."""
    prefix: str = ""
    """Stands before every trunk name in some files of this layout."""

    def spell(self, key: str) -> str:
        """One of our trunk names as this layout writes it."""
        module, _, leaf = key.rpartition(".")
        if module in STEM_PARTS:
            return f"{self.parts[module]}.{leaf}"
        _, stage, block, part = module.split(".", 3)
        numbers = {"stage": stage, "stage1": int(stage) + 1, "stage2": int(stage) + 2}
        numbers |= {"block": block, "block1": int(block) + 1}
        return f"{self.block.format(**numbers)}.{self.parts[part]}.{leaf}"

    def read_trunk(self, name: str) -> str | None:
        """Our name for one of this layout's trunk names; None when it has no such name."""
        return _list_trunk_names(self).get(name.removeprefix(self.prefix))

    def read_head(self, name: str) -> str | None:
        """Our name for one of this layout's head names (`OUR_HEADS`); None when it has no such name."""
        for pattern, template in self.heads.items():
            if match := re.fullmatch(pattern, name):
                return match.expand(template)
        return None


SEER = KeyTable(
    layout="seer",
    block="stages.{stage}.{block}",
    parts={part: part for part in (*STEM_PARTS, *BLOCK_PARTS)},
    heads={rf"heads\.({OUR_HEADS})": r"\1"},
)
VISSL = KeyTable(
    layout="vissl",
    block="_feature_blocks.res{stage2}.block{stage1}-{block}",
    parts={
        "stem.conv": "_feature_blocks.conv1.stem.0",
        "stem.norm": "_feature_blocks.conv1.stem.1",
        "a.conv": "f.a.0",
        "a.norm": "f.a.1",
        "b.conv": "f.b.0",
        "b.norm": "f.b.1",
        "squeeze.reduce": "f.se.excitation.0",
        "squeeze.expand": "f.se.excitation.2",
        "c.conv": "f.c",
        "c.norm": "f.final_bn",
        "shortcut.conv": "proj",
        "shortcut.norm": "bn",
    },
    heads={
        r"heads\.0\.clf\.0\.(weight|bias)": r"classifier.\1",
        rf"heads\.0\.projection_head\.({HEAD_NUMBER}\.{HEAD_LEAF})": r"projection.\1",
        rf"heads\.0\.prototypes({HEAD_NUMBER})\.weight": r"prototypes.\1.weight",
    },
)
TIMM = KeyTable(
    layout="timm",
    block="s{stage1}.b{block1}",
    parts={
        "stem.conv": "stem.conv",
        "stem.norm": "stem.bn",
        "a.conv": "conv1.conv",
        "a.norm": "conv1.bn",
        "b.conv": "conv2.conv",
        "b.norm": "conv2.bn",
        "squeeze.reduce": "se.fc1",
        "squeeze.expand": "se.fc2",
        "c.conv": "conv3.conv",
        "c.norm": "conv3.bn",
        "shortcut.conv": "downsample.conv",
        "shortcut.norm": "downsample.bn",
    },
    heads={r"head\.fc\.(weight|bias)": r"classifier.\1"},
)
HUGGINGFACE = KeyTable(
    layout="huggingface",
    block="encoder.stages.{stage}.layers.{block}",
    prefix="regnet.",
    parts={
        "stem.conv": "embedder.embedder.convolution",
        "stem.norm": "embedder.embedder.normalization",
        "a.conv": "layer.0.convolution",
        "a.norm": "layer.0.normalization",
        "b.conv": "layer.1.convolution",
        "b.norm": "layer.1.normalization",
        "squeeze.reduce": "layer.2.attention.0",
        "squeeze.expand": "layer.2.attention.2",
        "c.conv": "layer.3.convolution",
        "c.norm": "layer.3.normalization",
        "shortcut.conv": "shortcut.convolution",
        "shortcut.norm": "shortcut.normalization",
    },
    heads={r"classifier\.1\.(weight|bias)": r"classifier.\1"},
)
TABLES = (SEER, VISSL, TIMM, HUGGINGFACE)


def strip_wrappers(name: str) -> str:
    """A name without the levels that training wrappers put in; `_feature_blocks.res4.block3-part1.block3-9.` too."""
    return WRAPPERS.sub("", name)


def is_counter(key: str) -> bool:
    """Whether a name is a batch counter, which files may leave out and no inference reads."""
    return key.endswith(".num_batches_tracked")


@cache
def _list_trunk_names(table: KeyTable) -> dict[str, str]:
    """Their name -> ours, for every name that the table can spell."""
    return {table.spell(key): key for key in _spell_all_ours()}


def _spell_all_ours() -> Iterator[str]:
    blocks = (f"stages.{stage}.{block}" for stage in range(STAGES) for block in range(MOST_BLOCKS))
    modules = (*STEM_PARTS, *(f"{block}.{part}" for block in blocks for part in BLOCK_PARTS))
    for module in modules:
        yield from (f"{module}.{leaf}" for leaf in LEAVES[module.rpartition(".")[2]])
