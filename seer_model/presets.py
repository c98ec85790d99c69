"""Everything that decides how a model is pretrained, and the recipes that have a name.

Rule: a preset is data. What a run needs to be repeated or resumed is in its `PretrainSettings` and the pile's hash.
Source: spec/seer.md, section 3.1, which says where each published number was found.
"""

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from seer_model.crops import CropKind
from seer_model.errors import SettingsError
from seer_model.optimizer import OptimizerSettings
from seer_model.regnet import ARCHITECTURES
from seer_model.swav import SwavSettings
from seer_model.whitening import ROWS_EACH

PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True, kw_only=True)
class PretrainSettings:
    """One recipe. A batch is counted over all ranks."""

    architecture: str = "400MF"
    """A name of `regnet.ARCHITECTURES`; not used when the run goes on from a model."""
    crops: tuple[CropKind, ...]
    """The large ones first: the assigned crops are the first ones."""
    swav: SwavSettings = field(default_factory=SwavSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    batch_size: int = 4096
    epochs: float = 1.0
    """Times that each picture is seen."""
    picture_px: int = 256
    """Side of the squares that pictures are kept as; crops are cut from these."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the network under autocast; scores, assignments, loss and weights are fp32."""
    norm_group: int = 0
    """Ranks that share the statistics of batch normalisation; 0: all."""
    recompute: bool = False
    """Compute activations again in the backward pass instead of keeping them (activation checkpointing)."""
    whitening_crops: int = 0
    """Crops on which the model's last layer is fitted at the end of the run (see `whitening`); 0: it gets none. Four
    for each number of an embedding, or the embedding will have fewer numbers."""
    window: int = 0
    """Pictures among which the order of an epoch is drawn, shard after shard (see `orders`); 0: among all."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise SettingsError(f"There is no architecture {self.architecture!r}; allowed are {known}.")
        if self.precision not in PRECISIONS:
            raise SettingsError(f"The precision is {self.precision!r}; allowed are {', '.join(PRECISIONS)}.")
        if self.batch_size < 2 or not 0 < self.epochs < math.inf or min(self.norm_group, self.window, self.seed) < 0:
            raise SettingsError(
                f"batch_size {self.batch_size} must be 2 or more, epochs {self.epochs} a number above 0, "
                f"norm_group {self.norm_group}, window {self.window} and seed {self.seed} 0 or more."
            )
        if self.whitening_crops and self.whitening_crops < ROWS_EACH:
            raise SettingsError(
                f"whitening_crops is {self.whitening_crops}; allowed are 0, or {ROWS_EACH} or more."
            )
        if self.picture_px < 32:
            raise SettingsError(f"picture_px is {self.picture_px}; it must be 32 or more.")
        if self.count_crops() < 2 or self.swav.assigned_crops > self.count_crops():
            raise SettingsError(
                f"{self.swav.assigned_crops} assigned crops of {self.count_crops()}: there must be 2 crops or more, "
                "and as many as are assigned."
            )

    def count_crops(self) -> int:
        """C, crops of each picture."""
        return sum(kind.count for kind in self.crops)

    def describe(self) -> dict:
        """As JSON-able values."""
        return asdict(self)


def read_settings(values: dict) -> PretrainSettings:
    """Settings from what `describe` gave, after a way through JSON."""
    return PretrainSettings(
        **values
        | {
            "crops": tuple(CropKind(**_as_tuples(kind)) for kind in values["crops"]),
            "swav": SwavSettings(**_as_tuples(values["swav"])),
            "optimizer": OptimizerSettings(**values["optimizer"]),
        }
    )


def _as_tuples(values: dict) -> dict:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def find_preset(name: str) -> PretrainSettings:
    """The recipe of this name.

    Raises: SettingsError.
    """
    if name not in PRESETS:
        raise SettingsError(f"There is no preset {name!r}; allowed are {', '.join(PRESETS)}.")
    return PRESETS[name]


def change_recipe(
    recipe: PretrainSettings,
    *,
    batch_size: int | None = None,
    epochs: float | None = None,
    rate: float | None = None,
    precision: str | None = None,
    window: int | None = None,
    seed: int | None = None,
) -> PretrainSettings:
    """A recipe with what is given otherwise. With another batch size the rates change in proportion."""
    if batch_size is not None:
        recipe = _scale_rates(replace(recipe, batch_size=batch_size), batch_size / recipe.batch_size)
    if rate is not None:
        recipe = _scale_rates(recipe, rate / recipe.optimizer.rate)
    given = {"epochs": epochs, "precision": precision, "window": window, "seed": seed}
    return replace(recipe, **{name: value for name, value in given.items() if value is not None})


def _scale_rates(recipe: PretrainSettings, factor: float) -> PretrainSettings:
    rates = ("rate", "warmup_start_rate", "final_rate")
    scaled = {name: getattr(recipe.optimizer, name) * factor for name in rates}
    return replace(recipe, optimizer=replace(recipe.optimizer, **scaled))


def _crop(side_px: int, large: int, small_px: int, small: int) -> tuple[CropKind, CropKind]:
    """The published crops: large ones of 14 to 100 % of a picture, small ones of 5 to 14 %."""
    return (
        CropKind(count=large, side_px=side_px, scale=(0.14, 1.0)),
        CropKind(count=small, side_px=small_px, scale=(0.05, 0.14)),
    )


def _describe_seer(
    architecture: str,
    *,
    width: int,
    norms: bool,
    batch_size: int,
    pictures_per_gpu: int = 16,
    schedule: str = "cosine",
) -> PretrainSettings:
    """A run of SEER (2021) over a billion pictures.

    Its rate is 0.3 for each 256 pictures of a batch; it rises in 8,000 steps from what one node of 8 GPUs would have.
    """
    rate = 0.3 * batch_size / 256
    return PretrainSettings(
        architecture=architecture,
        crops=_crop(224, 2, 96, 4),
        swav=SwavSettings(projection=(width, width, 256), projection_norms=norms, prototypes=16000, sinkhorn_rounds=10),
        optimizer=OptimizerSettings(
            rate=rate,
            warmup_start_rate=0.3 * 8 * pictures_per_gpu / 256,
            final_rate=rate / 1000,
            warmup_share=8000 * batch_size / 1e9,
            schedule=schedule,
            weight_decay=1e-5,
        ),
        batch_size=batch_size,
        precision="fp16",
        norm_group=64,
        recompute=True,
    )


PRESETS: dict[str, PretrainSettings] = {
    "swav": PretrainSettings(
        # SwAV's 800 epochs on ImageNet, on the RegNetY that is nearest to a ResNet-50 in cost.
        architecture="4GF",
        crops=_crop(224, 2, 96, 6),
        optimizer=OptimizerSettings(warmup_share=10 / 800),
        epochs=800,
        precision="fp16",
        norm_group=8,
    ),
    "swav-small-batch": PretrainSettings(
        # SwAV's run for 4 GPUs: a queue makes up for 256 pictures in a batch.
        architecture="4GF",
        crops=_crop(224, 2, 96, 6),
        swav=SwavSettings(queue=3840, queue_start_step=15 * 5005, frozen_steps=5005),
        optimizer=OptimizerSettings(rate=0.6, warmup_start_rate=0.6, final_rate=0.0006, warmup_share=0.0),
        batch_size=256,
        epochs=200,
        precision="fp16",
    ),
    # Batch: the file is of step 244,000, and a billion pictures in 244,140 steps are 4,096 in each.
    "seer-32gf": _describe_seer("32GF", width=4096, norms=True, batch_size=4096, pictures_per_gpu=32),
    "seer-64gf": _describe_seer("64GF", width=8192, norms=False, batch_size=8192),
    "seer-128gf": _describe_seer(
        "128GF", width=8192, norms=False, batch_size=4096, pictures_per_gpu=32, schedule="constant"
    ),
    "seer-256gf": _describe_seer("256GF", width=8192, norms=False, batch_size=8192),
    "seer-10b": PretrainSettings(
        architecture="10B",
        crops=_crop(160, 2, 96, 4),
        swav=SwavSettings(
            projection=(8192, 8192, 256), projection_norms=False, prototypes=16000, epsilon=0.03, sinkhorn_rounds=10
        ),
        optimizer=OptimizerSettings(
            rate=9.3, warmup_start_rate=0.15, final_rate=0.0093, warmup_share=0.043648, weight_decay=1e-5
        ),
        batch_size=7936,
        precision="fp16",
        norm_group=8,
        recompute=True,
    ),
    "mini": PretrainSettings(
        # For one GPU and tens of thousands of small pictures. Its first 200 steps were tried, on a CPU.
        # Large crops alone: small ones of pictures this small teach less and halve the speed (lab log).
        architecture="800MF",
        crops=(CropKind(count=2, side_px=112, scale=(0.25, 1.0), strength=0.8, blur_px=(0.1, 1.5)),),
        swav=SwavSettings(projection=(2048, 128), prototypes=2000, epsilon=0.03, sinkhorn_rounds=5, frozen_steps=100),
        optimizer=OptimizerSettings(rate=2.0, warmup_start_rate=0.2, final_rate=0.002),
        batch_size=512,
        epochs=100,
        picture_px=128,
        whitening_crops=4096,
        precision="bf16",
    ),
    "tiny": PretrainSettings(
        # For a CPU. Two large crops alone: small ones of pictures this small show too little to agree on (lab log).
        architecture="200MF",
        crops=(CropKind(count=2, side_px=64, scale=(0.25, 1.0), strength=0.5, blur_px=(0.1, 1.0)),),
        swav=SwavSettings(projection=(1024, 128), prototypes=300, epsilon=0.03, frozen_steps=100),
        optimizer=OptimizerSettings(rate=2.0, warmup_start_rate=0.2, final_rate=0.02),
        batch_size=128,
        epochs=15,
        picture_px=128,
        whitening_crops=400,
    ),
    "cpu": PretrainSettings(
        # The bundled model's: 48 minutes on two cores with bf16 units.
        architecture="800MF",
        crops=(CropKind(count=2, side_px=64, scale=(0.25, 1.0), strength=0.5, blur_px=(0.1, 1.0)),),
        swav=SwavSettings(projection=(1024, 128), prototypes=1000, epsilon=0.03, frozen_steps=100),
        optimizer=OptimizerSettings(rate=2.0, warmup_start_rate=0.2, final_rate=0.4, warmup_share=0.05),
        batch_size=128,
        epochs=10,
        picture_px=128,
        whitening_crops=4096,
        precision="bf16",
    ),
    "cpu-large": PretrainSettings(
        # To go on with from a model of `cpu`, which has seen whole pictures at 64 px: stronger distortion, and crops
        # that would not start a run. Crops are found better afterwards, subjects no better (lab log).
        architecture="800MF",
        crops=(
            CropKind(count=2, side_px=112, scale=(0.14, 0.8), strength=0.7, blur_px=(0.1, 1.5)),
            CropKind(count=2, side_px=64, scale=(0.05, 0.3), strength=0.7, blur_px=(0.1, 1.0)),
        ),
        swav=SwavSettings(projection=(1024, 128), prototypes=1000, epsilon=0.03, frozen_steps=0),
        optimizer=OptimizerSettings(rate=1.0, warmup_start_rate=0.4, final_rate=0.01, warmup_share=0.03),
        batch_size=128,
        epochs=2.5,
        picture_px=128,
        precision="bf16",
        whitening_crops=4096,
    ),
}
