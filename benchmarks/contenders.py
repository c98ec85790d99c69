"""Who takes part in the measurement of a training step: ours, the plain reference twice, the networks alone.

    ours                          indexer.pile -> Feed -> Learner.step, as `seer pretrain` puts them together
    reference                     DataLoader that decodes and crops with Pillow -> ReferenceStep
    reference, pictures decoded   the same, given pixels instead of files: no decoding in either of the two
    network alone, ours           the trunk forward and backward on ready random crops, in our layout and precision
    network alone, reference      the same in the reference's: NCHW, fp32

Rule: each takes its rounds alone; whoever has processes of its own lets them come to rest before another one is timed.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.race import Contender, Round, race, read_clock
from benchmarks.reference_crops import (
    PREFETCHED,
    Pictures,
    decode_all,
    make_loader,
    read_encoded,
    require_shared_memory,
)
from benchmarks.reference_step import ReferenceStep
from indexer.pile import Listing, Pile, SqueezeSettings, list_sources
from indexer.workers import count_cores
from seer_model.errors import SettingsError
from seer_model.feed import Feed, Plan
from seer_model.learner import AUTOCAST, Learner, start_learner
from seer_model.presets import PretrainSettings
from seer_model.ranks import Ranks
from seer_model.swav import group_by_side

OURS, FIRST_EPOCH = "ours", "ours, first epoch"
REFERENCE, DECODED = "reference", "reference, pictures decoded"
NETWORK, PLAIN_NETWORK = "network alone, ours", "network alone, reference"
BATCHES = 16
"""In an epoch, unless it is said otherwise."""
LEAD_STEPS = 3
"""Untimed, in the beginning of a round."""
MEMORY_BYTES = 8 << 30
"""For decoded pictures, as `seer pretrain` has it."""
STARTS_WORKER = 64
"""Pictures, at most, in the first task of a decoding process."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all contenders have in common."""

    recipe: PretrainSettings
    sources: tuple[Path, ...]
    device: torch.device
    rounds: int = 5
    steps: int = 10
    """Timed, in each round."""
    limit: int | None = None
    """Pictures, the first ones of the sources; None: sixteen batches."""
    workers: int | None = None
    """Decoding processes of ours, and the reference's workers; None: one for each core."""

    def count_workers(self) -> int:
        """As many as there will be."""
        return self.workers or count_cores()


def compete(setting: Setting, tell: Callable[[str], None] = lambda text: None) -> dict[str, list[Round]]:
    """Let all take part, and return the rounds of each; the first epoch of ours is a single round.

    Raises: SourceError, PileError, SettingsError.
    """
    recipe, workers = setting.recipe, setting.count_workers()
    require_shared_memory(recipe.crops, recipe.batch_size, workers)
    listing = list_some(setting)
    tell(f"{len(listing.places):,} pictures; {workers} decoding processes")
    learner = start_learner(recipe, Ranks(device=setting.device))
    with Pile(listing, SqueezeSettings(side_px=recipe.picture_px), workers) as pile:
        others = make_others(learner, listing, setting)
        with contextlib.closing(Ours(learner, pile, workers)) as ours:
            first = ours.take_first_epoch()
            tell(f"first epoch: {ours.name} {first.rate:,.1f} images/s")
            return {FIRST_EPOCH: [first]} | race([ours, *others], rounds=setting.rounds, steps=setting.steps, tell=tell)


def list_some(setting: Setting) -> Listing:
    """The first pictures of the sources, in whole batches."""
    listing, batch_size = list_sources(setting.sources), setting.recipe.batch_size
    count = min(len(listing.places), setting.limit or BATCHES * batch_size) // batch_size * batch_size
    if not count:
        raise SettingsError(
            f"A batch has {batch_size} pictures, and there are {len(listing.places)}; --limit is {setting.limit}. "
            "Use a smaller --batch-size, a larger --limit, or more pictures."
        )
    return replace(listing, places=listing.places[:count])


def find_safe_rate(recipe: PretrainSettings) -> float:
    """The rate that a run begins with. All rates cost the same, and at the highest new weights could run away."""
    return recipe.optimizer.warmup_start_rate


class Ours:
    """The product's own path, in the state in which most steps are: prototypes learn, and the queue is full."""

    name = OURS

    def __init__(self, learner: Learner, pile: Pile, workers: int) -> None:
        self._learner, self._pile, self._workers = learner, pile, workers
        self._recipe, self._device = learner.settings, learner.device
        self._rate = find_safe_rate(self._recipe)
        self._plan = Plan(pictures=len(pile), batch_size=self._recipe.batch_size, steps=10**9, seed=self._recipe.seed)
        self._step = max(self._recipe.swav.frozen_steps, self._recipe.swav.queue_start_step)
        self._feed: Feed | None = None
        if learner.queue is not None:
            learner.queue.push(F.normalize(torch.randn_like(learner.queue.rows), dim=2))

    def take_first_epoch(self) -> Round:
        """One pass over all pictures, decoding included; processes are started, and kernels chosen, before."""
        self._warm_up()
        started = read_clock(self._device)
        side_px, step = self._recipe.picture_px, self._step
        self._feed = Feed(self._pile, self._plan, side_px=side_px, device=self._device, memory_bytes=MEMORY_BYTES)
        if not self._feed.is_kept:
            raise SettingsError(f"These pictures need more than {MEMORY_BYTES >> 30} GB once decoded; set a --limit.")
        self._learn(self._plan.steps_per_epoch)
        return self._finish(step, started, 0.0)

    def take_round(self, steps: int) -> Round:
        """As `Contender` has it."""
        self._learn(LEAD_STEPS)
        step, waited, started = self._step, self._feed.waited_seconds, read_clock(self._device)
        self._learn(steps)
        return self._finish(step, started, waited)

    def close(self) -> None:
        """End the feed."""
        if self._feed is not None:
            self._feed.close()

    def _warm_up(self) -> None:
        shape = (self._recipe.batch_size, 3, self._recipe.picture_px, self._recipe.picture_px)
        noise = torch.randint(0, 256, shape, dtype=torch.uint8).to(self._device)
        for _ in range(LEAD_STEPS):
            self._learner.step(noise, torch.ones(len(noise)), self._step, self._rate)
        for _ in self._pile.read(range(min(len(self._pile), STARTS_WORKER * self._workers))):
            pass

    def _learn(self, steps: int) -> None:
        for _ in range(steps):
            batch = next(self._feed)
            self._learner.step(batch.pictures, batch.aspects, self._step, self._rate)
            self._step += 1

    def _finish(self, first_step: int, started: float, waited: float) -> Round:
        seconds = read_clock(self._device) - started
        share = (self._feed.waited_seconds - waited) / seconds
        images = (self._step - first_step) * self._recipe.batch_size
        return Round(images=images, seconds=seconds, waiting_share=share)


class Reference:
    """A DataLoader before the plain step."""

    def __init__(self, name: str, step: ReferenceStep, pictures: Pictures, setting: Setting) -> None:
        self.name, self._step, self._device = name, step, setting.device
        self._rate = find_safe_rate(setting.recipe)
        workers = setting.count_workers()
        # So many steps use up what the workers had ready when the round began; and so many batches more are made than
        # are learnt from, so that the workers have as much to do in the last timed step as in the first.
        self._lead = max(LEAD_STEPS, PREFETCHED * workers + 1)
        batches = 2 * self._lead + setting.steps
        self._loader = make_loader(pictures, setting.recipe.batch_size, batches, workers, setting.device)

    def take_round(self, steps: int) -> Round:
        """As `Contender` has it."""
        batches = iter(self._loader)
        self._learn(batches, self._lead)
        started = read_clock(self._device)
        waited = self._learn(batches, steps)
        seconds = read_clock(self._device) - started
        for _ in batches:
            pass
        images = steps * self._step.recipe.batch_size
        return Round(images=images, seconds=seconds, waiting_share=waited / seconds)

    def _learn(self, batches: Iterator[list[Tensor]], steps: int) -> float:
        """Take steps; returns the seconds that were spent waiting for batches."""
        waited = 0.0
        for _ in range(steps):
            asked = time.perf_counter()
            crops = next(batches)
            waited += time.perf_counter() - asked
            self._step.step([crop.to(self._device, non_blocking=True) for crop in crops], self._rate)
        return waited


class Network:
    """A trunk and its gradients on random crops that are ready on the device: what no data path can be faster than."""

    def __init__(self, name: str, trunk: nn.Module, crops: Sequence[Tensor], precision: str) -> None:
        self.name, self._trunk, self._dtype = name, trunk, AUTOCAST[precision]
        self._groups, self._images, self._device = group_by_side(crops), len(crops[0]), crops[0].device

    def take_round(self, steps: int) -> Round:
        """As `Contender` has it. An image is as many crops as the recipe cuts of it."""
        self._run(LEAD_STEPS)
        started = read_clock(self._device)
        self._run(steps)
        seconds = read_clock(self._device) - started
        self._trunk.zero_grad(set_to_none=True)
        return Round(images=steps * self._images, seconds=seconds)

    def _run(self, steps: int) -> None:
        for _ in range(steps):
            self._trunk.zero_grad(set_to_none=True)
            with torch.autocast(self._device.type, dtype=self._dtype, enabled=self._dtype is not None):
                pooled = [self._trunk(group).float().mean((2, 3)) for group in self._groups]
            torch.cat(pooled).sum().backward()


def make_others(learner: Learner, listing: Listing, setting: Setting) -> list[Contender]:
    """Everybody but ours. The reference's three share one network."""
    step, recipe = ReferenceStep(setting.recipe, setting.device), setting.recipe
    encoded = read_encoded(listing.places)
    pixels, sizes = decode_all(encoded)
    crops = draw_crops(setting)
    ours = [crop.contiguous(memory_format=torch.channels_last) for crop in crops]
    return [
        Reference(REFERENCE, step, Pictures(encoded, recipe.crops), setting),
        Reference(DECODED, step, Pictures(pixels, recipe.crops, sizes), setting),
        Network(NETWORK, learner.student.trunk, ours, recipe.precision),
        Network(PLAIN_NETWORK, step.trunk, crops, "fp32"),
    ]


def draw_crops(setting: Setting) -> list[Tensor]:
    """C crops (B, 3, side, side) of noise, on the device."""
    sides = [kind.side_px for kind in setting.recipe.crops for _ in range(kind.count)]
    return [torch.randn(setting.recipe.batch_size, 3, side, side, device=setting.device) for side in sides]
