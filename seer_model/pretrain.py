"""A pretraining run: from a pile of pictures to a model, over as many pieces as it takes.

    pile -> feed -> learner -> figures -> vigil, log, progress -> checkpoint ... -> output

A run may be stopped, killed or cut off at any point; `resume` goes on from the last checkpoint, with the same pictures
in the same order and the same crops of them.

Rule: only this module knows more than one of feed, learner and vigil.
"""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from seer_model.beginning import open_run
from seer_model.board import open_board
from seer_model.checkpoint import Checkpoint, write_checkpoint
from seer_model.errors import SettingsError, TrainingError
from seer_model.feed import Feed, Pile, Plan, require_mostly_good
from seer_model.learner import StepFigures, start_learner
from seer_model.optimizer import Plateau, find_rate
from seer_model.presets import PretrainSettings
from seer_model.ranks import Ranks
from seer_model.run_folder import RunFolder, SavedStep
from seer_model.vigil import BEGIN_AGAIN, Figures, Vigil
from seer_model.whitening import find_whitened, whiten

log = logging.getLogger(__name__)

PATIENCE_STEPS = 300
"""A collapse must last so long before it stops the run."""
GRACE_SHARE = 0.2
"""Part of the run in which the loss may still be that of a blind guess."""
CROPS_TO_WHITEN = 4096
"""Where the recipe asks for none and the model that the run goes on from has a whitening: it must not lose it."""
LEAST_PICTURES = 2
"""A batch of one has nothing to tell its picture from."""
LOOK_SECONDS = 30.0
"""A look comes by then where steps are slow: who watches hears of them, and a checkpoint is not late."""
RESUME = "The run's last checkpoint is whole: --resume fits the layer again."


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run is carried out; none of it changes what is learnt."""

    memory_bytes: int = 8 << 30
    """For decoded pictures; a pile that needs more is decoded again in each epoch."""
    look_every_steps: int = 20
    """Reading figures waits for the device, so it is done now and then."""
    save_every_seconds: float = 300
    keep: int = 2
    """Checkpoints."""
    piece_seconds: float | None = None
    """Stop, saved, after this long."""
    is_sharded: bool = False
    """Each rank holds a part of the network (FSDP2) instead of a copy (DDP)."""

    def __post_init__(self) -> None:
        if min(self.look_every_steps, self.keep) < 1 or min(self.memory_bytes, self.save_every_seconds) < 0:
            raise SettingsError(f"Intervals and counts must be 1 or more, memory 0 or more: {self}.")


@dataclass(frozen=True, kw_only=True)
class RunWatchers:
    """Who is told what; all may be left out."""

    on_figures: Callable[[Figures], None] = lambda figures: None
    on_message: Callable[[str], None] = lambda message: None
    should_stop: Callable[[], bool] = lambda: False
    """Asked after each step, and before each batch that the last layer is fitted on; True saves and stops."""


@dataclass(frozen=True, kw_only=True)
class PretrainReport:
    """How a piece of a run ended."""

    step: int
    steps: int
    seconds: float
    """Of training, over all pieces."""
    loss: float
    bad: int
    """Pictures that could not be read, over all pieces and ranks."""
    output: Path | None
    """The model; None: the run, or the fit of its last layer, is not at its end."""
    rank: int = 0
    """Of the process that has this report; all have the same, and the first one's is for people."""

    def describe(self) -> dict:
        """As JSON-able values."""
        values = asdict(self) | {"output": None if self.output is None else str(self.output)}
        return {name: value for name, value in values.items() if name != "rank"}


def pretrain(
    pile: Pile,
    output: Path,
    settings: PretrainSettings,
    ranks: Ranks,
    *,
    source: Checkpoint | None = None,
    origin: str | None = None,
    resume: bool = False,
    options: RunOptions | None = None,
    watchers: RunWatchers | None = None,
) -> PretrainReport:
    """Train, or go on training, and write the model.

    Args:
        output: the weights file to be; its run folder stands beside it.
        source: weights to start from instead of random ones; `origin` says in a word what they are.
        resume: go on with the run that the folder holds; begin if it holds none.
    Raises: TrainingError and PileError, SettingsError, CheckpointError, DeviceError. What was saved before stays.
    """
    folder = RunFolder(output, keep=(options or RunOptions()).keep)
    description = {"settings": settings.describe(), "pile": pile.fingerprint, "pictures": len(pile), "origin": origin}
    run = _Run(pile, output, settings, ranks, folder, options or RunOptions(), watchers or RunWatchers())
    return run.run(open_run(folder, description, ranks, resume=resume), source)


@dataclass
class _Interval:
    """The steps since the last look at the figures."""

    started: float
    waited: float = 0.0
    losses: list[Tensor] = field(default_factory=list)
    choices: list[Tensor] = field(default_factory=list)

    def add(self, figures: StepFigures) -> None:
        self.losses.append(figures.loss)
        self.choices.append(figures.choices)


class _Run:
    """One piece of a run."""

    def __init__(
        self,
        pile: Pile,
        output: Path,
        settings: PretrainSettings,
        ranks: Ranks,
        folder: RunFolder,
        options: RunOptions,
        watchers: RunWatchers,
    ) -> None:
        self.pile, self.output, self.settings, self.ranks = pile, output, settings, ranks
        self.folder, self.options, self.watchers = folder, options, watchers
        self.plan = make_plan(pile, settings, ranks)
        self.plateau = Plateau(settings.optimizer.plateau_steps)
        self.loss, self.seconds_before, self.started, self.saved_at = math.nan, 0.0, 0.0, 0.0
        self.bad: set[int] = set()
        self.whitening_crops = settings.whitening_crops

    def run(self, saved: SavedStep | None, source: Checkpoint | None) -> PretrainReport:
        weights = saved.checkpoint if saved else source
        self.learner = start_learner(self.settings, self.ranks, source=weights, is_sharded=self.options.is_sharded)
        if source and find_whitened(source.heads):
            self.whitening_crops = self.whitening_crops or CROPS_TO_WHITEN
        # The heads of a model that the run went on from may be of another size than the recipe's.
        self.settings = self.learner.settings
        first = self._take_up(saved) if saved else 0
        self.vigil = Vigil(
            self.settings.swav.prototypes,
            patience_steps=PATIENCE_STEPS,
            grace_steps=max(self.settings.swav.frozen_steps, round(GRACE_SHARE * self.plan.steps)),
        )
        self.vigil.collapsed_since = saved.state.get("collapsed_since") if saved else None
        if self.ranks.is_first and first < self.vigil.last_blind_step < self.plan.steps:
            self.watchers.on_message(f"stops by step {self.vigil.last_blind_step:,} if it learns nothing")
        self.started = self.saved_at = time.monotonic()
        with self._open_feed(first) as feed, self._open_board(first) as self.board:
            step = self._learn(feed, first)
        self._save(step)
        return PretrainReport(
            step=step,
            steps=self.plan.steps,
            seconds=self._count_seconds(),
            loss=self.loss,
            bad=len(self.bad),
            output=self._finish() if step == self.plan.steps else None,
            rank=self.ranks.rank,
        )

    def _take_up(self, saved: SavedStep) -> int:
        if saved.parts:
            self.learner.take_parts(saved.parts)
        else:
            self.learner.load_memory(saved.memory)
        self.learner.scaler.load_state_dict(saved.state["scaler"])
        self.plateau.load_state_dict(saved.state["plateau"])
        self.seconds_before, self.loss = saved.state["seconds"], saved.state["loss"]
        # Not in a state from before bad pictures were counted over the pieces.
        self.bad = set(saved.state.get("bad", ()))
        if self.ranks.is_first:
            self.watchers.on_message(f"going on from step {saved.step:,} of {self.plan.steps:,}")
        return saved.step

    def _open_board(self, first: int) -> contextlib.AbstractContextManager[Callable[[dict], None]]:
        if not self.ranks.is_first:
            return contextlib.nullcontext(lambda line: None)
        return open_board(self.folder.folder / "tensorboard", first)

    @contextlib.contextmanager
    def _open_feed(self, first: int) -> Iterator[Feed]:
        feed = Feed(
            self.pile,
            self.plan,
            side_px=self.settings.picture_px,
            device=self.ranks.device,
            memory_bytes=self.options.memory_bytes,
            first_step=first,
        )
        try:
            yield feed
        finally:
            feed.close()

    def _learn(self, feed: Feed, first: int) -> int:
        """Steps up to the end, or to where the piece ends; returns how many are done."""
        interval = _Interval(time.monotonic())
        step = first
        for step, batch in enumerate(feed, first + 1):
            rate = find_rate(step - 1, self.plan.steps, self.settings.optimizer) * self.plateau.factor
            interval.add(self.learner.step(batch.pictures, batch.aspects, step - 1, rate))
            is_over = self._is_over(step)
            if is_over or self._is_time_to_look(step, interval):
                self._look(step, rate, interval, feed)
                interval = _Interval(time.monotonic(), feed.waited_seconds)
                if not is_over and self._is_time_to_save():
                    self._save(step)
            if is_over:
                break
        return step

    def _is_over(self, step: int) -> bool:
        if step == self.plan.steps:
            return True
        is_late = self.options.piece_seconds is not None and (
            time.monotonic() - self.started > self.options.piece_seconds
        )
        return self.ranks.any_over(self.watchers.should_stop() or is_late)

    def _is_time_to_look(self, step: int, interval: _Interval) -> bool:
        if step % self.options.look_every_steps == 0:
            return True
        # A rate that follows the losses changes when they are looked at: that must not hang on the time.
        is_late = time.monotonic() - interval.started >= LOOK_SECONDS
        return self.ranks.any_over(is_late and self.settings.optimizer.schedule == "cosine")

    def _is_time_to_save(self) -> bool:
        return self.ranks.any_over(time.monotonic() - self.saved_at >= self.options.save_every_seconds)

    def _look(self, step: int, rate: float, interval: _Interval, feed: Feed) -> None:
        """Read the figures of the steps since the last look, judge them, and tell them."""
        losses = self.ranks.sum_over(torch.stack(interval.losses)).cpu() / self.ranks.count
        choices = torch.cat(interval.choices)
        counts = self.ranks.sum_over(torch.bincount(choices, minlength=self.settings.swav.prototypes).float()).cpu()
        self.loss = float(losses.mean())
        self._watch_plateau(step - len(losses), losses.tolist())
        self.bad = self.ranks.unite_over(self.bad.union(feed.bad))
        require_mostly_good(len(self.bad), self.pile)
        entropy, largest = self.vigil.look(step, self.loss, counts)
        seconds = time.monotonic() - interval.started
        self._tell(
            Figures(
                step=step,
                steps=self.plan.steps,
                epoch=step / self.plan.steps_per_epoch,
                loss=self.loss,
                blind_loss=math.log(self.settings.swav.prototypes),
                entropy=entropy,
                largest_share=largest,
                rate=rate,
                images_per_second=len(losses) * self.settings.batch_size / seconds,
                waiting_share=(feed.waited_seconds - interval.waited) / seconds,
                seconds=self._count_seconds(),
                remaining_seconds=seconds / len(losses) * (self.plan.steps - step),
                bad=len(self.bad),
            )
        )

    def _watch_plateau(self, first: int, losses: list[float]) -> None:
        for step, loss in enumerate(losses, first):
            # While the rate rises the loss falls for that reason, and a plateau would be measured against it.
            is_level = find_rate(step, self.plan.steps, self.settings.optimizer) == self.settings.optimizer.rate
            if self.settings.optimizer.schedule == "constant" and is_level:
                self.plateau.update(loss)

    def _tell(self, figures: Figures) -> None:
        if self.ranks.is_first:
            self.folder.append_figures(figures.describe())
            self.board(figures.describe())
            self.watchers.on_figures(figures)

    def _count_seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started

    def _save(self, step: int) -> None:
        # The loss of a step is from before its update: it does not say that the update broke the weights.
        if self.ranks.any_over(not self.learner.is_finite()):
            raise TrainingError(f"Weights are NaN or infinite after step {step}. {BEGIN_AGAIN}")
        state = {
            "seconds": self._count_seconds(),
            "loss": self.loss,
            "plateau": self.plateau.state_dict(),
            "scaler": self.learner.scaler.state_dict(),
            "collapsed_since": self.vigil.collapsed_since,
            "bad": sorted(self.bad),
        }
        if self.ranks.count > 1:
            self.folder.save_parts(step, self.learner.list_parts(), state, self.ranks)
        else:
            self.folder.save(SavedStep(step, self.learner.read_checkpoint(), self.learner.read_memory(), state))
        self.saved_at = time.monotonic()

    def _finish(self) -> Path | None:
        """Write the model; None when the run was told to stop before it was whole."""
        checkpoint = self.learner.read_checkpoint()
        return self.output if self.ranks.let_first(lambda: self._write(checkpoint)) else None

    def _write(self, checkpoint: Checkpoint) -> bool:
        whole = self._whiten(checkpoint) if self.whitening_crops else checkpoint
        if whole is not None:
            write_checkpoint(whole, self.output)
        return whole is not None

    def _whiten(self, checkpoint: Checkpoint) -> Checkpoint | None:
        self.watchers.on_message(f"fitting the last layer on {self.whitening_crops:,} crops")
        # A network that was cut up did not fit.
        device = torch.device("cpu") if self.options.is_sharded else self.ranks.device
        try:
            return whiten(
                checkpoint,
                self.pile,
                crops=self.whitening_crops,
                device=device,
                seed=self.settings.seed,
                # Asked before each batch: the other ranks, which have nothing to do, hear that this one is there.
                should_stop=lambda: self.ranks.keep_waiting() or self.watchers.should_stop(),
            )
        except TrainingError as error:
            raise TrainingError(f"{error} {RESUME}") from error


def make_plan(pile: Pile, settings: PretrainSettings, ranks: Ranks) -> Plan:
    """How the pile is cut into batches.

    Raises: SettingsError when a batch is larger than the pile or does not split over the ranks.
    """
    pictures = len(pile)
    if pictures < LEAST_PICTURES:
        raise SettingsError(f"There are {pictures} pictures to learn from; give {LEAST_PICTURES} or more.")
    if settings.batch_size > pictures:
        raise SettingsError(
            f"A batch has {settings.batch_size} pictures, and there are {pictures}. "
            f"Use --batch-size {pictures} or less."
        )
    if settings.batch_size % ranks.count:
        raise SettingsError(
            f"A batch of {settings.batch_size} does not split over {ranks.count} ranks evenly. "
            f"Use a multiple of {ranks.count}."
        )
    steps = max(1, round(settings.epochs * (pictures // settings.batch_size)))
    return Plan(
        pictures=pictures,
        batch_size=settings.batch_size,
        steps=steps,
        seed=settings.seed,
        rank=ranks.rank,
        ranks=ranks.count,
        window=settings.window,
        starts=pile.starts if settings.window else (),
    )
