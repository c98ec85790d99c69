"""Each faster way to compute an embedding, against the network as it was read, in fp32: how close they are on real
photos, with the trained model.

Rule: the bounds are what the default and the documents promise; a way that is not within them is not offered.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seer_model.backbone import open_backbone
from seer_model.checkpoint import build_network, read_checkpoint
from seer_model.preprocess import PREPROCESSINGS, prepare
from seer_model.readout import Readout, choose_output
from seer_model.zoo import BUNDLED_WEIGHTS
from tests.device import DEVICE

NEAREST = 10
PHOTOS, MANY_PHOTOS = 32, 699


@pytest.fixture(scope="module")
def pixels(photos_folder: Path, pytestconfig: pytest.Config) -> list[np.ndarray]:
    """Photos as the backbone sees them."""
    count = MANY_PHOTOS if pytestconfig.getoption("--long") else PHOTOS
    files = sorted(photos_folder.glob("*.jpg"))[:count]
    return [prepare(Image.open(file).convert("RGB"), PREPROCESSINGS["vissl"]) for file in files]


@pytest.fixture(scope="module")
def plain(pixels: list[np.ndarray]) -> np.ndarray:
    """Their embeddings by the network as it was read: nothing folded, contiguous, fp32."""
    checkpoint, how = read_checkpoint(BUNDLED_WEIGHTS), PREPROCESSINGS["vissl"]
    network = build_network(checkpoint).eval().float()
    readout = Readout(checkpoint, choose_output(checkpoint.heads))
    mean, std = torch.tensor(how.mean), torch.tensor(how.std)
    rows = []
    with torch.inference_mode():
        for first in range(0, len(pixels), 32):
            batch = torch.from_numpy(np.stack(pixels[first : first + 32]))
            x = ((batch / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()
            rows.append(readout(network.read_maps(x)).numpy())
    return np.concatenate(rows)


def measure(rows: np.ndarray, plain: np.ndarray) -> tuple[float, float, float]:
    """Least and mean cosine of each row with its plain one, and the mean share of the ten nearest that both have."""
    cosines = (rows * plain).sum(1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(plain, axis=1)
    shared = [len(one & other) / NEAREST for one, other in zip(find_nearest(rows), find_nearest(plain), strict=True)]
    return float(cosines.min()), float(cosines.mean()), float(np.mean(shared))


def find_nearest(rows: np.ndarray) -> list[set[int]]:
    similarities = rows @ rows.T
    np.fill_diagonal(similarities, -2)
    return [set(np.argsort(-one)[:NEAREST].tolist()) for one in similarities]


WAYS = {
    # what is promised: least cosine, mean cosine, share of the ten nearest
    "fp32": ({}, 0.99999, 0.999999, 0.99),
    "fp16": ({"precision": "fp16"}, 0.9999, 0.99999, 0.99),
    "bf16": ({"precision": "bf16"}, 0.999, 0.9998, 0.97),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_faster_way_is_as_close_as_it_is_promised(
    way: str, pixels: list[np.ndarray], plain: np.ndarray, capsys: pytest.CaptureFixture
):
    how, least_bound, mean_bound, shared_bound = WAYS[way]
    rows = open_backbone(device=DEVICE, batch_size=16, **how).embed(pixels)
    least, mean, shared = measure(rows, plain)
    with capsys.disabled():
        print(f"\n{way}: cosine least {least:.7f}, mean {mean:.7f}; ten nearest shared {shared:.4f}")
    assert least >= least_bound and mean >= mean_bound and shared >= shared_bound


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # of its own parts, which compiling loads
def test_a_compiled_network_is_as_close(pixels: list[np.ndarray], plain: np.ndarray):
    rows = open_backbone(device=DEVICE, batch_size=16, is_compiled=True).embed(pixels)
    least, mean, shared = measure(rows, plain)
    print(f"\ncompiled: cosine least {least:.7f}, mean {mean:.7f}; ten nearest shared {shared:.4f}")
    assert least >= 0.99999 and mean >= 0.999999 and shared >= 0.99
