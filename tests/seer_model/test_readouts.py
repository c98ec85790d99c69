"""The readouts that a model can be opened with: each by its formula in float64, none comparable with another."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from seer_model.backbone import compute_fingerprint, open_backbone
from seer_model.checkpoint import Checkpoint, build_network, read_checkpoint, write_checkpoint
from seer_model.errors import CheckpointError, ModelUnknown
from seer_model.outputs import POOLINGS, READOUTS, Asked, Output, read_asked
from seer_model.poolings import list_squares
from seer_model.preprocess import PREPROCESSINGS
from seer_model.readout import Readout, choose_output, list_readouts
from tests.device import DEVICE
from tests.seer_model import making_weights as making

STAGES = {name: (0, 1) if name == "gem-both" else (0,) if name.endswith("res4") else (1,) for name in POOLINGS}
"""Of the last two, those that a pooling reads; by hand."""
WIDTHS = making.TINY.widths[-2:]


def draw_pictures(count: int, side_px: int = 64) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, side_px, side_px, 3), dtype=np.uint8))


def draw_layer(pooling: str, numbers: int = 6) -> dict[str, torch.Tensor]:
    """A whitening on a pooling, of random numbers."""
    generator = torch.Generator().manual_seed(4)
    name = "whitening." if pooling == "gem-both" else f"whitening.{POOLINGS[pooling].spelled}."
    width = sum(WIDTHS[stage] for stage in STAGES[pooling])
    shapes = {f"{name}weight": (numbers, width), f"{name}bias": (numbers,)}
    return {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def save(made: Checkpoint, path) -> str:
    write_checkpoint(made, path)
    return str(path)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> tuple[Checkpoint, str]:
    heads = making.make_projection_heads()
    heads["projection.1.running_var"] = heads["projection.1.running_var"].abs()
    made = making.make_checkpoint(heads=heads)
    return made, save(made, tmp_path_factory.mktemp("tiny") / "tiny.safetensors")


def read_maps(made: Checkpoint, x: torch.Tensor) -> list[np.ndarray]:
    """(C, h, w) of the last two stages, in float64, of the network as it was read."""
    with torch.inference_mode():
        return [one[0].numpy() for one in build_network(made).eval().double().read_maps(x)[-2:]]


def make_input(picture: np.ndarray) -> torch.Tensor:
    how = PREPROCESSINGS["vissl"]
    return torch.from_numpy((picture / 255.0 - how.mean) / how.std).permute(2, 0, 1)[None]


def unit(row: np.ndarray) -> np.ndarray:
    return row / np.linalg.norm(row)


def pool_plainly(name: str, maps: list[np.ndarray]) -> list[np.ndarray]:
    """Rows of a pooling: one, or one for each square."""
    maps = [maps[stage] for stage in STAGES[name]]
    if name.startswith("average"):
        return [unit(maps[0].mean((1, 2)))]
    if name.startswith("gem"):
        return [np.concatenate([unit((one**3).mean((1, 2)) ** (1 / 3)) for one in maps])]
    squares = list_squares(*maps[0].shape[1:])
    return [unit(maps[0][:, top : top + side, left : left + side].max((1, 2))) for top, left, side in squares]


def embed_plainly(made: Checkpoint, name: str, x: torch.Tensor, layer: dict | None = None) -> np.ndarray:
    rows = pool_plainly(name, read_maps(made, x))
    if layer:
        weight, bias = (one.double().numpy() for one in layer.values())
        rows = [unit(weight @ row + bias) for row in rows]
    return unit(sum(rows))


@pytest.mark.parametrize("name", POOLINGS)
def test_a_pooling_is_read_by_its_formula(tiny, name):
    made, path = tiny
    backbone, pictures = open_backbone(f"{path}#{name}", device=DEVICE), draw_pictures(2)
    rows = backbone.embed(pictures)
    expected = [embed_plainly(made, name, make_input(picture)) for picture in pictures]
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    assert backbone.dimension == list_readouts(made)[name] == sum(WIDTHS[stage] for stage in STAGES[name])


@pytest.mark.parametrize("name", ["rmac-res4", "gem", "gem-both"])
def test_a_layer_is_put_on_what_its_name_says_and_squares_are_whitened_before_they_are_summed(tiny, name, tmp_path):
    layer = draw_layer(name)
    made = replace(tiny[0], heads=tiny[0].heads | layer)
    backbone = open_backbone(save(made, tmp_path / "m.safetensors"), device=DEVICE)
    picture = draw_pictures(1)[0]
    expected = embed_plainly(made, name, make_input(picture), layer)
    np.testing.assert_allclose(backbone.embed([picture])[0], expected, atol=1e-5)
    described = backbone.describe()
    assert (described["output"], described["dimension"]) == (f"{POOLINGS[name].spelled}-whitened-l2", 6)
    # By name the model is read without the layer.
    plain = open_backbone(f"{tmp_path / 'm.safetensors'}#{name}", device=DEVICE)
    assert plain.fingerprint == open_backbone(f"{tiny[1]}#{name}", device=DEVICE).fingerprint


def test_several_sizes_are_the_mean_of_the_rows_of_each(tiny):
    made, path = tiny
    backbone, picture = open_backbone(f"{path}#rmac+scales", device=DEVICE, batch_size=1), draw_pictures(1)[0]
    x, rows = make_input(picture), []
    for side in (45, 64, 90):  # 0.7, 1 and 1.4 times 64
        resized = torch.nn.functional.interpolate(x, size=(side, side), mode="bilinear", antialias=True)
        rows.append(embed_plainly(made, "rmac", resized))
    np.testing.assert_allclose(backbone.embed([picture])[0], unit(sum(rows)), atol=1e-5)
    assert backbone.describe()["output"] == "res5-rmac3-x0.7-x1-x1.4-l2"
    assert np.abs(rows[1] - unit(sum(rows))).max() > 1e-3


def test_no_two_readouts_are_taken_for_comparable(tiny):
    made, how = tiny[0], PREPROCESSINGS["vissl"]
    layer = draw_layer("rmac-res4")
    layers = {}, layer, {key: 2 * weight for key, weight in layer.items()}
    several = [replace(made, heads=made.heads | layer) for layer in layers]
    names = [Asked(name, is_scaled) for name in (None, *READOUTS) for is_scaled in (False, True)]
    prints = {
        (number, asked): compute_fingerprint(one, how, choose_output(one.heads, asked))
        for number, one in enumerate(several) for asked in names
    }  # fmt: skip
    # Of one trunk each named readout is the same, whatever layer stands beside it; so is what a plain model is itself.
    assert len(set(prints.values())) == 2 * len(READOUTS) + 2 * 2
    assert prints[0, Asked()] == prints[2, Asked("average")] == open_backbone(tiny[1], device=DEVICE).fingerprint


def test_names_of_outputs_are_those_that_stand_in_collections():
    written = [str(Output(pooling=POOLINGS[name])) for name in ("average", "gem-both", "rmac-res4")]
    assert written == ["res5-avgpool-l2", "res4-res5-gem3-l2", "res4-rmac3-l2"]
    assert str(Output(pooling=POOLINGS["average"], layer="projection")) == "projection-l2"
    assert str(Output(pooling=POOLINGS["gem-both"], layer="whitened")) == "res4-res5-gem3-whitened-l2"


@pytest.mark.parametrize("text", ["rmax", "rmac+gem", "scales+rmac", "rmac+", "+scales", "rmac+scales+scales", ""])
def test_a_readout_that_is_not_known_is_not_guessed_at(text):
    assert read_asked(text) is None


def test_one_that_is_not_known_is_refused_with_those_that_are():
    with pytest.raises(ModelUnknown, match="no readout 'copies'.*average.*rmac-res4, projection.*scales.*seer whiten"):
        open_backbone("seer-mini#copies", device=DEVICE)


def test_what_is_known_is_read():
    assert read_asked("scales") == Asked(None, is_scaled=True)
    assert read_asked("gem+scales") == Asked("gem", is_scaled=True)


@pytest.mark.parametrize("layered", [False, True], ids=["plain", "whitened"])
def test_a_square_in_which_nothing_is_adds_nothing_and_a_map_of_nothing_has_no_direction(layered):
    layer = draw_layer("rmac-res4")
    output = Output(pooling=POOLINGS["rmac-res4"], layer="whitened" if layered else "")
    readout = Readout(making.make_checkpoint(heads=layer), output)
    squares = torch.rand(2, 3, WIDTHS[0])
    squares[0, 1], squares[1] = 0, 0
    rows = readout.join(squares)
    torch.testing.assert_close(rows[0], readout.join(squares[:1, [0, 2]])[0])
    assert rows[1].isnan().all()


def test_a_file_says_in_the_names_of_its_weights_what_its_layer_stands_on(tmp_path):
    layer = draw_layer("rmac-res4")
    path = save(making.make_checkpoint(heads=layer), tmp_path / "m.safetensors")
    making.assert_same_weights(read_checkpoint(path).heads, layer)
    assert {*layer} == {"whitening.res4-rmac3.weight", "whitening.res4-rmac3.bias"}


@pytest.mark.parametrize(
    ("heads", "reason"),
    [
        (draw_layer("rmac-res4") | draw_layer("gem"), "2 whitenings, res4-rmac3 and res5-gem3; one is allowed"),
        ({"whitening.res9-best.weight": torch.zeros(4, 48)}, "stands on 'res9-best'.*res4-rmac3. Update the program"),
        ({"whitening.res4-rmac3.weight": torch.zeros(6, 64)}, r"res4-rmac3.weight' has the shape \(6, 64\).*\(6, 48\)"),
    ],
)
def test_a_layer_that_cannot_be_read_is_not_guessed_at(heads, reason, tmp_path):
    with pytest.raises(CheckpointError, match=reason):
        write_checkpoint(making.make_checkpoint(heads=heads), tmp_path / "wrong.safetensors")
