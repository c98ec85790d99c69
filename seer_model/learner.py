"""One step of SwAV on a device: crops, forward, swapped loss, backward, LARC, prototypes back to length 1.

    pictures (b, 3, S, S) uint8  ->  C crops  ->  trunk, one pass for each size  ->  head, one pass  ->  loss

Rule: what a step does depends on the weights, the batch, the step's number and the seed only, so a resumed run is the
same run, and b = B / ranks pictures on each of several ranks are the same step as B on one.
Source: SwAV, arXiv:2006.09882; order of the step as in VISSL's train step (spec/seer.md, 3.4).
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

from seer_model.checkpoint import Checkpoint, drop_counters
from seer_model.crops import CHANCES, cut_crops
from seer_model.errors import CheckpointError
from seer_model.optimizer import Larc
from seer_model.parts import fill_from_parts, read_outline
from seer_model.preprocess import PREPROCESSINGS
from seer_model.presets import PretrainSettings
from seer_model.ranks import Ranks
from seer_model.recompute import recompute_blocks
from seer_model.regnet import ARCHITECTURES, RegNet
from seer_model.sharding import (
    gather_optimizer,
    gather_weights,
    list_optimizer,
    list_weights,
    make_places,
    replicate,
    scatter_optimizer,
    shard,
    whole_norms,
)
from seer_model.swav import Head, Queue, assign_crops, group_by_side, swapped_loss
from seer_model.sync_norm import synchronise_norms
from seer_model.weight_files import MEMORY

AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Student(nn.Module):
    """Trunk and head: what is trained."""

    def __init__(self, trunk: RegNet, head: Head) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, groups: list[Tensor], queued: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
        """All in one call, as a network whose parts lie on several ranks wants it.

        Args:
            groups: crops of one size in each.
            queued: (A, Q, P) earlier projections.
        Returns: projections (R, P) and scores (R, K) of all R crops, in order; scores (A, Q, K) of the queue.
        """
        # Pooled in fp32: a mean over a map loses bits in half precision.
        pooled = torch.cat([self.trunk(group).float().mean((2, 3)) for group in groups])
        return self.head(pooled, queued)


@dataclass(frozen=True)
class StepFigures:
    """What a step leaves on the device, to be read now and then: reading waits for the device."""

    loss: Tensor
    """() of this rank's crops."""
    choices: Tensor
    """(A * b,) the prototype to which each assigned crop of this rank goes first."""


class Learner:
    """The student, its optimiser and its queue. Made by `start_learner`."""

    def __init__(self, student: Student, settings: PretrainSettings, ranks: Ranks, *, is_sharded: bool = False) -> None:
        self.settings, self.ranks, self.device = settings, ranks, ranks.device
        self.student = student.to(memory_format=torch.channels_last).train()
        synchronise_norms(student, ranks.make_groups(fit_group(settings.norm_group, ranks.count)))
        if settings.recompute:
            recompute_blocks(student.trunk)
        self._network: nn.Module = student
        if is_sharded:
            shard(student, ranks, precision=AUTOCAST[settings.precision] or torch.float32)
        student.to(self.device)
        if not is_sharded:
            self._network = replicate(student, ranks)
        self.optimizer = Larc(student.parameters(), settings.optimizer, measure=whole_norms)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.precision == "fp16")
        self.queue = _make_queue(settings, ranks)
        how = PREPROCESSINGS["vissl"]
        self._mean, self._std = (torch.tensor(values, device=self.device) for values in (how.mean, how.std))

    def step(self, pictures: Tensor, aspects: Tensor, step: int, rate: float) -> StepFigures:
        """Learn from one batch.

        Args:
            pictures: (b, 3, S, S) uint8 on the device; b = B / ranks.
            aspects: (b,) float32 on the CPU.
            step: number of the step, from 0.
        """
        crops = self._cut(pictures, aspects, step)
        queue = self.queue if self.queue is not None and step >= self.settings.swav.queue_start_step else None
        dtype = AUTOCAST[self.settings.precision]
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            queued = queue.rows if queue is not None and queue.is_full else None
            projections, scores, queued_scores = self._network(group_by_side(crops), queued)
        scores = scores.view(self.settings.count_crops(), len(pictures), -1)
        assignments = assign_crops(
            scores, self.settings.swav, queued_scores, sum_over=self.ranks.sum_over, max_over=self.ranks.max_over
        )
        if queue is not None:
            queue.push(projections.view(*scores.shape[:2], -1)[: len(assignments)])
        loss = swapped_loss(scores, assignments, temperature=self.settings.swav.temperature)
        self._update(loss, step, rate)
        return StepFigures(loss=loss.detach(), choices=assignments.argmax(2).flatten())

    def _cut(self, pictures: Tensor, aspects: Tensor, step: int) -> list[Tensor]:
        """Crops (count * b, 3, side, side) of each kind."""
        mine = slice(self.ranks.rank * len(pictures), (self.ranks.rank + 1) * len(pictures))
        # Every rank draws for the whole batch and takes its rows.
        shape = (self.settings.count_crops(), len(pictures) * self.ranks.count, CHANCES)
        chances = torch.rand(shape, generator=_seed_generator(self.settings.seed, step))[:, mine]
        rows = chances.split([kind.count for kind in self.settings.crops])
        crops = (
            cut_crops(pictures, aspects, of_kind.flatten(0, 1), kind, mean=self._mean, std=self._std)
            for kind, of_kind in zip(self.settings.crops, rows, strict=True)
        )
        return [of_kind.contiguous(memory_format=torch.channels_last) for of_kind in crops]

    def _update(self, loss: Tensor, step: int, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if step < self.settings.swav.frozen_steps:
            self.student.head.prototypes.zero_grad(set_to_none=True)
        # LARC measures the gradients, so they must have their own size first.
        self.scaler.unscale_(self.optimizer)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.student.head.normalise_prototypes()

    def read_checkpoint(self) -> Checkpoint:
        """The weights as they are now, on the CPU, whole on the first rank and empty on others; collective."""
        weights = drop_counters(gather_weights(self._network, self.ranks))
        return Checkpoint(
            architecture=self.student.trunk.architecture,
            trunk=_take_prefix(weights, "trunk."),
            heads=_take_prefix(weights, "head."),
            layout="seer",
        )

    def read_memory(self) -> dict[str, Tensor]:
        """What the next step needs besides the weights, of a run on one rank: momentum, and the queue.

        "queue" is (A, F, P): batch after batch, the newest first, and in each batch the pictures in order.
        """
        remembered = gather_optimizer(self._network, self.optimizer, self.ranks)
        memory = {f"optimizer.{name}": tensor for name, tensor in remembered.items()}
        if self.queue is not None and self.queue.filled:
            memory["queue"] = self.queue.rows[:, : self.queue.filled].cpu()
        return memory

    def load_memory(self, memory: dict[str, Tensor]) -> None:
        """Take over what `read_memory` gave, with any number of ranks; collective.

        Only the first rank's momentum is read. Of the queue each rank takes its part.
        """
        scatter_optimizer(self._network, self.optimizer, _take_prefix(memory, "optimizer."), self.ranks)
        if self.queue is not None and "queue" in memory:
            parts = _split_batches(memory["queue"], self.ranks.count, self._count_share())
            self.queue.push(parts[self.ranks.rank].to(self.device))

    def is_finite(self) -> bool:
        """Whether all weights and statistics are, those that this rank holds."""
        held = [one.to_local() if isinstance(one, DTensor) else one for one in self._list_weights().values()]
        return bool(torch.stack([one.isfinite().all() for one in held]).all())

    def list_parts(self) -> dict[str, Tensor]:
        """What this rank has of a checkpoint in parts: all that the next step needs, as it lies here; no copies.

        Weights have the names that they have in a file of weights; what is none begins with `MEMORY`. The queue is
        (A, T, B, P), T whole batches. Statistics are the first rank's.
        """
        others = set() if self.ranks.is_first else {_name_in_file(name) for name, _ in self.student.named_buffers()}
        parts = {name: weight for name, weight in self._list_weights().items() if name not in others}
        remembered = list_optimizer(self._network, self.optimizer)
        parts |= {f"{MEMORY}optimizer.{name}": tensor for name, tensor in remembered.items()}
        if self.queue is not None and self.queue.filled:
            rows = self.queue.rows[:, : self.queue.filled].unflatten(1, (-1, self._count_share()))
            parts[f"{MEMORY}queue"] = self._spread(rows)
        return parts

    def take_parts(self, folder: Path) -> None:
        """Take over what any number of ranks have written of their `list_parts`; collective.

        Raises: CheckpointError when it does not fit.
        """
        memory = _take_prefix(read_outline(folder), MEMORY)
        shapes = {name: tuple(one.shape) for name, one in _take_prefix(memory, "optimizer.").items()}
        places = make_places(self._network, self.optimizer, shapes)
        parts = self._list_weights() | {f"{MEMORY}optimizer.{name}": place for name, place in places.items()}
        rows = None
        if self.queue is not None and "queue" in memory:
            assigned, batches, _, width = memory["queue"].shape
            rows = torch.empty(assigned, batches, self._count_share(), width, device=self.device)
            parts[f"{MEMORY}queue"] = self._spread(rows)
        fill_from_parts(folder, parts, self.ranks)
        if rows is not None:
            self.queue.push(rows.flatten(1, 2))

    def _list_weights(self) -> dict[str, Tensor]:
        return {_name_in_file(name): weight for name, weight in drop_counters(list_weights(self._network)).items()}

    def _spread(self, rows: Tensor) -> Tensor:
        """(A, T, b, P) of this rank as its part of the (A, T, B, P) of all."""
        if self.ranks.count == 1:
            return rows
        mesh = init_device_mesh(self.device.type, (self.ranks.count,))
        return DTensor.from_local(rows, mesh, [Shard(2)])

    def _count_share(self) -> int:
        """b, pictures of a batch that this rank has."""
        return self.settings.batch_size // self.ranks.count


def fit_group(wanted: int, ranks: int) -> int:
    """The size of groups that the ranks split into: as wanted or the next larger one, at most all; all for 0."""
    return next((size for size in range(wanted or ranks, ranks) if ranks % size == 0), ranks)


def _make_queue(settings: PretrainSettings, ranks: Ranks) -> Queue | None:
    """This rank's part of the queue, whole batches of it."""
    share = settings.batch_size // ranks.count
    length = settings.swav.queue // ranks.count // share * share
    return Queue(replace(settings.swav, queue=length), ranks.device) if length else None


def _split_batches(rows: Tensor, ranks: int, share: int) -> Tensor:
    """(A, T * B, P), batch after batch, as the parts of any number of ranks: (ranks, A, T * b, P)."""
    assigned, count, width = rows.shape
    # Whole batches only: before all ranks' queues were saved, a run on several ranks left the first one's part alone.
    batches = count // (ranks * share)
    whole = rows[:, : batches * ranks * share].reshape(assigned, batches, ranks, share, width)
    return whole.permute(2, 0, 1, 3, 4).reshape(ranks, assigned, -1, width)


def start_learner(
    settings: PretrainSettings, ranks: Ranks, *, source: Checkpoint | None = None, is_sharded: bool = False
) -> Learner:
    """A learner with new weights, or with those of a checkpoint; its heads are kept where it has them.

    Raises: SettingsError, CheckpointError when the checkpoint's heads are not of a kind that can learn.
    """
    generator = _seed_generator(settings.seed, -1)
    if source is None:
        trunk = RegNet(ARCHITECTURES[settings.architecture], generator=generator)
    else:
        settings = adopt_heads(settings, source)
        trunk = RegNet(source.architecture, generator=generator)
        trunk.load_state_dict(source.trunk, strict=False)  # but for the batch counters, `Checkpoint` is complete
    head = Head(trunk.architecture.dimension, settings.swav, generator=generator)
    if source is not None and has_heads(source):
        head.load_state_dict({k: v for k, v in source.heads.items() if k.startswith(HEADS)}, strict=False)
        if not head.is_normalised():  # what a run saved must come back to the last bit
            head.normalise_prototypes()
    return Learner(Student(trunk, head), settings, ranks, is_sharded=is_sharded)


HEADS = ("projection.", "prototypes.")


def has_heads(source: Checkpoint) -> bool:
    """Whether a checkpoint brings a projection and prototypes."""
    return all(any(key.startswith(head) for key in source.heads) for head in HEADS)


def adopt_heads(settings: PretrainSettings, source: Checkpoint) -> PretrainSettings:
    """The settings with the widths of a checkpoint's own projection and prototypes, if it has them.

    Raises: CheckpointError when there is more than one set of prototypes.
    """
    if not has_heads(source):
        return settings
    prototypes = [key for key in source.heads if key.startswith("prototypes.")]
    if prototypes != ["prototypes.0.weight"]:
        raise CheckpointError(
            f"The model has several sets of prototypes ({', '.join(prototypes)}); one can be trained."
        )
    layers = {key: weight for key, weight in source.heads.items() if key.startswith("projection.")}
    linear = sorted((int(key.split(".")[1]), len(weight)) for key, weight in layers.items() if weight.ndim == 2)
    swav = replace(
        settings.swav,
        projection=tuple(width for _, width in linear),
        projection_norms=any(key.endswith(".running_mean") for key in layers),
        prototypes=len(source.heads["prototypes.0.weight"]),
    )
    return replace(settings, swav=swav)


def _take_prefix(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): weight for key, weight in weights.items() if key.startswith(prefix)}


def _name_in_file(name: str) -> str:
    return f"heads.{name.removeprefix('head.')}" if name.startswith("head.") else name.removeprefix("trunk.")


def _seed_generator(seed: int, step: int) -> torch.Generator:
    """A generator for one step; -1: for the first weights."""
    state = np.random.SeedSequence([seed, step + 1]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))
