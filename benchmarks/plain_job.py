"""The embedding job as one writes it first: what `seer build` is measured against.

    DataLoader over the files, as many workers as cores: Pillow, whole decode, resize 256, cut 224
    -> transformers' RegNet, eager, fp32, batches of 32 -> np.save, a flat FAISS index

Rule: nothing here is made fast, and nothing is made slow: what a careful person writes before measuring.
"""

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.peers import TRANSFORMERS, make_peer, run_peer
from indexer.workers import count_cores
from seer_model.checkpoint import read_checkpoint
from seer_model.errors import SettingsError
from seer_model.preprocess import FILTERS, PREPROCESSINGS, Preprocessing
from seer_model.zoo import find_model

BATCH = 32
ROWS, INDEX = "rows.npy", "index.faiss"


class PictureFiles(Dataset):
    """Files as normalised pictures, float32 (3, H, W)."""

    def __init__(self, files: Sequence[Path], how: Preprocessing) -> None:
        if how.crop_px is None:
            raise SettingsError(f"The plain script resizes the short side and cuts; {how.name} does otherwise.")
        self._files, self._how = files, how

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, number: int) -> Tensor:
        picture = resize_and_cut(Image.open(self._files[number]).convert("RGB"), self._how)
        values = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
        mean, std = torch.tensor(self._how.mean), torch.tensor(self._how.std)
        return (values - mean[:, None, None]) / std[:, None, None]


def resize_and_cut(picture: Image.Image, how: Preprocessing) -> Image.Image:
    """As torchvision's Resize and CenterCrop do it: the whole picture is made small, then the middle is cut."""
    short = min(picture.size)
    width, height = (how.resize_px * side // short for side in picture.size)
    picture = picture.resize((width, height), FILTERS[how.interpolation])
    left, top = round((width - how.crop_px) / 2), round((height - how.crop_px) / 2)
    return picture.crop((left, top, left + how.crop_px, top + how.crop_px))


def load_pictures(
    files: Sequence[Path], how: Preprocessing, device: torch.device, workers: int | None
) -> "DataLoader[Tensor]":
    """Batches (B, 3, H, W) in the order of the files. `workers`: None for one on each core."""
    count = count_cores() if workers is None else workers
    return DataLoader(
        PictureFiles(files, how), batch_size=BATCH, num_workers=count, pin_memory=device.type == "cuda"
    )


class PlainJob:
    """The script, in two parts, so that what starting takes can be told apart. Raises: Absent, SettingsError."""

    def __init__(self, model: str, device: torch.device, workers: int | None) -> None:
        found = find_model(model)
        self.how = PREPROCESSINGS[found.preprocessing]
        self._device, self._workers = device, workers
        self._network = make_peer(TRANSFORMERS, read_checkpoint(found.path), device)

    def embed(self, files: Sequence[Path], target: Path) -> None:
        """Write the rows of all files, in their order, and an index of them, into a folder."""
        rows = np.concatenate(list(self._embed_batches(files)))
        np.save(target / ROWS, rows)
        if has_faiss():
            import faiss

            index = faiss.IndexFlatIP(rows.shape[1])
            index.add(rows)
            faiss.write_index(index, str(target / INDEX))

    def _embed_batches(self, files: Sequence[Path]) -> Iterator[np.ndarray]:
        for batch in load_pictures(files, self.how, self._device, self._workers):
            pictures = batch.to(self._device, non_blocking=True)
            yield run_peer(self._network, TRANSFORMERS, pictures).cpu().numpy()


def has_faiss() -> bool:
    """Whether an index can be made here; a GPU host may have none, and then neither job makes one."""
    return importlib.util.find_spec("faiss") is not None
