"""A run and an embedding on the pretended GPU; and that it refuses what a real one does."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from seer_model.backbone import open_backbone
from seer_model.pretrain import pretrain
from seer_model.ranks import Ranks, choose_device
from tests.pretended_gpu import THERE, pretend_gpu
from tests.seer_model.making_pictures import make_scene
from tests.seer_model.test_pretrain import EACH_STEP, RECIPE, WITH_QUEUE, Patches, read_losses


@pytest.fixture
def gpu() -> Iterator[None]:
    with pretend_gpu():
        yield


def there(*shape: int) -> torch.Tensor:
    return torch.ones(shape, device="cuda")


@pytest.mark.parametrize("wrong", [
    lambda: there(2, 3) + torch.ones(2, 3),
    lambda: there(2, 3) @ torch.ones(3, 2),
    lambda: torch.cat([there(2), torch.ones(2)]),
    lambda: there(2).numpy(),
    lambda: np.asarray(there(2)),
    lambda: torch.ones(2)[torch.zeros(1, dtype=torch.long, device="cuda")],
    lambda: torch.nn.Linear(3, 2)(there(1, 3)),
    lambda: torch.nn.Linear(3, 2).to("cuda")(torch.ones(1, 3)),
])  # fmt: skip
def test_what_a_gpu_refuses_is_refused(gpu: None, wrong: Callable[[], object]):
    with pytest.raises((RuntimeError, TypeError), match="on one device|cuda:0 device type"):
        wrong()


@pytest.mark.parametrize("right", [
    lambda: there(2) + 1,
    lambda: there(2) * torch.tensor(2.0),
    lambda: there(3)[torch.tensor([0, 2])],
    lambda: torch.nn.Linear(3, 2).to("cuda")(there(1, 3)),
    lambda: torch.ones(2).to("cuda", torch.float16),
    lambda: torch.ones(2).pin_memory().to(choose_device("auto"), non_blocking=True),
    lambda: torch.stack([there(2)]).view(2).mean(),
])  # fmt: skip
def test_what_a_gpu_does_is_done_there(gpu: None, right: Callable[[], torch.Tensor]):
    assert right().device == THERE and right().is_cuda
    assert right().cpu().device == torch.device("cpu") and np.isfinite(right().cpu().detach().numpy()).all()


def test_what_moved_is_a_copy_and_gradients_are_there(gpu: None):
    here = torch.ones(2)
    here.to("cuda").add_(1)
    assert here.tolist() == [1, 1]
    layer = torch.nn.Linear(3, 2).to("cuda")
    layer(there(1, 3)).sum().backward()
    assert layer.weight.grad.device == THERE


@pytest.mark.parametrize("precision", [pytest.param("fp32", marks=pytest.mark.long), "fp16"])
def test_a_run_stays_on_its_device_and_ends_as_on_the_cpu(tmp_path: Path, precision: str):
    recipe = replace(RECIPE, precision=precision, swav=WITH_QUEUE.swav, whitening_crops=8, recompute=True)
    found = {}
    for name in ("cpu", "cuda"):
        output = tmp_path / f"{name}.safetensors"
        with pretend_gpu() as gpu:
            ranks = Ranks(device=choose_device(name))
            sent = gpu.sent
            assert pretrain(Patches(), output, recipe, ranks, options=EACH_STEP).output == output
            assert (gpu.sent > sent) == (name == "cuda")
        found[name] = read_losses(output)
    assert found["cuda"] == pytest.approx(found["cpu"], rel=1e-4)


def test_a_batch_is_embedded_there_as_here(gpu: None):
    pictures = [np.asarray(make_scene(224, 224)), np.asarray(make_scene(224, 224).rotate(90))]
    backbone = open_backbone(device="auto", precision="auto", batch_size=2)
    assert (backbone.device, backbone.settings.precision) == ("cuda", "fp16")
    rows, expected = backbone.embed(pictures), open_backbone(device="cpu").embed(pictures)
    assert (rows * expected).sum(1).min() > 0.9999
    assert backbone.find_matching_places(pictures[0], rows[0]).ndim == 2
