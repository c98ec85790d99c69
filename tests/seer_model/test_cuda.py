"""What only a real GPU shows, its allocator and its kernels: with `pytest --device cuda`, skipped elsewhere."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from seer_model.backbone import Backbone, open_backbone
from seer_model.errors import DeviceError
from tests.device import CHOSEN
from tests.seer_model.making_pictures import make_scene

pytestmark = pytest.mark.skipif(CHOSEN != "cuda", reason="Asked for with --device cuda, where there is a GPU.")
BATCH = 64


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    return [np.asarray(make_scene(224, 224).rotate(5 * number)) for number in range(BATCH)]


@pytest.fixture
def backbone() -> Backbone:
    return open_backbone(device="cuda", batch_size=BATCH)


@pytest.fixture
def narrow() -> Iterator[None]:
    """The allocator's limit, as it was afterwards."""
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def leave(size_bytes: int) -> None:
    """Let the allocator have so much more than it has given out."""
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + size_bytes) / whole)


def take_all() -> Iterator[torch.Tensor]:
    """Tensors of a MB, until the allocator refuses one."""
    with contextlib.suppress(torch.OutOfMemoryError):
        while True:
            yield torch.empty(1 << 20, dtype=torch.uint8, device="cuda")


def test_a_batch_that_the_allocator_refuses_is_halved(backbone: Backbone, pictures: list[np.ndarray], narrow: None):
    expected = backbone.embed(pictures)  # Kernels are chosen, which takes memory of its own.
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    backbone.embed(pictures)
    leave((torch.cuda.max_memory_allocated() - before) // 2)
    rows = backbone.embed(pictures)
    assert 1 <= backbone.batch_size < BATCH
    assert (rows * expected).sum(1).min() > 0.99999


def test_where_not_one_picture_fits_it_is_a_sentence(backbone: Backbone, pictures: list[np.ndarray], narrow: None):
    leave(0)
    ballast = list(take_all())  # Also what is left in the blocks that it has.
    with pytest.raises(DeviceError, match="batches of 1"):
        backbone.embed(pictures)
    del ballast


def test_the_batch_that_is_found_fits(pictures: list[np.ndarray]):
    backbone = open_backbone(device="cuda", precision="auto", batch_size=None)
    found = backbone.batch_size
    backbone.embed([pictures[0]] * found)
    assert backbone.batch_size == found >= BATCH


@pytest.mark.filterwarnings("ignore")  # Compiling has much to say.
def test_compiled_rows_are_those_of_the_eager_network(pictures: list[np.ndarray]):
    plain, compiled = (
        open_backbone(device="cuda", precision="fp16", batch_size=BATCH, is_compiled=is_compiled)
        for is_compiled in (False, True)
    )
    assert (plain.embed(pictures) * compiled.embed(pictures)).sum(1).min() > 0.9999
    # Of a batch that is not full, too: shapes are fixed.
    assert (plain.embed(pictures[:3]) * compiled.embed(pictures[:3])).sum(1).min() > 0.9999
    # From whichever thread: a build embeds in one, and what it publishes in another.
    with ThreadPoolExecutor(1) as thread:
        rows = thread.submit(compiled.embed, pictures).result()
    assert (rows * compiled.embed(pictures)).sum(1).min() > 0.9999
