"""One process alone, and processes that meet: what they tell each other, and how they find their device."""

import os
import re
import subprocess
import sys
import time

import pytest
import torch
import torch.distributed as dist

from seer_model import ranks as ranks_of_a_run
from seer_model.errors import DeviceError, RankLost, SettingsError, TrainingError, UserError
from seer_model.ranks import Ranks, choose_device, join_ranks
from tests.seer_model.two_ranks import RankFailed, run_in_ranks, run_in_two_ranks


def alone() -> Ranks:
    return Ranks(device=torch.device("cpu"))


def tell_each_other(ranks: Ranks) -> dict:
    own = torch.tensor([[1.0, 5.0], [2.0, 0.0]]).T * (ranks.rank + 1)
    kept = own.clone()
    told = {
        "sum": ranks.sum_over(own),
        "max": ranks.max_over(torch.tensor([ranks.rank, -ranks.rank])),
        "one says so": ranks.any_over(ranks.rank == 1),
        "nobody says so": ranks.any_over(False),
        "first": ranks.share_first({"step": ranks.rank + 7}),
        "is first": ranks.is_first,
        "stacked": ranks.stack_over(own),
        "united": [ranks.unite_over(numbers) for numbers in ({ranks.rank, 5}, set(), {7} if ranks.rank else set())],
        "gradient": ranks.sum_over(own.requires_grad_()).requires_grad,
    }
    ranks.barrier()
    assert torch.equal(own, kept), "the argument is not changed"
    return told


def test_what_ranks_tell_each_other_is_the_same_on_all():
    first, second = run_in_two_ranks(tell_each_other)
    assert first.pop("is first") and not second.pop("is first")
    for told in (first, second):
        assert torch.equal(told.pop("sum"), torch.tensor([[3.0, 15.0], [6.0, 0.0]]).T)
        one = torch.tensor([[1.0, 5.0], [2.0, 0.0]]).T
        assert torch.equal(told.pop("stacked"), torch.stack([one, 2 * one]))
        assert told.pop("united") == [{0, 1, 5}, set(), {7}]
        assert told.pop("max").tolist() == [1, 0]
        assert told == {"one says so": True, "nobody says so": False, "first": {"step": 7}, "gradient": False}


def test_alone_there_is_nobody_to_speak_to(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_ranks("cpu") as ranks:
        assert ranks == alone() and ranks.is_first
        assert not dist.is_initialized()
        tensor = torch.arange(3.0)
        assert torch.equal(ranks.sum_over(tensor), tensor) and ranks.sum_over(tensor) is not tensor
        assert ranks.any_over(True) and not ranks.any_over(False)
        assert ranks.share_first("a") == "a"
        assert torch.equal(ranks.stack_over(tensor), tensor[None]) and ranks.unite_over({3}) == {3}
        assert ranks.make_groups(0) is None and ranks.make_groups(1) is None
        ranks.barrier()


def sum_in_groups(ranks: Ranks, size: int) -> float | None:
    group = ranks.make_groups(size)
    own = torch.tensor(float(10**ranks.rank))
    if group is None:
        return None
    dist.all_reduce(own, group=group)
    return own.item()


def test_ranks_split_into_groups_of_neighbours():
    assert run_in_ranks(4, sum_in_groups, 2) == [11, 11, 1100, 1100]
    assert run_in_two_ranks(sum_in_groups, 0) == run_in_two_ranks(sum_in_groups, 2) == [11, 11]
    assert run_in_two_ranks(sum_in_groups, 1) == [None, None]


@pytest.mark.parametrize("size", [-2, 4, 5, 12])
def test_groups_that_do_not_fit_are_refused(size):
    with pytest.raises(SettingsError, match=f"6 ranks do not split into groups of {size}"):
        Ranks(device=torch.device("cpu"), count=6).make_groups(size)


def fail_in_second(ranks: Ranks) -> None:
    if ranks.rank == 1:
        raise ValueError("the second rank is ill")
    ranks.barrier()


def leave_the_group(ranks: Ranks) -> bool:
    ranks.barrier()  # Who leaves at once may be gone before the other has come.
    return dist.is_initialized()


def test_a_failure_of_one_rank_comes_back_and_the_next_group_meets():
    with pytest.raises(RankFailed, match="the second rank is ill|In rank 0"):
        run_in_two_ranks(fail_in_second)
    assert run_in_two_ranks(leave_the_group) == [True, True]


# --- the first acts ----------------------------------------------------------------------------------------------


def let_first(ranks: Ranks, does: str) -> object:
    acted = []

    def act() -> str:
        acted.append(does)
        for _ in range(3):
            ranks.keep_waiting()
        if does == "refuses":
            raise SettingsError("The folder is taken.")
        return "done"

    try:
        answer = ranks.let_first(act)
    except UserError as error:
        answer = (type(error), str(error))
    return len(acted), answer, ranks.share_first(7)


def test_the_first_acts_and_all_hear_its_answer_or_its_refusal():
    assert run_in_two_ranks(let_first, "acts") == [(1, "done", 7), (0, "done", 7)]
    first, other = (SettingsError, "The folder is taken."), (TrainingError, "The folder is taken.")
    assert run_in_two_ranks(let_first, "refuses") == [(1, first, 7), (0, other, 7)]
    assert let_first(alone(), "acts") == (1, "done", 7)


# --- one is lost -------------------------------------------------------------------------------------------------


def wait_for_one_that_is_silent(ranks: Ranks, folder: str, in_group: bool) -> str:
    ranks.barrier()
    dist.destroy_process_group()
    try:
        with join_ranks("cpu", rendezvous=f"file://{folder}/again", patience_seconds=2) as again:
            group = again.make_groups(0) if in_group else None
            if again.is_first:
                dist.all_reduce(torch.ones(1), group=group)
            time.sleep(4)
    except RankLost as error:
        return str(error)
    return "nothing was said"


@pytest.mark.parametrize(
    "in_group", [pytest.param(False, id="of all", marks=pytest.mark.long), pytest.param(True, id="of a group")]
)
def test_patience_with_a_silent_rank_ends_with_a_sentence(tmp_path, in_group):
    said, nothing = run_in_two_ranks(wait_for_one_that_is_silent, str(tmp_path), in_group)
    assert re.search(r"Rank 0 of 2 .* waited 2 seconds for it: Timed out .*\. What was saved stays\. .*--resume", said)
    assert "third_party" not in said and nothing == "nothing was said"


def test_what_is_no_loss_of_a_peer_keeps_its_traceback():
    assert not ranks_of_a_run._is_of_peers(RuntimeError("Sizes of tensors must match"))
    assert not ranks_of_a_run._is_of_peers(torch.OutOfMemoryError("CUDA out of memory"))
    assert ranks_of_a_run._is_of_peers(dist.DistNetworkError("The client socket has timed out"))


@pytest.mark.parametrize(("given", "launch"), [(None, ""), ("none", ""), ("shoes", "shoes")])
def test_a_run_has_the_name_that_torchrun_was_given(monkeypatch, given, launch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    if given:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", given)
    assert ranks_of_a_run._read_launch() == launch


# --- torchrun ----------------------------------------------------------------------------------------------------

MEETING = """
import os, pathlib, sys, time, torch
from seer_model.ranks import join_ranks
start, rank = os.environ["TORCHELASTIC_RESTART_COUNT"], os.environ["RANK"]
if start == "1" and rank == "1":
    time.sleep(2)  # Until the other has looked for it, and found where it was.
with join_ranks("cpu") as ranks:
    total = ranks.sum_over(torch.ones(1)).item()
    pathlib.Path(sys.argv[1], f"{ranks.rank} of {ranks.count}").write_text(str(total))
    if start == "0" and rank == "1":
        os._exit(1)
    ranks.sum_over(torch.ones(1))
assert not torch.distributed.is_initialized()
"""


def test_torchrun_starts_ranks_that_meet_and_meet_again_when_one_has_died(tmp_path):
    script, answers = tmp_path / "meet.py", tmp_path / "answers"
    script.write_text(MEETING)
    answers.mkdir()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    done = subprocess.run(
        [*torchrun, "--max-restarts", "1", str(script), str(answers)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_text() for path in answers.iterdir()} == {"0 of 2": "2.0", "1 of 2": "2.0"}


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE='two', where torchrun puts a whole number"),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "RANK=None, where torchrun puts"),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "0", "RANK": "2"}, "RANK is 2 and WORLD_SIZE 2"),
    ],
)
def test_an_environment_that_torchrun_did_not_make_is_refused(monkeypatch, environment, message):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    with pytest.raises(SettingsError, match=message), join_ranks("cpu"):
        pass


@pytest.mark.parametrize(
    ("name", "local_rank", "gpus", "expected"),
    [
        ("auto", None, 0, "cpu"),
        ("auto", 1, 0, "cpu"),
        ("auto", 1, 2, "cuda:1"),
        ("auto", None, 2, "cuda"),
        ("cuda", 0, 1, "cuda:0"),
        ("cuda:1", None, 2, "cuda:1"),
        ("cpu", 3, 2, "cpu"),
    ],
)
def test_each_rank_takes_the_gpu_of_its_number(monkeypatch, name, local_rank, gpus, expected):
    pretend_gpus(monkeypatch, gpus)
    assert choose_device(name, local_rank=local_rank) == torch.device(expected)


def pretend_gpus(monkeypatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_a_rank_without_a_gpu_is_told_so(monkeypatch):
    pretend_gpus(monkeypatch, 2)
    with pytest.raises(DeviceError, match="'cuda:2' is not there: this computer has 2 CUDA .* Start fewer processes"):
        choose_device("auto", local_rank=2)
    with pytest.raises(SettingsError, match="each rank has a GPU of its own"):
        choose_device("cuda:1", local_rank=0)
    with pytest.raises(SettingsError, match="allowed are auto, cpu, cuda"):
        choose_device("tpu")
