"""What a device is told, and that nothing is asked back: on torch's meta device, which knows shapes and no numbers.

Whatever would have to wait for a GPU - a number read, a place looked for - cannot be done there at all.
"""

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from seer_model.backbone import Backbone, BackboneSettings
from seer_model.learner import start_learner
from seer_model.presets import find_preset
from seer_model.ranks import Ranks
from seer_model.zoo import FoundModel
from tests.seer_model import making_weights as making

NOWHERE = torch.device("meta")


class Watch(TorchDispatchMode):
    """Counts what is done on the device, and keeps what is sent there."""

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.sent_bytes = 0, []

    def __torch_dispatch__(self, operation, types, given=(), more=None):
        found = operation(*given, **(more or {}))
        if isinstance(found, Tensor) and found.device == NOWHERE:
            self.operations += 1
            if "copy" in str(operation) and any(isinstance(one, Tensor) and one.device != NOWHERE for one in given):
                self.sent_bytes.append(found.nbytes)
        return found


@pytest.fixture
def anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autocast knows no meta device."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())


@pytest.mark.parametrize("preset", ["mini", "swav-small-batch"])
def test_but_for_the_scaler_of_fp16_a_step_waits_for_nothing_and_sends_little(preset: str, anywhere: None):
    recipe = replace(find_preset(preset), architecture="200MF", precision="fp32", batch_size=64)
    learner = start_learner(recipe, Ranks(device=NOWHERE))
    pictures = torch.empty((64, 3, recipe.picture_px, recipe.picture_px), dtype=torch.uint8, device=NOWHERE)
    learner.step(pictures, torch.ones(64), 0, 0.1)
    with Watch() as watch:
        figures = learner.step(pictures, torch.ones(64), 10**6, 0.1)
    assert figures.loss.device == figures.choices.device == NOWHERE
    # Of each kind of crops its chances, the pictures' aspects, and the numbers of those that are blurred.
    assert len(watch.sent_bytes) == 3 * len(recipe.crops)
    assert sum(watch.sent_bytes) < 200_000


def test_the_optimiser_does_not_call_torch_for_each_parameter(anywhere: None):
    recipe = replace(find_preset("mini"), architecture="200MF", precision="fp32", batch_size=8)
    learner = start_learner(recipe, Ranks(device=NOWHERE))
    for parameter in learner.student.parameters():
        parameter.grad = torch.empty_like(parameter)
    learner.optimizer.param_groups[0]["foreach"] = True  # as torch has it on a GPU
    learner.optimizer.step()  # momentum is made
    with Watch() as watch:
        learner.optimizer.step()
    assert watch.operations < len(list(learner.student.parameters())) // 4


def test_a_batch_is_embedded_without_waiting(tmp_path: Path):
    checkpoint, found = making.make_checkpoint(), FoundModel(name="small", path=tmp_path, entry=None)
    backbone = Backbone(found, checkpoint, NOWHERE, BackboneSettings(device="meta", preprocessing="vissl"))
    batch = torch.empty((8, 224, 224, 3), dtype=torch.uint8, device=NOWHERE)
    with Watch() as watch:
        rows = backbone.embed_ready(batch)
    assert (rows.device, rows.shape) == (NOWHERE, (8, backbone.dimension))
    assert not watch.sent_bytes
