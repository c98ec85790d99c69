"""What whitening does to rows, checked against scikit-learn and by hand; and how a model gets it and uses it."""

import os
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from seer_model import whitening
from seer_model.backbone import open_backbone
from seer_model.checkpoint import Checkpoint, build_network, convert_checkpoint, read_checkpoint, write_checkpoint
from seer_model.errors import CheckpointError, SettingsError, TrainingError
from seer_model.outputs import UNNAMED
from seer_model.poolings import pool_maps
from seer_model.preprocess import PREPROCESSINGS
from seer_model.squares import Square
from seer_model.whitening import OURS, build_whitening, find_fit, fit_whitening, whiten
from tests.device import DEVICE
from tests.seer_model import making_weights as making

THERE = torch.device(DEVICE)
WIDTH = sum(making.TINY.widths[-2:])


def draw_rows(count: int, width: int = 8) -> torch.Tensor:
    """Rows whose directions vary by very different amounts, around a mean far from zero."""
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(count, width, generator=generator) * torch.logspace(0, -2, width)
    turned = mixed @ torch.linalg.qr(torch.randn(width, width, generator=generator)).Q
    return turned + 5


def draw_squares(count: int, side_px: int = 48) -> list[Square]:
    random = np.random.default_rng(0)
    fields = (random.integers(0, 256, (6, 6, 3), np.uint8) for _ in range(count))
    return [Square(board.repeat(side_px // 6, 0).repeat(side_px // 6, 1), 1.0) for board in fields]


@dataclass(frozen=True)
class Drawn:
    """A pile of so many pictures, of which these are drawn."""

    squares: list[Square | None]
    pictures: int
    numbers: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return self.pictures

    def read(self, numbers: list[int]) -> list[Square | None]:
        self.numbers.extend(numbers)
        return self.squares


def whiten_on(made: Checkpoint, squares: list[Square | None], *, pictures: int = 99, **how) -> Checkpoint | None:
    return whiten(made, Drawn(squares, pictures), crops=len(squares), device=THERE, **how)


def draw_whitening(seed: int = 4, width: int = WIDTH) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "whitening.weight": torch.randn(width, width, generator=generator),
        "whitening.bias": torch.randn(width, generator=generator),
    }


# What is fitted


def test_whitened_rows_are_those_of_scikit_learn_but_for_signs_and_the_floor():
    rows = draw_rows(500)
    found = build_whitening(fit_whitening(rows))(rows).detach().double().numpy()
    oracle = PCA().fit(rows.double().numpy())
    floor = OURS.floor * oracle.explained_variance_[0]
    expected = oracle.transform(rows.double().numpy()) / np.sqrt(oracle.explained_variance_ + floor)
    signs = np.sign((found * expected).sum(0))
    np.testing.assert_allclose(found * signs, expected, atol=1e-3)


def test_the_published_fit_is_that_of_its_formulas():
    """Of the squares of all pictures: less their mean, turned, over the roots of variances that are floored."""
    squares = draw_rows(600, 8).reshape(200, 3, 8)
    squares[..., 7] = 5 + 1e-6 * squares[..., 7]
    fit = find_fit("copies", numbers=8)
    found = build_whitening(fit_whitening(squares, fit))(squares).detach().double().numpy().reshape(600, 8)
    rows = squares.double().numpy().reshape(600, 8)
    variances, directions = np.linalg.eigh(np.cov(rows.T))
    assert variances[0] < 1e-6 * variances[-1]
    expected = (rows - rows.mean(0)) @ directions / np.sqrt(np.maximum(variances, 1e-5 * variances[-1]))
    expected = expected[:, ::-1]
    np.testing.assert_allclose(found * np.sign((found * expected).sum(0)), expected, atol=5e-3)
    # Of fewer numbers they are the first ones.
    fewer, every = (fit_whitening(squares, one) for one in (find_fit("copies", numbers=3), fit))
    torch.testing.assert_close(fewer["whitening.res4-rmac3.weight"], every["whitening.res4-rmac3.weight"][:3])


def test_copies_is_what_seer_was_published_with_and_an_unknown_fit_is_refused():
    fit = find_fit("copies")
    assert (fit.pooling.spelled, fit.numbers, fit.floor, fit.is_added) == ("res4-rmac3", 1024, 1e-5, False)
    with pytest.raises(SettingsError, match="no readout 'copy'.*allowed are copies, average"):
        find_fit("copy")
    with pytest.raises(SettingsError, match="0 numbers"):
        find_fit("copies", 0)


def test_of_few_rows_only_as_many_directions_are_kept_as_they_tell_of():
    few, others = draw_rows(33, 64)[:16], draw_rows(33, 64)[16:]
    found = fit_whitening(few)
    assert (found["whitening.weight"].shape, found["whitening.bias"].shape) == ((4, 64), (4,))
    # On rows that it has not seen it does not make mountains of molehills.
    assert build_whitening(found)(others).std(0).max() < 3


def test_a_direction_that_hardly_varies_is_not_blown_up():
    rows = draw_rows(400)
    rows[:, 3] = 5 + 1e-7 * rows[:, 3]
    assert build_whitening(fit_whitening(rows))(rows).std(0)[-1] < 0.1


def test_equal_rows_have_no_direction_and_stay_finite():
    found = fit_whitening(torch.ones(16, 4))
    assert all(weight.isfinite().all() for weight in found.values())


@pytest.mark.parametrize(("count", "bad"), [(3, 0), (40, 1)], ids=["too few", "one not finite"])
def test_rows_that_no_layer_can_be_fitted_on_are_refused(count, bad):
    rows = draw_rows(count)
    rows[:bad, 2] = torch.nan
    with pytest.raises(TrainingError, match=f"of {count} crops {count - bad} gave finite numbers"):
        fit_whitening(rows)


# How a model gets it


def test_a_model_is_whitened_on_crops_of_its_own_pictures():
    made = making.make_checkpoint(heads=making.make_projection_heads())
    found = whiten_on(made, draw_squares(40))
    assert found.heads["whitening.weight"].shape == (10, WIDTH)
    making.assert_same_weights(found.trunk, made.trunk)
    assert set(found.heads) == set(made.heads) | {"whitening.weight", "whitening.bias"}
    again = whiten_on(made, draw_squares(40))
    making.assert_same_weights(again.heads, found.heads)
    other = whiten_on(replace(made, heads=found.heads), draw_squares(40), seed=1)
    assert not torch.equal(other.heads["whitening.weight"], found.heads["whitening.weight"])


def test_a_picture_is_looked_at_as_a_whole_and_cropped_when_it_comes_again(monkeypatch):
    kinds, read = [], whitening.read_maps
    monkeypatch.setattr(whitening, "read_maps", lambda *given: kinds.append(given[2]) or read(*given))
    whiten_on(making.make_checkpoint(), draw_squares(40), pictures=20)
    assert kinds == [whitening.WHOLE, whitening.WHOLE, whitening.CROPPED]


def test_each_picture_is_drawn_once_before_one_comes_again():
    pile = Drawn(draw_squares(1), pictures=16)
    assert len(list(whitening.look_at(making.make_checkpoint(), pile, crops=40, device=THERE))) == 1
    first, again = pile.numbers[:16], pile.numbers[16:]
    assert sorted(first) == list(range(16)) and first != sorted(first)
    assert again == (2 * first)[:24]


def test_a_layer_on_another_pooling_takes_the_place_of_the_one_that_was_there():
    made = making.make_checkpoint(heads=draw_whitening())
    found = whiten_on(made, draw_squares(16), fit=find_fit("copies"))
    assert {key: tuple(weight.shape) for key, weight in found.heads.items()} == {
        "whitening.res4-rmac3.weight": (4, 48),
        "whitening.res4-rmac3.bias": (4,),
    }


def test_whitening_spreads_the_embeddings_of_different_pictures(tmp_path):
    squares = draw_squares(256)
    made = making.make_checkpoint()
    write_checkpoint(made, tmp_path / "plain.safetensors")
    write_checkpoint(whiten_on(made, squares), tmp_path / "whitened.safetensors")
    pixels = [square.pixels.repeat(5, 0).repeat(5, 1)[:224, :224] for square in squares[:40]]

    def measure(name: str) -> float:
        rows = open_backbone(str(tmp_path / name), device=DEVICE).embed(pixels)
        return float(np.median((rows @ rows.T)[np.triu_indices(len(rows), 1)]))

    assert measure("plain.safetensors") > 0.9
    assert abs(measure("whitened.safetensors")) < 0.3


def test_bad_pictures_are_passed_over():
    squares = draw_squares(20)
    holes = [None, *squares[:7], None, None, *squares[7:], None]
    made = making.make_checkpoint()
    found, expected = (whiten_on(made, given).heads for given in (holes, squares))
    making.assert_same_weights(found, expected)


def test_when_most_pictures_are_gone_nothing_is_fitted():
    squares = [*draw_squares(10), *[None] * 10]
    with pytest.raises(TrainingError, match="10 of 20 pictures cannot be read any more"):
        whiten_on(making.make_checkpoint(), squares)


def test_a_model_in_half_precision_is_whitened_too():
    made = making.make_checkpoint()
    halved = replace(made, trunk={key: weight.half() for key, weight in made.trunk.items()})
    found = whiten_on(halved, draw_squares(300)).heads["whitening.weight"]
    full = whiten_on(made, draw_squares(300)).heads["whitening.weight"]
    assert (found.T @ found - full.T @ full).norm() < 0.05 * (full.T @ full).norm()


def test_what_is_whitened_is_what_the_backbone_puts_in(tmp_path):
    """With a layer that changes nothing."""
    unchanged = {"whitening.weight": torch.eye(WIDTH), "whitening.bias": torch.zeros(WIDTH)}
    made = making.make_checkpoint(heads=unchanged)
    write_checkpoint(made, tmp_path / "m.safetensors")
    squares = draw_squares(3, side_px=222)
    squares = [Square(np.pad(square.pixels, ((1, 1), (1, 1), (0, 0)), "edge"), 1.0) for square in squares]
    rows = open_backbone(str(tmp_path / "m.safetensors"), device=DEVICE).embed([square.pixels for square in squares])
    network = build_network(made).eval().to(DEVICE)
    kind = replace(whitening.WHOLE, flip=0)
    maps = whitening.read_maps(network, squares, kind, torch.Generator().manual_seed(0), THERE)
    found = pool_maps(maps, UNNAMED)[:, 0].cpu()
    np.testing.assert_allclose(found.numpy() / 2**0.5, rows, atol=1e-5)  # of two parts of length 1


def test_one_that_is_told_to_stop_gives_nothing():
    made, squares, asked = making.make_checkpoint(), draw_squares(40), []
    assert whiten_on(made, squares, should_stop=lambda: asked.append(1)) is not None
    assert len(asked) == 3  # batches
    assert whiten_on(made, squares, should_stop=lambda: True) is None


# How it is kept and used


@pytest.fixture
def whitened(tmp_path) -> tuple[Checkpoint, str]:
    # With a projection, too: what stands beside the whitening must not be taken for what it stands on.
    heads = making.make_projection_heads()
    heads["projection.1.running_var"] = heads["projection.1.running_var"].abs()
    made = making.make_checkpoint(heads=heads | draw_whitening())
    write_checkpoint(made, tmp_path / "whitened.safetensors")
    return made, str(tmp_path / "whitened.safetensors")


def embed_plainly(made: Checkpoint, picture: np.ndarray) -> np.ndarray:
    """The formulas, in float64."""
    how, network = PREPROCESSINGS["vissl"], build_network(made).eval().double()
    x = torch.from_numpy((picture / 255.0 - how.mean) / how.std).permute(2, 0, 1)[None]
    with torch.inference_mode():
        maps = [stage_map[0].flatten(1).numpy() for stage_map in network.read_maps(x)[2:]]
        np.testing.assert_array_equal(maps[1], network(x)[0].flatten(1).numpy())
    means = [(cells**3).mean(1) ** (1 / 3) for cells in maps]
    pooled = np.concatenate([mean / np.linalg.norm(mean) for mean in means])
    weight, bias = (made.heads[f"whitening.{leaf}"].double().numpy() for leaf in ("weight", "bias"))
    row = weight @ pooled + bias
    return row / np.linalg.norm(row)


def test_a_whitened_model_embeds_by_the_formulas(whitened):
    made, path = whitened
    backbone = open_backbone(path, device=DEVICE)
    pictures = [square.pixels for square in draw_squares(3)]
    for picture, row in zip(pictures, backbone.embed(pictures), strict=True):
        np.testing.assert_allclose(row, embed_plainly(made, picture), atol=1e-5)
    described = backbone.describe()
    assert (described["output"], described["dimension"]) == ("res4-res5-gem3-whitened-l2", WIDTH)


def test_an_open_whitened_model_does_without_its_file(whitened):
    _, path = whitened
    backbone, pictures = open_backbone(path, device=DEVICE), [square.pixels for square in draw_squares(2)]
    before = backbone.embed(pictures)
    os.truncate(path, 0)
    assert np.array_equal(backbone.embed(pictures), before)


def test_a_whitening_kept_in_half_precision_gives_the_rows_of_its_fingerprint(whitened, tmp_path):
    _, path = whitened
    halved, whole = tmp_path / "half.safetensors", tmp_path / "whole.safetensors"
    convert_checkpoint(path, halved, is_half=True)
    kept = read_checkpoint(halved)
    trunk, heads = ({key: weight.float() for key, weight in part.items()} for part in (kept.trunk, kept.heads))
    write_checkpoint(replace(kept, trunk=trunk, heads=heads), whole)
    first, other = (open_backbone(str(name), device=DEVICE) for name in (halved, whole))
    assert first.fingerprint == other.fingerprint
    pictures = [square.pixels for square in draw_squares(2)]
    assert np.array_equal(first.embed(pictures), other.embed(pictures))


def test_a_map_without_a_direction_is_no_embedding(tmp_path):
    made = making.make_checkpoint(heads=draw_whitening())
    dead = {key: torch.zeros_like(weight) if ".3.0." in key else weight for key, weight in made.trunk.items()}
    assert any(".3.0." in key for key in dead)
    write_checkpoint(replace(made, trunk=dead), tmp_path / "dead.safetensors")
    rows = open_backbone(str(tmp_path / "dead.safetensors"), device=DEVICE).embed([draw_squares(1)[0].pixels])
    assert np.isnan(rows).all()


def test_another_whitening_is_another_space_and_the_projection_is_not_concerned(whitened, tmp_path):
    made, path = whitened
    other = str(tmp_path / "other.safetensors")
    write_checkpoint(replace(made, heads=made.heads | draw_whitening(seed=5)), other)
    assert open_backbone(path, device=DEVICE).fingerprint != open_backbone(other, device=DEVICE).fingerprint
    projected = [open_backbone(f"{name}#projection", device=DEVICE) for name in (path, other)]
    assert projected[0].fingerprint == projected[1].fingerprint
    assert projected[0].dimension == 4


def test_a_conversion_without_heads_keeps_the_whitening(whitened, tmp_path):
    made, path = whitened
    convert_checkpoint(path, tmp_path / "bare.safetensors", is_half=True, has_heads=False)
    heads = read_checkpoint(tmp_path / "bare.safetensors").heads
    assert {key: weight.dtype for key, weight in heads.items()} == {
        "whitening.weight": torch.float16,
        "whitening.bias": torch.float32,
    }
    torch.testing.assert_close(heads["whitening.weight"].float(), made.heads["whitening.weight"], atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("heads", "reason"),
    [
        ({"whitening.weight": torch.zeros(64, WIDTH)}, "'whitening.bias' is missing"),
        ({"whitening.bias": torch.zeros(64)}, "'whitening.weight' is missing"),
        (draw_whitening(width=64), r"'whitening.weight' has the shape \(64, 64\); expected \(64, 112\)"),
    ],
)
def test_a_whitening_that_does_not_fit_is_named(heads, reason, tmp_path):
    with pytest.raises(CheckpointError, match=reason):
        write_checkpoint(making.make_checkpoint(heads=heads), tmp_path / "wrong.safetensors")
