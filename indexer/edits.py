"""Edited copies of a picture, as people make them: cropped, smaller, mirrored, recoloured, written over.

Each kind comes in several strengths, the mildest first. What chance decides - where a crop lies, to which side a
picture is turned - follows from the seed, the number of the picture and the edit, and from nothing else.

Rule: an RGB picture in, a new RGB picture out, in memory; the original is left as it was.
"""

import io
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from seer_model.errors import SettingsError

WORDS = ("Hello from the sea", "Greetings", "Best day of the year", "Sold out", "New", "Look at this", "Sunday")
"""What is written over pictures."""


@dataclass(frozen=True, kw_only=True)
class Edit:
    """One way to edit a picture, at one strength."""

    name: str
    strength: str
    make: Callable[[Image.Image, random.Random], Image.Image]

    @property
    def title(self) -> str:
        """Name and strength, as EDITS is keyed."""
        return f"{self.name} {self.strength}"


def apply_edit(picture: Image.Image, edit: Edit, *, number: int, seed: int = 0) -> Image.Image:
    """An edited copy.

    Args:
        picture: mode RGB, any size from 1 x 1 on.
        number: of the picture; pictures of other numbers are cropped at other places.
    Returns: a new picture, mode RGB; equal arguments give equal pixels.
    """
    return edit.make(picture, random.Random(f"{seed} {number} {edit.title}"))


def choose_edits(names: tuple[str, ...]) -> tuple[Edit, ...]:
    """The edits of these names, each a kind ("crop") or a kind with its strength ("crop 60 %"); none given: all.

    Raises: SettingsError if one means nothing.
    """
    for name in names:
        if name not in KINDS and name not in EDITS:
            raise SettingsError(
                f"There is no edit {name!r}; allowed are {', '.join(KINDS)}, and one strength alone, as in "
                f"{next(iter(EDITS))!r}: {', '.join(EDITS)}."
            )
    return tuple(edit for edit in EDITS.values() if not names or edit.name in names or edit.title in names)


def _crop(picture: Image.Image, chance: random.Random, *, share: float) -> Image.Image:
    width, height = (max(1, round(side * share**0.5)) for side in picture.size)
    left, top = chance.randint(0, picture.width - width), chance.randint(0, picture.height - height)
    return picture.crop((left, top, left + width, top + height))


def _resize(picture: Image.Image, _: random.Random, *, scale: float) -> Image.Image:
    size = tuple(max(1, round(side * scale)) for side in picture.size)
    return picture.resize(size, Image.Resampling.BICUBIC)


def _compress(picture: Image.Image, _: random.Random, *, quality: int) -> Image.Image:
    stream = io.BytesIO()
    picture.save(stream, format="JPEG", quality=quality)
    with Image.open(stream, formats=("JPEG",)) as opened:
        return opened.convert("RGB")


def _send_small(picture: Image.Image, chance: random.Random) -> Image.Image:
    return _compress(_resize(picture, chance, scale=0.5), chance, quality=30)


def _turn(picture: Image.Image, chance: random.Random, *, degrees: float) -> Image.Image:
    angle = chance.choice((-degrees, degrees))
    # A quarter turn keeps the whole picture; after a smaller one the corners that come into view are black.
    return picture.rotate(angle, Image.Resampling.BICUBIC, expand=degrees == 90)


def _mirror(picture: Image.Image, _: random.Random) -> Image.Image:
    return ImageOps.mirror(picture)


def _turn_over(picture: Image.Image, _: random.Random) -> Image.Image:
    return ImageOps.flip(picture)


def _recolour(picture: Image.Image, chance: random.Random, *, by: float) -> Image.Image:
    """Brightness, contrast and saturation, each up or down by this share."""
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = enhance(picture).enhance(1 + chance.choice((-by, by)))
    return picture


def _bleach(picture: Image.Image, _: random.Random) -> Image.Image:
    return ImageOps.grayscale(picture).convert("RGB")


def _write_over(picture: Image.Image, chance: random.Random, *, lines: int, height: float) -> Image.Image:
    """White letters with a black edge, each line `height` of the short side tall, at a random place."""
    letters = max(4, round(min(picture.size) * height))
    text = "\n".join(chance.choice(WORDS) for _ in range(lines))
    written = picture.copy()
    draw = ImageDraw.Draw(written)
    style = {"font": ImageFont.load_default(letters), "stroke_width": max(1, letters // 12)}
    _, _, right, bottom = draw.multiline_textbbox((0, 0), text, **style)
    place = (chance.uniform(0, max(0, picture.width - right)), chance.uniform(0, max(0, picture.height - bottom)))
    draw.multiline_text(place, text, fill="white", stroke_fill="black", **style)
    return written


def _blur(picture: Image.Image, _: random.Random, *, share: float) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(max(0.5, min(picture.size) * share)))


def _list_edits() -> tuple[Edit, ...]:
    return (
        *(Edit(name="crop", strength=f"{s} %", make=partial(_crop, share=s / 100)) for s in (80, 60, 40)),
        Edit(name="resize", strength="half", make=partial(_resize, scale=0.5)),
        Edit(name="resize", strength="quarter", make=partial(_resize, scale=0.25)),
        Edit(name="resize", strength="half, JPEG 30", make=_send_small),
        *(Edit(name="JPEG", strength=str(q), make=partial(_compress, quality=q)) for q in (60, 30, 10)),
        *(Edit(name="rotate", strength=f"{d} deg", make=partial(_turn, degrees=d)) for d in (5, 15, 90)),
        Edit(name="flip", strength="mirrored", make=_mirror),
        Edit(name="flip", strength="upside down", make=_turn_over),
        Edit(name="colour", strength="mild", make=partial(_recolour, by=0.2)),
        Edit(name="colour", strength="strong", make=partial(_recolour, by=0.5)),
        Edit(name="colour", strength="grey", make=_bleach),
        Edit(name="text", strength="one line", make=partial(_write_over, lines=1, height=0.08)),
        Edit(name="text", strength="three lines", make=partial(_write_over, lines=3, height=0.16)),
        *(Edit(name="blur", strength=f"{s} %", make=partial(_blur, share=s / 100)) for s in (1, 3)),
    )


EDITS = {edit.title: edit for edit in _list_edits()}
"""By title, as in "crop 60 %". A crop's strength is the share of the area that stays; a turn's is in degrees, either
way; a blur's is its radius (standard deviation), as a share of the short side."""
KINDS = tuple({edit.name: None for edit in EDITS.values()})
"""The kinds of edit, in the table's order."""
