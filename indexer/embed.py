"""From decoded pictures to rows: the one place of this floor that runs the backbone.

Rule: a row is finite and of length 1, or its picture has a reason instead.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial

import numpy as np

from indexer.errors import QueryError
from indexer.fleet import About, Fleet, Lane, start_processes
from seer_model.backbone import Backbone, open_backbone, read_prototypes
from seer_model.devices import set_threads, share_cores, use_one_heap

__all__ = ["Backbone", "embed_batch", "embed_prepared", "open_backbone", "open_fleet", "open_lane", "read_prototypes"]


def open_fleet(model: str, devices: Sequence[str], **how: object) -> Fleet:
    """Open a model for a build: here for one device, in a process for each of several.

    Args:
        devices: as in `seer_model.backbone.BackboneSettings`; one may be named several times.
        how: `precision`, `batch_size`, `is_compiled`, as there.
    Raises: what `open_backbone` does.
    """
    if len(devices) > 1:
        works = {
            f"{device} ({number + 1} of {len(devices)})": partial(
                _serve, model=model, device=device, share=len(devices), how=tuple(sorted(how.items()))
            )
            for number, device in enumerate(devices)
        }
        return start_processes(works, __name__)
    use_one_heap()  # The lane is a thread of its own.
    backbone = open_backbone(model, device=devices[0], **how)
    return Fleet(_describe(backbone), [partial(embed_batch, backbone)])


def _serve(pixels: Sequence[np.ndarray] | None, **opening: object) -> object:
    """In a process of its own: the model is opened with the first question."""
    backbone = _open_once(**opening)
    return _describe(backbone) if pixels is None else (backbone.fingerprint, *embed_batch(backbone, pixels))


@lru_cache(maxsize=1)
def _open_once(*, model: str, device: str, share: int, how: tuple) -> Backbone:
    share_cores(share)
    return open_backbone(model, device=device, **dict(how))


def open_lane(model: str, device: str, how: dict, threads: int | None) -> tuple[About, Lane]:
    """A model on one device. `threads`: of a network on a CPU; None: as it has. Raises: what `open_backbone` does."""
    if threads:
        set_threads(threads)
    backbone = open_backbone(model, device=device, **how)
    return _describe(backbone), partial(embed_batch, backbone)


def _describe(backbone: Backbone) -> About:
    return About(
        fingerprint=backbone.fingerprint,
        dimension=backbone.dimension,
        preprocessing=backbone.preprocessing,
        batch_size=backbone.batch_size,
        described=backbone.describe(),
        stamps=[list(stamp) for stamp in backbone.stamps],
    )


def embed_batch(backbone: Backbone, pixels: Sequence[np.ndarray]) -> tuple[np.ndarray, list[bool]]:
    """Embed prepared pictures.

    Args:
        pixels: B arrays (H, W, 3) uint8.
    Returns: (b, D) float32, rows of length 1, of the b pictures that have an embedding; and for each of the B
        pictures whether it has one.
    """
    rows = backbone.embed(pixels)
    usable = np.isfinite(rows).all(axis=1)
    return rows[usable], usable.tolist()


def embed_prepared(backbone: Backbone, pixels: np.ndarray) -> np.ndarray:
    """Embed one prepared picture, (H, W, 3) uint8, by the same path as the job's, on half of the processor's cores.

    Returns: (D,) float32 of length 1.
    Raises: QueryError if the network gives no finite embedding.
    """
    with _half_of_the_cores():
        rows, _ = embed_batch(backbone, [pixels])
    if not len(rows):
        raise QueryError("The network gives no finite embedding for this picture. Try another picture.")
    return rows[0]


@contextmanager
def _half_of_the_cores() -> Iterator[None]:
    """One picture gains little from the second half, and where all cores are busy its threads wait for each other in
    every layer: a query then takes seconds instead of hundredths of one."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // 2))
    try:
        yield
    finally:
        torch.set_num_threads(threads)
