"""A backbone's rows: right, of length 1, and the same wherever a picture stands in a batch."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from seer_model.backbone import Backbone, _prepare_network, choose_device, open_backbone
from seer_model.checkpoint import Checkpoint, build_network, read_checkpoint, write_checkpoint
from seer_model.devices import list_devices, read_cuda_version
from seer_model.errors import CheckpointError, DeviceError, ModelMissing, ModelUnknown, SettingsError
from seer_model.preprocess import PREPROCESSINGS
from seer_model.zoo import BUNDLED_WEIGHTS, MODELS
from tests.device import DEVICE
from tests.seer_model import making_weights as making


@pytest.fixture(scope="module")
def weights_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    write_checkpoint(making.make_checkpoint(), path)
    return path


@pytest.fixture(scope="module")
def backbone(weights_path) -> Backbone:
    return open_backbone(str(weights_path), device=DEVICE, batch_size=4)


def draw_pictures(count: int, *, height: int = 64, width: int = 64, seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return list(generator.integers(0, 256, (count, height, width, 3), dtype=np.uint8))


def embed_plainly(checkpoint: Checkpoint, picture: np.ndarray) -> np.ndarray:
    """One picture through the network as it was read: normalisations not folded, batch of one, float64."""
    how = PREPROCESSINGS["vissl"]
    x = torch.from_numpy((picture / 255.0 - how.mean) / how.std).permute(2, 0, 1)[None]
    network = build_network(checkpoint).eval().double()
    with torch.inference_mode():
        row = network(x).mean((2, 3))[0].numpy()
    return row / np.linalg.norm(row)


def test_rows_are_those_of_the_network_as_it_was_read(backbone, weights_path):
    pictures = draw_pictures(3)
    expected = [embed_plainly(read_checkpoint(weights_path), picture) for picture in pictures]
    rows = backbone.embed(pictures)
    assert rows.dtype == np.float32
    assert rows.shape == (3, backbone.dimension)
    assert float((rows * expected).sum(1).min()) > 1 - 1e-5
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("model", ["tiny", "seer-mini"])
def test_a_row_depends_on_its_picture_only_to_the_last_bit(model, weights_path):
    backbone = open_backbone(str(weights_path) if model == "tiny" else model, device=DEVICE, batch_size=4)
    one, *others = draw_pictures(9, height=96, width=96)
    alone = backbone.embed([one])[0]
    for place in range(9):
        row = backbone.embed([*others[:place], one, *others[place:]])[place]
        assert np.array_equal(row, alone), f"at place {place}"
    neighbours = draw_pictures(3, height=96, width=96, seed=7)
    assert np.array_equal(backbone.embed([neighbours[0], one, *neighbours[1:]])[1], alone)


def test_pictures_of_several_shapes_come_back_in_their_order(backbone):
    pictures = [
        picture
        for wide, tall, square in zip(
            draw_pictures(5, width=96), draw_pictures(5, height=96, seed=1), draw_pictures(5, seed=2), strict=True
        )
        for picture in (wide, tall, square)
    ]
    together = backbone.embed(pictures)
    for row, picture in zip(together, pictures, strict=True):
        assert np.array_equal(row, backbone.embed([picture])[0])


def watch_network(backbone: Backbone, monkeypatch: pytest.MonkeyPatch, look: Callable) -> None:
    """Let somebody look at what the network is given, just before it is."""
    read_maps = backbone._network.read_maps
    monkeypatch.setattr(backbone._network, "read_maps", lambda x: (look(x), read_maps(x))[1])


def test_every_batch_has_the_one_padded_shape(backbone, monkeypatch):
    shapes = []
    watch_network(backbone, monkeypatch, lambda x: shapes.append(tuple(x.shape)))
    backbone.embed([*draw_pictures(5), *draw_pictures(1, width=96)])
    assert shapes == [(4, 3, 64, 64), (4, 3, 64, 64), (4, 3, 64, 96)]


def test_no_picture_makes_no_rows(backbone):
    assert backbone.embed([]).shape == (0, backbone.dimension)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_a_row_that_cannot_be_brought_to_length_1_is_not_a_number(value, tmp_path):
    checkpoint = making.make_checkpoint()
    for part in ("c", "shortcut"):
        checkpoint.trunk[f"stages.3.0.{part}.norm.weight"].fill_(0)
        checkpoint.trunk[f"stages.3.0.{part}.norm.bias"].fill_(value)
    write_checkpoint(checkpoint, tmp_path / "model.safetensors")
    rows = open_backbone(str(tmp_path / "model.safetensors"), device=DEVICE).embed(draw_pictures(2))
    assert np.isnan(rows).all()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_gives_nearly_the_same_rows(precision, backbone, weights_path):
    other = open_backbone(str(weights_path), device=DEVICE, precision=precision, batch_size=4)
    pictures = draw_pictures(4)
    cosines = (other.embed(pictures) * backbone.embed(pictures)).sum(1)
    assert float(cosines.min()) > 0.999
    assert not np.array_equal(other.embed(pictures), backbone.embed(pictures))


# What it stands on


@pytest.mark.parametrize("save", ["ours", "timm bin", "hugging face"])
def test_an_open_backbone_does_without_its_file(save, tmp_path):
    """A mapped weight would follow whoever writes into the file, and kill the process when it is cut."""
    if not sys.platform.startswith("linux"):
        pytest.skip("what a process has mapped can be listed on Linux only")
    path = making.SAVERS[save][0](making.make_checkpoint(), tmp_path / "weights.file")
    backbone = open_backbone(str(path), device=DEVICE)
    assert str(path) not in Path("/proc/self/maps").read_text()
    before = backbone.embed(draw_pictures(1))
    os.truncate(path, 0)
    assert np.array_equal(backbone.embed(draw_pictures(1)), before)


def test_in_a_batch_cudnn_is_on_and_tf32_off_whatever_was_set(backbone, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    seen = []

    def look(_: torch.Tensor) -> None:
        seen.append((torch.backends.cudnn.enabled, torch.backends.cudnn.allow_tf32))

    watch_network(backbone, monkeypatch, look)
    backbone.embed(draw_pictures(1))
    assert seen == [(True, False)]
    assert not torch.backends.cudnn.allow_tf32, "set back, it would be on under another thread's batch"


def test_pictures_and_weights_have_one_memory_layout(backbone, weights_path, monkeypatch):
    """Else every convolution brings the one into the other's; channels-last is the faster of the two."""
    inputs = []
    watch_network(backbone, monkeypatch, inputs.append)
    backbone.embed(draw_pictures(1))
    network = _prepare_network(read_checkpoint(weights_path), torch.device(DEVICE), torch.float32)
    weights = [weight for weight in network.parameters() if weight.ndim == 4]
    assert weights and all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in [*inputs, *weights])


# Fingerprint


def test_equal_fingerprints_mean_comparable_rows(backbone, weights_path, tmp_path):
    for options in ({"batch_size": 2}, {"precision": "bf16"}):
        assert open_backbone(str(weights_path), device=DEVICE, **options).fingerprint == backbone.fingerprint
    making.save_vissl(read_checkpoint(weights_path), tmp_path / "vissl.torch")
    assert open_backbone(str(tmp_path / "vissl.torch"), device=DEVICE).fingerprint == backbone.fingerprint


def test_weights_kept_in_half_precision_give_the_rows_of_their_fingerprint(tmp_path):
    half = {key: weight.bfloat16() for key, weight in making.make_checkpoint().trunk.items()}
    for name, trunk in (("half", half), ("whole", {key: weight.float() for key, weight in half.items()})):
        write_checkpoint(Checkpoint(architecture=making.TINY, trunk=trunk, heads={}, layout="made"), tmp_path / name)
    first, other = (open_backbone(str(tmp_path / name), device=DEVICE) for name in ("half", "whole"))
    assert first.fingerprint == other.fingerprint
    assert np.array_equal(first.embed(draw_pictures(2)), other.embed(draw_pictures(2)))


@pytest.mark.parametrize("key", ["stem.conv.weight", "stages.2.1.c.norm.running_var", "stages.3.0.squeeze.expand.bias"])
def test_another_weight_is_another_fingerprint(key, backbone, weights_path, tmp_path):
    checkpoint = read_checkpoint(weights_path)
    changed = checkpoint.trunk[key].clone()
    changed.view(-1)[0] += 1e-3
    trunk = checkpoint.trunk | {key: changed}
    changed_path = tmp_path / "changed.safetensors"
    write_checkpoint(Checkpoint(architecture=making.TINY, trunk=trunk, heads={}, layout="made"), changed_path)
    assert open_backbone(str(changed_path), device=DEVICE).fingerprint != backbone.fingerprint


def test_another_preprocessing_is_another_fingerprint(weights_path):
    how = {"device": DEVICE}
    prints = {open_backbone(str(weights_path), preprocessing=name, **how).fingerprint for name in PREPROCESSINGS}
    assert len(prints) == len(PREPROCESSINGS)


def test_a_head_changes_nothing_that_the_rows_depend_on(backbone, weights_path, tmp_path):
    made = making.make_checkpoint(heads=making.make_projection_heads())
    write_checkpoint(made, tmp_path / "headed.safetensors")
    assert open_backbone(str(tmp_path / "headed.safetensors"), device=DEVICE).fingerprint == backbone.fingerprint


# The projection as the embedding


def project_plainly(heads: dict[str, torch.Tensor], pooled: np.ndarray) -> np.ndarray:
    """Linear, normalisation, ReLU, linear: the formulas, in float64."""
    weight = {key.removeprefix("projection."): value.double().numpy() for key, value in heads.items()}
    hidden = weight["0.weight"] @ pooled + weight["0.bias"]
    hidden = (hidden - weight["1.running_mean"]) / np.sqrt(weight["1.running_var"] + 1e-5)
    row = weight["3.weight"] @ np.maximum(hidden * weight["1.weight"] + weight["1.bias"], 0)
    return row / np.linalg.norm(row)


@pytest.fixture(scope="module")
def headed(tmp_path_factory) -> tuple[Checkpoint, str]:
    heads = making.make_projection_heads()
    heads["projection.1.running_var"] = heads["projection.1.running_var"].abs()
    made = making.make_checkpoint(heads=heads)
    return made, str(making.save_vissl(made, tmp_path_factory.mktemp("vissl") / "headed.torch"))


def test_the_projection_of_a_published_file_makes_the_embedding(headed):
    checkpoint, path = headed
    backbone, pictures = open_backbone(f"{path}#projection", device=DEVICE), draw_pictures(3)
    network = build_network(checkpoint).eval().double()
    how = PREPROCESSINGS["vissl"]
    for picture, row in zip(pictures, backbone.embed(pictures), strict=True):
        x = torch.from_numpy((picture / 255.0 - how.mean) / how.std).permute(2, 0, 1)[None]
        with torch.inference_mode():
            pooled = network(x).mean((2, 3))[0].numpy()
        np.testing.assert_allclose(row, project_plainly(checkpoint.heads, pooled), atol=1e-5)
    assert backbone.dimension == 4
    described = backbone.describe()
    assert (described["output"], described["dimension"]) == ("projection-l2", 4)


def test_rows_of_the_projection_and_of_the_pooled_map_are_never_taken_for_comparable(headed, tmp_path):
    checkpoint, path = headed
    pooled, projected = (open_backbone(path + end, device=DEVICE) for end in ("", "#projection"))
    assert pooled.fingerprint != projected.fingerprint
    for key, is_seen in (("projection.3.weight", True), ("prototypes.0.weight", False)):
        heads = checkpoint.heads | {key: checkpoint.heads[key] + 1}
        other = making.save_vissl(making.make_checkpoint(heads=heads), tmp_path / "other.torch")
        found = open_backbone(f"{other}#projection", device=DEVICE).fingerprint
        assert (found != projected.fingerprint) == is_seen


def test_a_model_without_a_projection_says_that_it_has_none(weights_path):
    with pytest.raises(CheckpointError, match="no projection.*leave #projection out"):
        open_backbone(f"{weights_path}#projection", device=DEVICE)


# The bundled model


FINGERPRINT = "a5082d01af28121c164533b30071d9e20a7cd73e7448b43c525e3280f2b2e27d"
"""Of the bundled model: when it changes, every collection made with it has to be embedded anew."""
MOST_BYTES = 24_000_000


def test_the_bundled_model_is_the_one_that_collections_were_made_with():
    backbone = open_backbone(device=DEVICE)
    assert backbone.fingerprint == FINGERPRINT
    entry = MODELS["seer-mini"]
    assert (backbone.dimension, backbone.preprocessing.name) == (entry.dimension, entry.preprocessing)


def test_the_bundled_weights_are_small_and_bring_a_whitening_and_the_heads_to_go_on_with():
    checkpoint = read_checkpoint(BUNDLED_WEIGHTS)
    assert BUNDLED_WEIGHTS.stat().st_size <= MOST_BYTES
    assert {key.split(".")[0] for key in checkpoint.heads} == {"whitening", "projection", "prototypes"}
    kernels = {weight.dtype for weight in (checkpoint.trunk | checkpoint.heads).values() if weight.ndim > 1}
    assert kernels == {torch.float16}
    assert open_backbone(device=DEVICE).describe()["output"] == "res4-res5-gem3-whitened-l2"
    assert open_backbone("seer-mini#projection", device=DEVICE).dimension == 128


def test_an_installation_without_the_bundled_weights_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("seer_model.zoo.BUNDLED_WEIGHTS", tmp_path / "gone.safetensors")
    with pytest.raises(ModelMissing, match="Install seer again"):
        open_backbone(device=DEVICE)


def test_the_bundled_model_finds_copies_of_photos(photos_folder):
    """A tenth of the measured claim, for every day: halved at JPEG quality 30, and mirrored, among 120 photos."""
    import io

    from PIL import Image, ImageOps

    from seer_model.pictures import open_picture
    from seer_model.preprocess import prepare

    backbone = open_backbone(device=DEVICE)
    short_side_px = backbone.preprocessing.short_side_px

    def read(data: bytes) -> np.ndarray:
        return prepare(open_picture(data, short_side_px=short_side_px).pixels, backbone.preprocessing)

    def edit(data: bytes, change) -> bytes:
        edited = io.BytesIO()
        change(Image.open(io.BytesIO(data))).save(edited, "JPEG", quality=30)
        return edited.getvalue()

    photos = [path.read_bytes() for path in sorted(photos_folder.glob("*.jpg"))[:120]]
    rows = backbone.embed([read(photo) for photo in photos])
    for change, at_least in ((lambda photo: photo.reduce(2), 10), (ImageOps.mirror, 9)):
        queries = backbone.embed([read(edit(photo, change)) for photo in photos[::12]])
        found = (queries @ rows.T).argmax(1) == np.arange(0, 120, 12)
        assert int(found.sum()) >= at_least


# Settings and devices


def test_a_description_can_be_kept_as_json(backbone):
    described = json.loads(json.dumps(backbone.describe()))
    assert described["fingerprint"] == backbone.fingerprint
    assert described["dimension"] == 64
    assert described["output"] == "res5-avgpool-l2"
    assert described["preprocessing"]["resize_px"] == 256


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"precision": "fp8"}, "fp32, bf16, fp16"),
        ({"batch_size": 0}, "batch size is 0"),
        ({"preprocessing": "imagenet"}, "vissl-finetuned"),
        ({"device": "tpu"}, "auto, cpu, cuda and cuda:N"),
        ({"device": "cuda:x"}, "auto, cpu, cuda and cuda:N"),
        ({"device": "cpu:1"}, "auto, cpu, cuda and cuda:N"),
    ],
)
def test_a_setting_outside_its_range_is_refused_with_what_is_allowed(options, named):
    with pytest.raises(SettingsError, match=named):
        open_backbone(**options)


def test_a_device_that_is_not_there_is_a_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="no CUDA device that torch can use"):
        open_backbone(device="cuda")
    assert choose_device("auto") == torch.device("cpu")
    assert len(list_devices()) == 1
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert read_cuda_version() == "12.8"


def test_devices_are_counted_from_0(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(DeviceError, match=r"'cuda:2' is not there.*2 CUDA device"):
        choose_device("cuda:2")


def test_an_unknown_model_is_refused_before_any_weights_are_made():
    with pytest.raises(ModelUnknown):
        open_backbone("seer-minni")


def test_importing_the_backbone_leaves_torchs_threads_alone():
    code = "import torch; n = torch.get_num_threads(); import seer_model.backbone; assert torch.get_num_threads() == n"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
