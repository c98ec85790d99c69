"""The model that queries are embedded with: opened when a picture from outside first asks for it.

Rule: a query is embedded as the generation's pictures were, by the same fingerprint, or it is refused.
"""

import threading
from typing import TYPE_CHECKING

import numpy as np

from indexer.aside import Aside, Here
from indexer.decode import hash_content
from indexer.errors import FingerprintMismatch
from seer_model.pictures import Region

if TYPE_CHECKING:
    from indexer.embed import Backbone

REMEMBERED = 32
"""Embeddings of queries from outside that are kept."""


class QueryModel:
    """Embeds pictures for a generation. Threads may share it.

    Args:
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        decoder: what decodes pictures.
    """

    def __init__(self, device: str, decoder: Here | Aside) -> None:
        self._device, self._decoder = device, decoder
        self._lock = threading.Lock()
        self._backbone: Backbone | None = None
        self._known: dict[tuple[str, bytes, Region | None], np.ndarray] = {}

    @property
    def is_loaded(self) -> bool:
        """Whether a picture can be embedded without waiting for the model."""
        return self._backbone is not None

    def load(self, manifest: dict) -> "Backbone":
        """The model of the generation with this manifest, opened unless it is.

        Raises: FingerprintMismatch if it would embed otherwise than the generation's pictures were; and what
            `open_backbone` does.
        """
        from indexer.embed import open_backbone

        with self._lock:
            if self._backbone is None or self._backbone.fingerprint != manifest["fingerprint"]:
                # One picture at a time: a query must not pay for a whole padded batch.
                backbone = open_backbone(manifest["settings"]["model"], device=self._device, batch_size=1)
                _require_same_fingerprint(backbone.fingerprint, manifest)
                self._backbone = backbone
            return self._backbone

    def embed(self, manifest: dict, picture: bytes, region: Region | None = None) -> np.ndarray:
        """The embedding of a picture file or a part of it, (D,) float32 of length 1.

        The latest ones are remembered, so that paging through an answer costs no model. Raises: PictureError,
        QueryError; and as `load`.
        """
        from indexer.embed import embed_prepared

        backbone = self.load(manifest)
        key = backbone.fingerprint, hash_content(picture), region
        if (known := self._known.get(key)) is not None:
            return known
        # Before the lock: who waits for the model must not wait for another's picture.
        most = manifest["settings"]["max_megapixels"]
        pixels = self._decoder.prepare(picture, backbone.preprocessing, most, region)
        with self._lock:
            query = self._known[key] = embed_prepared(backbone, pixels)
            if len(self._known) > REMEMBERED:
                del self._known[next(iter(self._known))]
            return query

    def explain(self, manifest: dict, picture: bytes, aim: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How similar each place of a picture file is to an aim, (D,) float32 of length 1, by itself.

        Returns: the picture as the network sees it, (H, W, 3) uint8; and (h, w) float32 as
            `Backbone.find_matching_places` has it. Raises: as `embed`.
        """
        backbone = self.load(manifest)
        pixels = self._decoder.prepare(picture, backbone.preprocessing, manifest["settings"]["max_megapixels"], None)
        with self._lock:
            return pixels, backbone.find_matching_places(pixels, aim)


def _require_same_fingerprint(found: str, manifest: dict) -> None:
    if found != manifest["fingerprint"]:
        raise FingerprintMismatch(
            f"The model {manifest['settings']['model']} is not the one that this collection was made with "
            f"(fingerprint {found[:12]}, the collection has {manifest['fingerprint'][:12]}): its answers would mean "
            "nothing. Run seer build again: it embeds the pictures with the model as it is now."
        )
