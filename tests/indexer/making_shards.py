"""Making tar shards for tests."""

import io
import tarfile
from pathlib import Path

from tests.seer_model.making_pictures import encode, make_scene


def make_shard(path: Path, members: dict[str, bytes], format: int = tarfile.GNU_FORMAT) -> Path:
    """An uncompressed tar of these members, in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format, encoding="utf-8", errors="surrogateescape") as tar:
        for name, data in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return path


def png(width: int = 20, height: int = 10) -> bytes:
    """A picture that is told from others by its size."""
    return encode(make_scene(width, height), "PNG")
