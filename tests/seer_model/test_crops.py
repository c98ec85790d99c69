"""Multi-crop against Pillow, picture by picture, and the distributions that the crops are drawn from."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor

from seer_model import crops
from seer_model.crops import CHANCES, CropKind, choose_boxes, cut_crops
from seer_model.errors import SettingsError
from seer_model.squares import squeeze
from tests.seer_model.making_pictures import make_scene

# The columns of CHANCES. A run that is resumed must get its old crops, so they stay where they are.
AREAS, RATIOS, PLACES, FACTORS, ORDER = slice(0, 10), slice(10, 20), slice(20, 22), slice(22, 25), slice(25, 29)
TURN, FLIP, JITTER, GREY, BLUR, SIGMA = range(29, 35)

PLAIN = CropKind(count=1, side_px=32, scale=(1, 1), ratio=(1, 1), flip=0, jitter=0, grey=0, blur=0)
"""The whole of a square picture, as it is."""
JITTERED = replace(PLAIN, jitter=1)


def draw_chances(count: int, seed: int = 0) -> Tensor:
    return torch.rand((count, CHANCES), generator=torch.Generator().manual_seed(seed))


def make_chances(count: int = 1, **columns: object) -> Tensor:
    """Chances of one half, which is the middle of everything, but for those given by the names above."""
    chances = torch.full((count, CHANCES), 0.5)
    for name, values in columns.items():
        chances[:, globals()[name]] = torch.as_tensor(values, dtype=torch.float32)
    return chances


def cut(pictures: Tensor, kind: CropKind, chances: Tensor, aspects: object = 1.0) -> Tensor:
    """Crops in grey levels, float32 (B, side, side, 3)."""
    aspects = torch.as_tensor(aspects, dtype=torch.float32).expand(len(pictures))
    found = cut_crops(pictures, aspects, chances, kind, mean=torch.zeros(3), std=torch.ones(3))
    assert (found.dtype, found.shape[1:]) == (torch.float32, (3, kind.side_px, kind.side_px))
    return found.permute(0, 2, 3, 1) * 255


def make_noise(side_px: int = 32, *, low: int = 0, high: int = 256, seed: int = 0) -> Image.Image:
    """Every pixel another: nothing smooth that would hide a shift."""
    pixels = np.random.default_rng(seed).integers(low, high, (side_px, side_px, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def stack(*pictures: Image.Image) -> Tensor:
    """uint8 (B, 3, S, S)."""
    return torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2).contiguous()


def as_levels(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture.convert("RGB"))).float()


def require_near(found: Tensor, expected: Tensor, levels: float) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=levels)


# --- cutting and resizing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("side_px", [16, 32, 61, 100])
@pytest.mark.parametrize("area", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("flip", [0, 1])
def test_a_crop_is_what_pillow_cuts_and_resizes_with_a_box(side_px: int, area: float, flip: int):
    noise, kind = make_noise(48), replace(PLAIN, side_px=side_px, scale=(area, area), flip=flip)
    side = 48 * math.sqrt(area)
    left, top = 0.3 * (48 - side), 0.8 * (48 - side)
    expected = noise.resize((side_px, side_px), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    if flip:
        expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    (found,) = cut(stack(noise), kind, make_chances(PLACES=(0.3, 0.8)))
    require_near(found, as_levels(expected), 1.5)


@pytest.mark.parametrize(("aspect", "ratio"), [(1.5, 1.0), (0.5, 4 / 3), (2.0, 3 / 4), (0.8, 0.8)])
def test_the_box_in_a_squeezed_picture_has_the_proportions_of_the_upright_one(aspect: float, ratio: float):
    noise, kind = make_noise(64), replace(PLAIN, scale=(0.2, 0.2), ratio=(ratio, ratio))
    # Upright it is `aspect` wide and 1 high; squeezed, 64 x 64.
    width, height = math.sqrt(0.2 * aspect * ratio) / aspect * 64, math.sqrt(0.2 * aspect / ratio) * 64
    box = (0.1 * (64 - width), 0.9 * (64 - height), 0.1 * (64 - width) + width, 0.9 * (64 - height) + height)
    expected = noise.resize((32, 32), Image.Resampling.BILINEAR, box=box)
    (found,) = cut(stack(noise), kind, make_chances(PLACES=(0.1, 0.9)), aspect)
    require_near(found, as_levels(expected), 1.5)


@pytest.mark.parametrize("size", [(192, 128), (128, 192), (200, 80)])
def test_the_squeeze_is_undone(size: tuple[int, int]):
    scene, kind = make_scene(*size), replace(PLAIN, scale=(0.25, 0.25))
    square = squeeze(scene, 96)
    (found,) = cut(stack(Image.fromarray(square.pixels)), kind, make_chances(), square.aspect)
    side = math.sqrt(0.25 * size[0] * size[1])
    left, top = (size[0] - side) / 2, (size[1] - side) / 2
    box = (left, top, left + side, top + side)
    require_near(found, as_levels(scene.resize((32, 32), Image.Resampling.BILINEAR, box=box)), 6)


def test_a_crop_is_normalised_by_mean_and_deviation():
    noise, mean, std = make_noise(), torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    found = cut_crops(stack(noise), torch.ones(1), make_chances(), PLAIN, mean=mean, std=std)[0]
    torch.testing.assert_close(
        found, (as_levels(noise).permute(2, 0, 1) / 255 - mean[:, None, None]) / std[:, None, None]
    )


def test_the_pictures_are_left_as_they_were():
    pictures = stack(make_noise(), make_noise(seed=1))
    before = pictures.clone()
    cut(pictures, CropKind(count=1, side_px=32, scale=(0.1, 1.0)), draw_chances(2))
    assert torch.equal(pictures, before)


def test_the_same_chances_give_the_same_crop_in_a_batch_of_one_and_of_many():
    kind = CropKind(count=1, side_px=24, scale=(0.1, 1.0))
    pictures, chances = stack(*(make_noise(40, seed=seed) for seed in range(12))), draw_chances(12)
    aspects = torch.linspace(0.3, 3, 12)
    together = cut(pictures, kind, chances, aspects)
    for place in range(12):
        (alone,) = cut(pictures[place : place + 1], kind, chances[place : place + 1], aspects[place : place + 1])
        require_near(alone, together[place], 0.01)
    assert len({round(float(crop.mean()), 3) for crop in together}) == 12


def test_several_crops_of_each_picture_are_those_that_are_cut_one_by_one():
    kind = CropKind(count=3, side_px=24, scale=(0.1, 1.0))
    pictures, chances = stack(*(make_noise(40, seed=seed) for seed in range(4))), draw_chances(12)
    aspects = torch.linspace(0.5, 2, 4)
    together = cut_crops(pictures, aspects, chances, kind, mean=torch.zeros(3), std=torch.ones(3))
    for number, of_one in enumerate(together.chunk(3)):
        require_near(of_one, cut_alone(pictures, aspects, chances[4 * number : 4 * number + 4], kind), 1e-4)


def cut_alone(pictures: Tensor, aspects: Tensor, chances: Tensor, kind: CropKind) -> Tensor:
    each = zip(pictures.split(1), aspects.split(1), chances.split(1), strict=True)
    return torch.cat([cut_crops(*one, kind, mean=torch.zeros(3), std=torch.ones(3)) for one in each])


# --- boxes -------------------------------------------------------------------------------------------------------

LARGE = CropKind(count=2, side_px=224, scale=(0.14, 1.0))
SMALL = CropKind(count=6, side_px=96, scale=(0.05, 0.14))


def draw_boxes(kind: CropKind, aspect: float, count: int = 20_000) -> tuple[np.ndarray, np.ndarray, Tensor]:
    """Areas as shares of the picture's, ratios in the upright picture, and boxes."""
    aspects = torch.full((count,), aspect)
    boxes = choose_boxes(aspects, crops._read_chances(draw_chances(count), kind), kind)
    width, height = boxes[:, 2].double().numpy(), boxes[:, 3].double().numpy()
    return width * height, width * aspect / height, boxes


@pytest.mark.parametrize("aspect", [1 / 20, 0.5, 1.0, 1.5, 20.0])
@pytest.mark.parametrize("kind", [LARGE, SMALL])
def test_boxes_lie_inside_the_picture_and_reach_its_edges(kind: CropKind, aspect: float):
    _, ratios, boxes = draw_boxes(kind, aspect)
    left, top, width, height = boxes.unbind(1)
    assert boxes.min() >= 0
    assert max((left + width).max(), (top + height).max()) <= 1 + 1e-6
    assert ratios.min() >= 3 / 4 - 1e-4 and ratios.max() <= 4 / 3 + 1e-4
    if 0.5 <= aspect <= 1.5:
        assert min(left.min(), top.min()) < 0.01
        assert min((left + width).max(), (top + height).max()) > 0.99


def test_areas_are_uniform_and_ratios_uniform_in_their_logarithm():
    # Small boxes of any ratio fit, so that none is drawn again.
    areas, ratios, _ = draw_boxes(SMALL, 1.0)
    logs = np.log(ratios)
    assert (areas.min(), areas.max()) == pytest.approx((0.05, 0.14), abs=1e-4)
    assert areas.mean() == pytest.approx((0.05 + 0.14) / 2, abs=1e-3)
    assert areas.std() == pytest.approx((0.14 - 0.05) / math.sqrt(12), rel=0.02)
    assert np.quantile(areas, 0.25) == pytest.approx(0.05 + 0.09 / 4, abs=2e-3)
    assert logs.mean() == pytest.approx(0, abs=5e-3)
    assert logs.std() == pytest.approx(2 * math.log(4 / 3) / math.sqrt(12), rel=0.02)
    assert np.quantile(logs, 0.25) == pytest.approx(-math.log(4 / 3) / 2, abs=0.01)
    assert abs(np.corrcoef(areas, logs)[0, 1]) < 0.03


def test_places_are_uniform_over_what_is_left_and_do_not_depend_on_the_size():
    areas, _, boxes = draw_boxes(SMALL, 1.0)
    for start, size in ((boxes[:, 0], boxes[:, 2]), (boxes[:, 1], boxes[:, 3])):
        place = (start / (1 - size)).numpy()
        assert place.mean() == pytest.approx(0.5, abs=0.01)
        assert place.std() == pytest.approx(1 / math.sqrt(12), rel=0.02)
        assert abs(np.corrcoef(place, areas)[0, 1]) < 0.03


def choose_by_the_book(chances: np.ndarray, kind: CropKind, width: float, height: float) -> tuple[float, ...]:
    """Ten tries, then the largest box in the middle; as torchvision documents it, without rounding to pixels."""
    low, high = kind.ratio
    for area_chance, ratio_chance in zip(chances[AREAS], chances[RATIOS], strict=True):
        area = (kind.scale[0] + (kind.scale[1] - kind.scale[0]) * area_chance) * width * height
        ratio = math.exp(math.log(low) + (math.log(high) - math.log(low)) * ratio_chance)
        w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if w <= width and h <= height:
            return chances[PLACES][0] * (width - w), chances[PLACES][1] * (height - h), w, h
    w = min(width, height * high)
    h = min(height, width / low)
    return (width - w) / 2, (height - h) / 2, w, h


@pytest.mark.parametrize("aspect", [1 / 20, 0.4, 0.9, 1.5, 3.0, 20.0])
def test_boxes_are_those_of_the_published_tries(aspect: float):
    chances = draw_chances(200)
    boxes = choose_boxes(torch.full((200,), aspect), crops._read_chances(chances, LARGE), LARGE)
    for row, box in zip(chances.double().numpy(), boxes.double().numpy(), strict=True):
        left, top, width, height = choose_by_the_book(row, LARGE, aspect, 1.0)
        np.testing.assert_allclose(box, (left / aspect, top, width / aspect, height), atol=1e-5)


@pytest.mark.parametrize(
    ("aspect", "box"), [(20.0, (0.5 - 1 / 30, 0, 1 / 15, 1)), (1 / 20, (0, 0.5 - 1 / 30, 1, 1 / 15))]
)
def test_of_a_strip_that_no_box_fits_into_the_largest_in_the_middle_is_taken(aspect: float, box: tuple):
    # A box of at least 14 % of a strip of 1:20 is longer than 4:3.
    _, _, boxes = draw_boxes(LARGE, aspect, 1000)
    torch.testing.assert_close(boxes, torch.tensor([box], dtype=torch.float32).expand(1000, 4), rtol=0, atol=1e-5)


# --- colours -----------------------------------------------------------------------------------------------------

MUTED = make_noise(low=90, high=150)
"""So far from black and white that nothing is cut off."""


def chance_of(factor: float) -> float:
    """Of brightness, contrast or saturation, where the strength is 1."""
    return (factor - 0.2) / 1.6


@pytest.mark.parametrize("factor", [0.3, 0.8, 1.0, 1.5])
@pytest.mark.parametrize(
    ("place", "enhance"), [(0, ImageEnhance.Brightness), (1, ImageEnhance.Contrast), (2, ImageEnhance.Color)]
)
def test_brightness_contrast_and_saturation_are_pillows(place: int, enhance: type, factor: float):
    factors = [0.5, 0.5, 0.5]
    factors[place] = chance_of(factor)
    (found,) = cut(stack(MUTED), JITTERED, make_chances(FACTORS=factors))
    require_near(found, as_levels(enhance(MUTED).enhance(factor)), 1.5)


def test_grey_is_pillows_mode_l():
    noise = make_noise()
    (found,) = cut(stack(noise), replace(PLAIN, grey=1), make_chances())
    require_near(found, as_levels(noise.convert("L")), 1.0)
    assert torch.equal(found[..., 0], found[..., 1]) and torch.equal(found[..., 0], found[..., 2])


def test_colours_beyond_black_and_white_are_cut_off():
    (found,) = cut(stack(make_noise()), JITTERED, make_chances(FACTORS=(0.999, 0.999, 0.999)))
    assert (found.min(), found.max()) == (0, 255)


def turn_hue(picture: Image.Image, turns: float) -> Tensor:
    (found,) = cut(stack(picture), replace(JITTERED, strength=1.25), make_chances(TURN=(turns + 0.25) / 0.5))
    return found


def as_picture(levels: Tensor) -> Image.Image:
    return Image.fromarray(levels.round().clamp(0, 255).byte().numpy())


@pytest.mark.parametrize("turns", [-0.25, -0.1, 0.05, 0.2])
def test_a_turn_of_the_hue_keeps_the_luma_and_the_distance_from_grey(turns: float):
    turned, before = turn_hue(MUTED, turns), as_levels(MUTED)
    luma = torch.tensor([0.299, 0.587, 0.114])
    require_near(turned @ luma, before @ luma, 0.1)
    assert (turned - before).abs().mean() > 3, "it does something"
    axes = torch.tensor(crops.YIQ).T
    require_near((turned @ axes)[..., 1:].norm(dim=2), (before @ axes)[..., 1:].norm(dim=2), 0.1)


def test_a_whole_turn_of_the_hue_in_four_steps_is_the_identity():
    picture = MUTED
    for _ in range(4):
        picture = as_picture(turn_hue(picture, 0.25))
    require_near(as_levels(picture), as_levels(MUTED), 4)
    require_near(turn_hue(as_picture(turn_hue(MUTED, 0.17)), -0.17), as_levels(MUTED), 2)


@pytest.mark.parametrize("turns", [-0.2, 0.1, 0.25])
def test_grey_stays_grey_when_the_hue_turns(turns: float):
    grey = make_noise().convert("L").convert("RGB")
    require_near(turn_hue(grey, turns), as_levels(grey), 0.1)


def distort_by_hand(levels: np.ndarray, order: tuple[int, ...], factors: tuple[float, ...], turns: float) -> np.ndarray:
    """One after the other, in float64, each as its definition says."""
    luma, axes = np.array([0.299, 0.587, 0.114]), np.array(crops.YIQ)
    cos, sin = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns)
    turn = np.linalg.inv(axes) @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ axes
    for which in order:
        if which == 0:
            levels = levels * factors[0]
        elif which == 1:
            levels = levels * factors[1] + (levels @ luma).mean() * (1 - factors[1])
        elif which == 2:
            levels = levels * factors[2] + (levels @ luma)[..., None] * (1 - factors[2])
        else:
            levels = levels @ turn.T
    return levels


@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[::5])
def test_all_four_distortions_together_are_one_after_the_other(order: tuple[int, ...]):
    factors, turns = (0.8, 0.7, 1.3), 0.1
    # The column with the smallest chance is the operation that comes first.
    chances = make_chances(
        FACTORS=[chance_of(factor) for factor in factors],
        TURN=(turns + 0.2) / 0.4,
        ORDER=[order.index(which) / 4 for which in range(4)],
    )
    (found,) = cut(stack(MUTED), JITTERED, chances)
    expected = distort_by_hand(as_levels(MUTED).double().numpy(), order, factors, turns)
    require_near(found, torch.from_numpy(expected).float(), 0.05)


def test_each_crop_of_a_batch_is_distorted_by_its_own_numbers():
    pictures = [make_noise(low=90, high=150, seed=seed) for seed in range(3)]
    factors = [(0.8, 1.0, 1.0), (1.0, 0.5, 1.0), (1.0, 1.0, 0.3)]
    chances = make_chances(3, FACTORS=[[chance_of(one) for one in row] for row in factors])
    expected = [
        ImageEnhance.Brightness(pictures[0]).enhance(0.8),
        ImageEnhance.Contrast(pictures[1]).enhance(0.5),
        ImageEnhance.Color(pictures[2]).enhance(0.3),
    ]
    require_near(cut(stack(*pictures), JITTERED, chances), torch.stack(list(map(as_levels, expected))), 1.5)


# --- blur --------------------------------------------------------------------------------------------------------


def blur(picture: Image.Image, sigma: float) -> Tensor:
    kind = replace(PLAIN, blur=1, blur_px=(0.1, 2.0))
    (found,) = cut(stack(picture), kind, make_chances(SIGMA=(sigma - 0.1) / 1.9))
    return found


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.0])
def test_a_blur_is_the_gaussian_of_its_deviation(sigma: float):
    noise = make_noise(16)
    levels = as_levels(noise).double().numpy()
    places = np.arange(16)
    expected = np.empty_like(levels)
    for row, column in itertools.product(range(16), repeat=2):
        weights = np.exp(-((places[:, None] - row) ** 2 + (places[None] - column) ** 2) / (2 * sigma**2))
        expected[row, column] = (levels * weights[..., None]).sum((0, 1)) / weights.sum()
    kind = replace(PLAIN, side_px=16, blur=1)
    (found,) = cut(stack(noise), kind, make_chances(SIGMA=(sigma - 0.1) / 1.9))
    require_near(found, torch.from_numpy(expected).float(), 0.01)


@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_a_blur_is_about_pillows_away_from_the_edges(sigma: float):
    # Pillow's is three box filters, which come near a Gaussian.
    expected = as_levels(make_noise().filter(ImageFilter.GaussianBlur(sigma)))
    difference = (blur(make_noise(), sigma) - expected)[6:-6, 6:-6].abs()
    assert difference.mean() < 3
    assert (as_levels(make_noise()) - expected)[6:-6, 6:-6].abs().mean() > 50


def test_without_a_blur_a_crop_stays_sharp_also_beside_blurred_ones():
    pictures = stack(*(make_noise(seed=seed) for seed in range(4)))
    chances = make_chances(4, BLUR=0.4)
    chances[[1, 3], BLUR] = 0.6
    found = cut(pictures, replace(PLAIN, blur=0.5), chances)
    sharp = pictures.permute(0, 2, 3, 1).float()
    require_near(found[[1, 3]], sharp[[1, 3]], 1e-3)
    assert ((found - sharp)[[0, 2]].abs().mean((1, 2, 3)) > 20).all()
    require_near(cut(pictures, PLAIN, make_chances(4, BLUR=0.0)), sharp, 1e-3)


def test_colours_come_before_the_blur():
    # White that is made whiter is cut off first and blurred after.
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2] = 200
    kind = replace(JITTERED, blur=1)
    (found,) = cut(stack(Image.fromarray(stripes)), kind, make_chances(FACTORS=(chance_of(1.8), 0.5, 0.5), SIGMA=0.99))
    assert found[:, 8:-8].max() < 140


# --- how often ---------------------------------------------------------------------------------------------------


def test_each_distortion_comes_as_often_as_it_should_and_independently():
    kind = replace(LARGE, side_px=8)
    drawn = crops._read_chances(draw_chances(20_000), kind)
    happens = torch.stack([drawn.is_flipped, drawn.is_jittered, drawn.is_grey, drawn.sigmas > 0], 1).double()
    assert happens.mean(0).tolist() == pytest.approx([0.5, 0.8, 0.2, 0.5], abs=0.012)
    assert (torch.corrcoef(happens.T) - torch.eye(4)).abs().max() < 0.03


def test_strengths_are_uniform_within_their_bounds():
    drawn = crops._read_chances(draw_chances(20_000), LARGE)
    blurs = drawn.sigmas[drawn.sigmas > 0]
    for values, low, high in ((drawn.factors, 0.2, 1.8), (drawn.turns, -0.2, 0.2), (blurs, 0.1, 2.0)):
        assert (float(values.min()), float(values.max())) == pytest.approx((low, high), abs=0.01)
        assert float(values.mean()) == pytest.approx((low + high) / 2, abs=0.01 * (high - low))
        assert float(values.std()) == pytest.approx((high - low) / math.sqrt(12), rel=0.02)


def test_a_weaker_distortion_reaches_less_far_and_a_stronger_one_not_below_nothing():
    weak = crops._read_chances(draw_chances(5000), replace(LARGE, strength=0.5))
    assert (float(weak.factors.min()), float(weak.factors.max())) == pytest.approx((0.6, 1.4), abs=0.01)
    assert float(weak.turns.abs().max()) == pytest.approx(0.1, abs=0.001)
    strong = crops._read_chances(draw_chances(5000), replace(LARGE, strength=1.25))
    assert (float(strong.factors.min()), float(strong.factors.max())) == pytest.approx((0.0, 2.0), abs=0.01)


def test_each_order_of_the_distortions_comes_equally_often():
    orders = crops._read_chances(draw_chances(24_000), LARGE).order.tolist()
    counts = [orders.count(list(order)) for order in itertools.permutations(range(4))]
    assert sum(counts) == 24_000
    assert min(counts) > 850 and max(counts) < 1150


@pytest.mark.parametrize("name", ["flip", "jitter", "grey", "blur"])
def test_never_is_never_and_always_is_always(name: str):
    chances = draw_chances(500)
    chances[0], chances[1] = 0.0, 1 - 2**-24
    never, always = (crops._read_chances(chances, replace(LARGE, **{name: chance})) for chance in (0, 1))
    read = {"flip": "is_flipped", "jitter": "is_jittered", "grey": "is_grey", "blur": "sigmas"}[name]
    assert not getattr(never, read).any()
    assert getattr(always, read).bool().all()


def test_nothing_here_draws():
    state = torch.get_rng_state()
    cut(stack(make_noise()), replace(LARGE, side_px=16), draw_chances(1))
    assert torch.equal(torch.get_rng_state(), state)


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"count": 0},
        {"side_px": 7},
        {"scale": (0.0, 1.0)},
        {"scale": (0.5, 0.4)},
        {"scale": (0.5, 1.1)},
        {"scale": (math.nan, 1.0)},
        {"ratio": (0.0, 1.0)},
        {"ratio": (2.0, 1.0)},
        {"flip": 1.1},
        {"jitter": -0.1},
        {"grey": math.nan},
        {"blur": 2},
        {"strength": -0.1},
        {"strength": 1.3},
        {"blur_px": (0.0, 1.0)},
        {"blur_px": (2.0, 1.0)},
    ],
)
def test_numbers_that_make_no_sense_are_refused(wrong: dict):
    with pytest.raises(SettingsError, match=r"allowed|must"):
        replace(LARGE, **wrong)
