"""The folder of a run: its settings, its log, and the last checkpoints, from any of which it can go on.

    OUTPUT.run/
      settings.json        the recipe, the pile's fingerprint, what the run started from
      log.jsonl            one line of figures for each interval
      curves.png           the same, drawn when a piece of the run ends
      tensorboard/         the same once more, where TensorBoard is installed
      step-00012000/       a checkpoint, which is a model like any other
        state.json           seconds so far, schedule, scaler, numbers of bad pictures
        weights.safetensors  of a run on one rank, and
        memory.safetensors   momentum and queue; or
        parts/               both, in a file of each rank's (see `parts`)

On several ranks the first one begins, commits and tidies; the folder must be one that all of them see.

Rule: a checkpoint is written in a folder aside, synced and renamed: what has its name is whole. Nothing is pickled.
"""

import contextlib
import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from seer_model.checkpoint import Checkpoint, outline_checkpoint, read_checkpoint, write_checkpoint
from seer_model.durable import sync_file, sync_folder, write_text_durably
from seer_model.errors import CheckpointError, TrainingError
from seer_model.parts import write_parts
from seer_model.ranks import Ranks
from seer_model.weight_files import PARTS

CHECKPOINT = re.compile(r"step-(\d{8,})")
WEIGHTS, MEMORY, STATE = "weights.safetensors", "memory.safetensors", "state.json"
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class SavedStep:
    """What a checkpoint holds."""

    step: int
    """Steps done."""
    checkpoint: Checkpoint
    """Where there are parts, their outline: zeros for all numbers."""
    memory: dict[str, Tensor]
    """Momentum and queue; empty where there are parts."""
    state: dict
    """JSON-able values: seconds so far, the schedule's and the scaler's state."""
    parts: Path | None = None
    """Where several ranks have written weights, momentum and queue."""


class RunFolder:
    """The folder beside a run's output."""

    def __init__(self, output: Path, *, keep: int = 2) -> None:
        self.folder = output.with_name(output.name + ".run")
        self._output = output
        self._keep = keep

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is one to go on from."""
        return bool(self._list_steps())

    def begin(self, settings: dict) -> None:
        """Make the folder for a new run and write down what it is to do.

        Raises: TrainingError if a run, or a file that the output would replace, lies there already, or the folder
            cannot be made.
        """
        if self.has_checkpoint:
            raise TrainingError(
                f"{self.folder} holds a run that has come to step {self._list_steps()[-1]:,}. Add --resume to go on "
                "with it, choose another --output, or remove that folder."
            )
        if self._output.exists():
            raise TrainingError(f"{self._output} is there already, and would be replaced. Choose another --output.")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text_durably(self.folder / "settings.json", json.dumps(settings, indent=2) + "\n")
            (self.folder / "log.jsonl").write_text("", encoding="utf-8")
        except OSError as error:
            raise TrainingError(f"{self.folder} cannot be written: {error.strerror or error}.") from error

    def read_settings(self) -> dict:
        """What the run is to do.

        Raises: TrainingError if that cannot be read.
        """
        path = self.folder / "settings.json"
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise TrainingError(f"{path} cannot be read ({error}); the run cannot go on. Begin a new one.") from error

    def is_seen_by(self, ranks: Ranks) -> bool:
        """Whether all ranks see one folder here, and not each node one of its own; collective, once it is there."""
        token = self.folder / f".met-{ranks.share_first(uuid.uuid4().hex)}"
        if ranks.is_first:
            with contextlib.suppress(OSError):
                token.touch()
        ranks.barrier()
        is_seen = not ranks.any_over(not token.exists())
        if ranks.is_first:
            token.unlink(missing_ok=True)
        return is_seen

    def save(self, saved: SavedStep) -> None:
        """Write a checkpoint and let the oldest go. One of the same step that can be read is left as it is.

        Raises: TrainingError if it cannot be written; those from before stay.
        """
        if self._is_saved(saved.step):
            return
        self._make_aside(saved.step)
        self._fill_aside(saved.step, lambda aside: _write_whole(saved, aside))
        self._commit(saved.step, saved.state)

    def save_parts(self, step: int, tensors: Mapping[str, Tensor], state: dict, ranks: Ranks) -> None:
        """The same of a run on several ranks, each of which writes its part of `tensors`; collective.

        Raises: TrainingError, on every rank.
        """
        if ranks.let_first(lambda: self._is_saved(step)):
            return
        ranks.let_first(lambda: self._make_aside(step, PARTS))
        self._fill_aside(step, lambda aside: write_parts(aside / PARTS, tensors, ranks))
        ranks.let_first(lambda: self._commit(step, state))

    def _is_saved(self, step: int) -> bool:
        # Such a one may be the only one, and a folder cannot be replaced in one step.
        return self._name_step(step).exists() and self._try_load(step) is not None

    def _make_aside(self, step: int, inner: str = "") -> None:
        shutil.rmtree(self._name_aside(step), ignore_errors=True)
        self._fill_aside(step, lambda aside: (aside / inner).mkdir(parents=True))

    def _fill_aside(self, step: int, write: Callable[[Path], object]) -> None:
        aside = self._name_aside(step)
        try:
            write(aside)
        except (OSError, SafetensorError, CheckpointError) as error:
            shutil.rmtree(aside, ignore_errors=True)
            raise TrainingError(
                f"The checkpoint {self._name_step(step)} cannot be written: {error}. Make room, then go on with "
                "--resume."
            ) from error

    def _commit(self, step: int, state: dict) -> None:
        self._fill_aside(step, lambda aside: self._rename(aside, self._name_step(step), state))
        self._tidy(step)

    def _rename(self, aside: Path, target: Path, state: dict) -> None:
        write_text_durably(aside / STATE, json.dumps(state))
        shutil.rmtree(target, ignore_errors=True)
        os.rename(aside, target)
        sync_folder(self.folder)

    def load_newest(self) -> SavedStep:
        """The newest checkpoint that can be read; one that cannot is left alone and said.

        Raises: TrainingError if there is none.
        """
        for step in reversed(self._list_steps()):
            if saved := self._try_load(step):
                return saved
        raise TrainingError(f"{self.folder} has no checkpoint that can be read: there is nothing to go on with.")

    def load(self, step: int) -> SavedStep:
        """The checkpoint of a step, which another rank has found to be the newest.

        Raises: TrainingError if it cannot be read here.
        """
        if saved := self._try_load(step):
            return saved
        raise TrainingError(f"{self._name_step(step)} cannot be read here. Put --output where all nodes can read it.")

    def append_figures(self, figures: dict) -> None:
        """Add a line to the log.

        Raises: TrainingError if it cannot be written.
        """
        path = self.folder / "log.jsonl"
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(figures) + "\n")
        except OSError as error:
            raise TrainingError(
                f"{path} cannot be written: {error.strerror or error}. Make room, then go on with --resume."
            ) from error

    def cut_log(self, step: int) -> None:
        """Drop the figures of steps that will be done again, and a last line that a kill cut short."""
        kept = [line for line in self.read_log() if line["step"] <= step]
        write_text_durably(self.folder / "log.jsonl", "".join(json.dumps(line) + "\n" for line in kept))

    def read_log(self) -> list[dict]:
        """The lines of the log that are whole."""
        return list(_read_lines(self.folder / "log.jsonl"))

    def _try_load(self, step: int) -> SavedStep | None:
        try:
            return self._load(step)
        except (OSError, ValueError, SafetensorError, CheckpointError) as error:
            log.warning("%s cannot be read (%s) and is passed over", self._name_step(step), error)
            return None

    def _load(self, step: int) -> SavedStep:
        folder = self._name_step(step)
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        if (folder / PARTS).is_dir():
            return SavedStep(step, outline_checkpoint(folder), {}, state, folder / PARTS)
        return SavedStep(step, read_checkpoint(folder / WEIGHTS), load_file(folder / MEMORY), state)

    def _tidy(self, newest: int) -> None:
        """Let the oldest checkpoints go, and what killed saves left; those after `newest` could not be read."""
        older = [step for step in self._list_steps() if step <= newest]
        for folder in (*map(self._name_step, older[: -self._keep]), *self.folder.glob(".step-*.part")):
            shutil.rmtree(folder, ignore_errors=True)

    def _name_step(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def _name_aside(self, step: int) -> Path:
        return self.folder / f".{self._name_step(step).name}.part"

    def _list_steps(self) -> list[int]:
        names = [entry.name for entry in self.folder.iterdir()] if self.folder.is_dir() else []
        return sorted(int(match[1]) for name in names if (match := CHECKPOINT.fullmatch(name)))


def _write_whole(saved: SavedStep, folder: Path) -> None:
    write_checkpoint(saved.checkpoint, folder / WEIGHTS)
    save_file({name: tensor.contiguous() for name, tensor in saved.memory.items()}, folder / MEMORY)
    sync_file(folder / MEMORY)


def _read_lines(path: Path) -> Iterator[dict]:
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                yield json.loads(line)
