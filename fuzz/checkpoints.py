"""Fuzzes the reader of checkpoints: any bytes become the weights of one whole RegNetY, or CheckpointError."""

from collections.abc import Iterator
from contextlib import suppress

import atheris

from fuzz.running import FOLDER, fuzz

with atheris.instrument_imports(include=["seer_model", "torch.serialization", "torch._weights_only_unpickler"]):
    import torch

    from seer_model.checkpoint import read_checkpoint, write_checkpoint
    from seer_model.errors import CheckpointError
    from seer_model.key_tables import VISSL
    from seer_model.regnet import Architecture
    from tests.seer_model.making_weights import make_checkpoint, spell_trunk

SMALLEST = Architecture(depths=(1, 1, 1, 1), widths=(8, 8, 8, 8), group_widths=(8, 8, 8, 8), stem_width=8)
PLACE = FOLDER / "weights"


def read(data: bytes) -> None:
    """As `seer models convert` reads a file."""
    PLACE.write_bytes(data)
    with suppress(CheckpointError):
        read_checkpoint(PLACE)


def make_seeds() -> Iterator[bytes]:
    """One network in each kind of file."""
    PLACE.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = make_checkpoint(SMALLEST)
    write_checkpoint(checkpoint, PLACE)
    yield PLACE.read_bytes()
    nested = {"classy_state_dict": {"base_model": {"model": {"trunk": spell_trunk(checkpoint, VISSL), "heads": {}}}}}
    for content in (nested, checkpoint.trunk):
        for is_zip in (True, False):
            torch.save(content, PLACE, _use_new_zipfile_serialization=is_zip)
            yield PLACE.read_bytes()


if __name__ == "__main__":
    fuzz("checkpoints", read, make_seeds())
