"""The benchmarks of the embedding job: whoever is measured beside us embeds as we do, and who is absent is named.

No speed is asserted.
"""

import builtins
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import embedding, flat_memory, job, nothing_new, operations, training_memory
from benchmarks.ceilings import Copy, Layer, count_work, join_ceilings
from benchmarks.embedders import (
    Setting,
    draw_pictures,
    measure_agreement,
    measure_apart,
    open_network,
    require_agreement,
)
from benchmarks.large_pictures import make_large
from benchmarks.memory import list_tree, sampling, take_sample
from benchmarks.peers import TRANSFORMERS, Absent, make_peer, normalise_for, run_peer
from benchmarks.plain_job import PictureFiles, resize_and_cut
from benchmarks.race import Round
from benchmarks.seer_command import CommandFailed, read_result, run_to_end, start
from seer_model.backbone import open_backbone
from seer_model.checkpoint import write_checkpoint
from seer_model.preprocess import PREPROCESSINGS, prepare
from seer_model.presets import find_preset
from seer_model.regnet import ARCHITECTURES, Architecture, RegNet
from tests.indexer.making import build, draw
from tests.seer_model import making_weights
from tests.seer_model.making_pictures import make_scene

CPU = torch.device("cpu")
SMALL = Architecture(depths=(1, 2, 1, 1), widths=(16, 24, 48, 64), group_widths=(8, 8, 8, 8))
"""As transformers can have it: one group width for all stages."""
OTHERS = ("timm", "torchvision")


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A small model, without a whitening."""
    path = tmp_path / "small.safetensors"
    write_checkpoint(making_weights.make_checkpoint(SMALL), path)
    return str(path)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A computer without the libraries that no test needs, even where they are installed."""
    load = builtins.__import__

    def refuse(name: str, *given: object, **more: object) -> object:
        if name.partition(".")[0] in OTHERS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.partition(".")[0])
        return load(name, *given, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)


def run(command, *given: object) -> dict:
    done = CliRunner().invoke(command, [*map(str, given), "--json"])
    assert done.exit_code == 0, done.output + done.stderr
    return json.loads(done.stdout)


# --- the network -------------------------------------------------------------------------------------------------


def embed_both(setting: Setting) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of the same pictures: ours, and those of transformers' network."""
    checkpoint, backbone = open_network(setting)
    how, pixels = backbone.preprocessing, torch.from_numpy(draw_pictures(backbone.batch_size, 224))
    pictures = normalise_for(TRANSFORMERS, pixels, torch.tensor(how.mean), torch.tensor(how.std))
    theirs = run_peer(make_peer(TRANSFORMERS, checkpoint, CPU), TRANSFORMERS, pictures)
    return backbone.embed_ready(pixels), theirs


def test_the_peer_embeds_as_we_do_from_one_map_or_whitened_from_two(model: str, tmp_path: Path):
    generator = torch.Generator().manual_seed(0)
    shapes = {"whitening.weight": (12, sum(SMALL.widths[-2:])), "whitening.bias": (12,)}
    heads = {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    whitened = str(tmp_path / "whitened.safetensors")
    write_checkpoint(making_weights.make_checkpoint(SMALL, heads=heads), whitened)
    for given, dimension in ((model, 64), (whitened, 12)):
        ours, theirs = embed_both(Setting(model=given, device=CPU, batch_size=3))
        assert ours.shape == theirs.shape == (3, dimension)
        assert measure_agreement(ours, theirs) > 0.99999


def test_random_weights_tell_pictures_apart_so_that_a_peer_that_embeds_otherwise_is_seen():
    ours, theirs = embed_both(Setting(model="200MF", device=CPU, batch_size=3))
    assert measure_agreement(ours, theirs) > 0.99999
    assert measure_agreement(ours, theirs.roll(1, 0)) < measure_apart(ours) < 0.99
    with pytest.raises(Absent, match="its embeddings are others"):
        require_agreement(measure_agreement(ours, theirs.roll(1, 0)))
    with pytest.raises(Absent, match="nan"):
        require_agreement(measure_agreement(ours, theirs * torch.nan))


def test_weights_that_are_made_in_seconds_give_embeddings_that_differ():
    _, backbone = open_network(Setting(model="200MF", device=CPU, batch_size=3, is_alone=True))
    rows = backbone.embed_ready(torch.from_numpy(draw_pictures(3, 224)))
    assert rows.isfinite().all() and measure_apart(rows) < 0.9999


def test_who_cannot_be_compiled_is_told_and_the_others_are_measured(model: str, alone: None, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no compiler\nand more")

    monkeypatch.setattr("benchmarks.ceilings.SIZES", {"cpu": ((256, 256, 256),)})
    monkeypatch.setattr("benchmarks.ceilings.TRIAL_SECONDS", 0.01)
    monkeypatch.setattr(torch, "compile", refuse)
    given = ("--model", model, "--device", "cpu", "--batch-size", 2, "--rounds", 1, "--steps", 1)
    report = run(embedding.main, *given, "--compiled")
    assert report["absent"]["ours, compiled"] == "no compiler"
    assert set(report["rounds"]) == {"ours", "GEMM", TRANSFORMERS.name}


def test_the_memory_of_a_step_is_tried_both_ways_and_what_does_not_fit_is_told(monkeypatch):
    small = replace(find_preset("tiny"), batch_size=4, picture_px=32)
    monkeypatch.setattr(training_memory, "choose_recipe", lambda name, batch_size: small)
    report = run(training_memory.main, "--preset", "tiny", "--device", "cpu", "--steps", 1)
    assert [(one["recompute"], one["outcome"]) for one in report["tried"]] == [(False, "fits"), (True, "fits")]
    assert all(one["images_per_second"] > 0 and one["memory_bytes"] is None for one in report["tried"])

    def fall_short(*_: object) -> None:
        raise torch.OutOfMemoryError("2 GiB short")

    monkeypatch.setattr(training_memory, "start_learner", fall_short)
    report = run(training_memory.main, "--preset", "tiny", "--device", "cpu", "--steps", 1)
    assert {one["outcome"] for one in report["tried"]} == {"does not fit"}
    assert "does not fit" in training_memory.show_report(report)


def test_what_is_timed_is_what_the_backbone_does(model: str):
    pixels = draw_pictures(4, 224)
    backbone = open_network(Setting(model=model, device=CPU, batch_size=4))[1]
    assert np.array_equal(backbone.embed_ready(torch.from_numpy(pixels)).numpy(), backbone.embed(list(pixels)))


def test_a_shape_that_the_library_does_not_have_is_told():
    with pytest.raises(Absent, match="another shape"):
        make_peer(TRANSFORMERS, making_weights.make_checkpoint(making_weights.TINY), CPU)


def test_the_work_of_a_network_is_that_of_the_published_one():
    # Multiply-adds of the trunk at 224 px, as the RegNet paper and the SEER weights' cards state them.
    for size, giga in (("800MF", 0.8), ("32GF", 32.3), ("64GF", 64.2)):
        assert count_work(ARCHITECTURES[size], 224, 1, torch.half).flops / 2e9 == pytest.approx(giga, rel=0.01)


def test_the_work_of_a_network_is_what_torch_counts_and_its_maps_are_read_once_and_written_once():
    work = count_work(SMALL, 64, 8, torch.half)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network = RegNet(SMALL).eval()
        network(torch.zeros(1, 3, 64, 64))
    assert work.flops == counter.get_total_flops()
    stem = network.stem.conv.weight
    assert work.layers[0].bytes == 2 * (3 * 64 * 64 + len(stem) * 32 * 32 + stem.numel() / 8)
    # The first grouped one: 16 maps in groups of 8, from 32 px to 16.
    grouped = Layer(flops=2 * 16 * 16 * 16 * 8 * 9, bytes=2 * (16 * 32 * 32 + 16 * 16 * 16 + 16 * 8 * 9 / 8))
    assert grouped in work.layers
    # Of the weights each picture has its part.
    kernels = sum(weight.numel() for weight in network.parameters() if weight.ndim == 4)
    assert count_work(SMALL, 64, 1, torch.half).bytes - work.bytes == pytest.approx(2 * kernels * 7 / 8)


def test_layer_by_layer_a_ceiling_is_as_low_as_the_lower_one_of_both(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("benchmarks.ceilings.COPIED_BYTES", 1 << 20)
    work = count_work(SMALL, 64, 8, torch.half)
    copies = [Copy(CPU, work).take_round(2)]
    # Whole copies, as many as come nearest to two batches: 16 pictures.
    assert copies[0].images * work.bytes / (2 << 20) == pytest.approx(2 * round(8 * work.bytes / (2 << 20)))
    endless = Round(images=1e12, seconds=1e-6)
    assert join_ceilings(work, [endless], copies)[0].rate == pytest.approx(copies[0].rate)
    assert join_ceilings(work, copies, [endless])[0].rate == pytest.approx(copies[0].rate)
    # With equal rates some layers wait for the products, others for the copies.
    assert join_ceilings(work, copies, copies)[0].rate < 0.99 * copies[0].rate


def test_a_profile_says_where_the_time_of_a_batch_goes(model: str):
    report = run(operations.main, "--model", model, "--device", "cpu", "--batch-size", 2, "--steps", 2)
    told = report["operations"]
    assert report["images"] == 2 and report["busy_share"] is None and not report["kernels"]
    assert 0 < sum(one["share"] for one in told) <= 1.001
    assert [one["seconds"] for one in told] == sorted((one["seconds"] for one in told), reverse=True)
    (stem,) = [one for one in told if "convolution" in one["name"] and "[2, 3, 224, 224]" in one["shapes"]]
    assert stem["calls"] == 1
    assert stem["name"] in operations.show_report(report)


def test_a_training_step_is_profiled_too_and_one_of_both_is_asked_for(model: str):
    report = run(operations.main, "--preset", "tiny", "--device", "cpu", "--batch-size", 4, "--steps", 1)
    assert any("backward" in one["name"] for one in report["operations"])
    for given in ([], ["--model", model, "--preset", "tiny"]):
        assert "Name one of" in CliRunner().invoke(operations.main, given).output


def test_the_time_of_a_gpu_is_that_of_its_kernels_and_a_name_given_to_some_is_none():
    def make(key: str, device: str, microseconds: float, *, is_given: bool = False) -> SimpleNamespace:
        return SimpleNamespace(
            key=key, count=4, input_shapes=[[2, 3], []], device_type=SimpleNamespace(name=device),
            self_device_time_total=microseconds, self_cpu_time_total=1.0, is_user_annotation=is_given,
        )  # fmt: skip

    events = [
        make("aten::conv", "CPU", 600), make("aten::add", "CPU", 0),
        make("small", "CUDA", 200), make("large", "CUDA", 400), make("step", "CUDA", 600, is_given=True),
    ]  # fmt: skip
    large, small = operations.list_kernels(events, 2)
    assert (large.name, large.calls, small.share) == ("large", 2, pytest.approx(1 / 3))
    assert large.seconds == pytest.approx(200e-6)
    (only,) = operations.list_operations(events, 2, on_gpu=True)
    assert (only.name, only.shapes, only.share) == ("aten::conv", "[[2, 3]]", 1)
    assert len(operations.list_operations(events, 2, on_gpu=False)) == 2


def test_the_command_prints_ratios_agreement_and_who_is_absent(model: str, alone: None, monkeypatch):
    monkeypatch.setattr("benchmarks.ceilings.SIZES", {"cpu": ((256, 256, 256), (512, 256, 256))})
    monkeypatch.setattr("benchmarks.ceilings.TRIAL_SECONDS", 0.01)
    report = run(embedding.main, "--model", model, "--device", "cpu", "--batch-size", 2, "--rounds", 1, "--steps", 1)
    assert set(report["rounds"]) == {"ours", "GEMM", TRANSFORMERS.name}
    ours, theirs = (report["rounds"][name][0]["images_per_second"] for name in ("ours", TRANSFORMERS.name))
    assert report["ratios"][f"ours / {TRANSFORMERS.name}"]["median"] == pytest.approx(ours / theirs)
    assert report["agreement"][TRANSFORMERS.name] > 0.99999
    assert report["absent"]["timm, fp32"] == "timm is not installed"
    assert report["absent"]["torchvision, fp32"] == "torchvision is not installed"
    text = embedding.show_report(report)
    assert "absent: timm is not installed" in text and "ours / GEMM" in text


# --- the whole job -----------------------------------------------------------------------------------------------


def test_the_script_prepares_a_picture_as_we_do(tmp_path: Path):
    how, picture = PREPROCESSINGS["vissl"], make_scene(331, 287)
    ours, theirs = prepare(picture, how), np.asarray(resize_and_cut(picture, how))
    assert np.abs(ours.astype(int) - theirs).max() <= 1
    picture.save(tmp_path / "one.png")
    values = PictureFiles([tmp_path / "one.png"], how)[0]
    expected = normalise_for(TRANSFORMERS, torch.tensor(theirs[None]), torch.tensor(how.mean), torch.tensor(how.std))
    torch.testing.assert_close(values, expected[0])


@pytest.mark.long
def test_the_job_is_measured_beside_the_script_and_gives_the_same_embeddings(tmp_path: Path, model: str):
    for number in range(3):
        draw(tmp_path / "photos" / f"{number}.png", number)
    given = ("--pictures", tmp_path / "photos", "--model", model, "--device", "cpu", "--workers", 1, "--rounds", 1)
    report = run(job.main, *given, "--limit", 2)
    assert report["pictures"] == 2 and report["agreement"]["least"] > 0.9999
    rates = {name: rounds[0]["images_per_second"] for name, rounds in report["rounds"].items()}
    assert report["ratios"]["ours / script"]["median"] == pytest.approx(rates["ours"] / rates["script"])
    decoding, network = rates["decoding alone, ours"], rates["network alone, ours"]
    assert rates[job.CEILING] == pytest.approx(1 / (1 / decoding + 1 / network))
    assert min(report["start_seconds"]["ours"] + report["start_seconds"]["script"]) > 0
    assert "ours / both parts combined" in job.show_report(report)


def test_a_picture_that_is_taken_again_has_the_same_pixels_and_other_bytes(tmp_path: Path):
    make_scene(120, 90).save(tmp_path / "one.jpg")
    again = job.repeat_pictures([tmp_path / "one.jpg"], 3)
    files = [tmp_path / "one.jpg", *again]
    assert len({file.read_bytes() for file in files}) == 3
    assert len({Image.open(file).tobytes() for file in files}) == 1


def test_a_job_with_cores_of_its_own_for_each_part_reaches_the_slower_one():
    parts = Round(images=10, seconds=1), Round(images=40, seconds=1)
    assert job.combine(*parts, is_shared=False).rate == pytest.approx(10)
    assert job.combine(*parts, is_shared=True).rate == pytest.approx(8)


def test_large_pictures_have_the_size_the_aspect_and_the_bytes_of_a_camera(tmp_path: Path):
    make_scene(120, 90).save(tmp_path / "small.jpg")
    (file,) = make_large([tmp_path / "small.jpg"], tmp_path / "large", 3)
    with Image.open(file) as picture:
        assert picture.size == (2000, 1500)
        again = np.asarray(picture.resize((120, 90))).astype(int)
    assert np.abs(again - np.asarray(make_scene(120, 90))).mean() < 4
    # Bits for each pixel: what enlarging gives has 0.2, a camera's JPEG of this quality 1.5 to 3.
    assert 1.2 < 8 * file.stat().st_size / 3e6 < 4


# --- nothing new -------------------------------------------------------------------------------------------------


def test_a_build_with_nothing_to_do_is_measured_beside_a_walk(tmp_path: Path, model: str):
    draw(tmp_path / "photos" / "one.png", 1)
    build(tmp_path / "collection", tmp_path / "photos", model=model)
    given = ("--pictures", tmp_path / "photos", "--collection", tmp_path / "collection", "--rounds", 1)
    report = run(nothing_new.main, *given)
    assert (report["files"], report["entries"]) == (1, 2)
    seconds = [rounds[0]["seconds"] for rounds in report["rounds"].values()]
    assert report["ratios"]["seer build, nothing new / find -printf"]["median"] == pytest.approx(
        seconds[0] / seconds[1]
    )
    assert report["peak_bytes"]["seer build, nothing new"] > 10 << 20


def test_a_build_with_something_to_do_is_refused(tmp_path: Path, model: str):
    draw(tmp_path / "photos" / "one.png", 1)
    report = build(tmp_path / "collection", tmp_path / "photos", model=model, limit=0)
    with pytest.raises(CommandFailed, match="'pending': 1"):
        nothing_new.require_nothing_new(run_to_end(["echo", json.dumps(report.describe())]))


def test_a_command_that_fails_is_told_with_what_it_said():
    with pytest.raises(CommandFailed, match="no such thing"):
        run_to_end(["sh", "-c", "echo no such thing >&2; exit 3"])


# --- memory ------------------------------------------------------------------------------------------------------


def test_the_memory_of_a_process_is_that_of_all_it_has_started():
    held = "import sys; x = bytearray(64 << 20); print(flush=True); sys.stdin.read()"
    parent = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    with start([sys.executable, "-c", parent, held], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert len(list_tree(process.pid)) == 2
        with sampling(process.pid, 60) as samples:
            pass
        for sample in (take_sample(process.pid), samples[0]):
            assert 64 << 20 < sample.pss <= sample.rss < 160 << 20 and sample.processes == 2
    assert take_sample(process.pid).processes == 0


@pytest.mark.long
def test_builds_that_go_on_from_one_another_are_told_by_the_images_that_are_in(tmp_path: Path, model: str, monkeypatch):
    monkeypatch.setattr(flat_memory, "PARTS", (4, 2))
    for number in range(4):
        draw(tmp_path / "photos" / f"{number}.png", number)
    report = run(flat_memory.main, "--pictures", tmp_path / "photos", "--model", model, "--device", "cpu")
    assert [(one["images"], one["embedded"]) for one in report["builds"]] == [(1, 1), (2, 1)]
    assert all(one["largest"]["pss"] > 50 << 20 for one in report["builds"])
    assert flat_memory.show_report(report).count(" of ") == 2


def test_the_result_of_a_build_is_its_last_line():
    assert read_result('something else\n{"images": 3}') == {"images": 3}


def test_a_backbone_of_a_file_is_the_one_that_is_measured(model: str):
    ours = open_network(Setting(model=model, device=CPU))[1]
    assert ours.fingerprint == open_backbone(model, device="cpu").fingerprint
