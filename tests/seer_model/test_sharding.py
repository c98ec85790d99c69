"""Steps on two ranks, copied or cut in parts, are the steps of one; what is saved is whole and goes on anywhere."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from seer_model.errors import CheckpointError
from seer_model.optimizer import Larc, OptimizerSettings
from seer_model.ranks import Ranks
from seer_model.recompute import recompute_blocks
from seer_model.regnet import Architecture, RegNet
from seer_model.sharding import (
    gather_optimizer,
    gather_weights,
    replicate,
    scatter_optimizer,
    scatter_weights,
    shard,
    whole_norms,
)
from seer_model.sync_norm import synchronise_norms
from tests.seer_model.two_ranks import run_in_two_ranks

ARCHITECTURE = Architecture(depths=(1, 1, 2, 1), widths=(8, 8, 16, 16), group_widths=(8,) * 4)
LAYOUTS = ("replicated", "sharded")
EXACT = {"rtol": 1e-8, "atol": 1e-10}
STATE = tuple[dict[str, Tensor], dict[str, Tensor]]


class Student(nn.Module):
    """A trunk, and a head with a normalisation and prototypes whose count no two ranks can share evenly."""

    def __init__(self, seed: int = 0, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.trunk = RegNet(ARCHITECTURE, generator=torch.Generator().manual_seed(seed))
        self.head = nn.Sequential(nn.Linear(16, 12, bias=False), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 7))
        self.prototypes = nn.ModuleList([nn.Linear(7, 5, bias=False)])
        self.to(dtype)

    def forward(self, groups: list[Tensor]) -> Tensor:
        pooled = torch.cat([self.trunk(group).mean((2, 3)) for group in groups])
        return self.prototypes[0](F.normalize(self.head(pooled), dim=1))


class Run:
    """A student in training on one rank, or on some."""

    def __init__(
        self,
        ranks: Ranks,
        layout: str,
        *,
        recompute: bool = False,
        dtype: torch.dtype = torch.float64,
        precision: torch.dtype | None = None,
    ) -> None:
        # Each rank has other weights and statistics: they must all start with the first one's.
        student = Student(ranks.rank, dtype).to(memory_format=torch.channels_last)
        for buffer in student.buffers():
            buffer.add_(ranks.rank)
        synchronise_norms(student, ranks.make_groups(0))
        if recompute:
            recompute_blocks(student.trunk)
        if layout == "sharded":
            shard(student, ranks, precision=precision)
        self.student, self.ranks, self.dtype = student, ranks, dtype
        self.network = student if layout == "sharded" else replicate(student, ranks)
        settings = OptimizerSettings(rate=300, weight_decay=1e-3)
        self.optimizer = Larc(student.parameters(), settings, measure=whole_norms)

    def take_steps(self, first: int, last: int, autocast: torch.dtype | None = None) -> None:
        for step in range(first, last):
            self.optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
                scores = self.network(self.cut_crops(step))
            # Not alike in all crops and prototypes, and each rank's is the mean over its own crops.
            (scores.to(self.dtype).exp() * torch.arange(5)).mean().backward()
            if step == 0:
                self.student.prototypes.zero_grad(set_to_none=True)
            self.optimizer.step()
            weight = self.student.prototypes[0].weight
            with torch.no_grad():
                weight.copy_(F.normalize(weight, dim=1))

    def cut_crops(self, step: int) -> list[Tensor]:
        """Four pictures a rank and two sizes of crops; alone, those of two ranks."""
        ranks = (self.ranks.rank,) if self.ranks.count > 1 else (0, 1)
        drawn = [torch.Generator().manual_seed(100 * step + rank) for rank in ranks]
        return [
            torch.cat([torch.randn(4, 3, side, side, generator=one, dtype=self.dtype) for one in drawn])
            for side in (64, 32)
        ]

    def gather(self) -> STATE:
        return gather_weights(self.network, self.ranks), gather_optimizer(self.network, self.optimizer, self.ranks)

    def scatter(self, weights: dict[str, Tensor], remembered: dict[str, Tensor]) -> None:
        scatter_weights(self.network, weights, self.ranks)
        scatter_optimizer(self.network, self.optimizer, remembered, self.ranks)


def alone() -> Ranks:
    return Ranks(device=torch.device("cpu"))


def train(ranks: Ranks, layout: str, *, last: int = 2, recompute: bool = False, start: STATE | None = None) -> STATE:
    run = Run(ranks, layout, recompute=recompute)
    if start:
        # The other ranks have nothing to give.
        run.scatter(*(start if ranks.is_first else ({}, {})))
    run.take_steps(1 if start else 0, last)
    return run.gather()


@pytest.fixture(scope="module")
def one_step() -> STATE:
    return train(alone(), "alone", last=1)


@pytest.fixture(scope="module")
def two_steps() -> STATE:
    return train(alone(), "alone")


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_steps_of_two_ranks_are_those_of_one(layout, recompute, two_steps):
    (weights, remembered), others = run_in_two_ranks(train, layout, recompute=recompute)
    assert others == ({}, {})
    start = Student().state_dict()
    assert list(weights) == list(start)
    assert all((weights[key] - start[key]).abs().max() > 1e-4 for key in weights), "everything has moved"
    torch.testing.assert_close(weights, two_steps[0], **EXACT)
    torch.testing.assert_close(remembered, two_steps[1], **EXACT)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_run_goes_on_with_other_ranks_than_it_was_saved_with(layout, one_step, two_steps):
    assert "prototypes.0.weight.momentum_buffer" not in one_step[1], "frozen in the first step"
    for expected, found in zip(two_steps, run_in_two_ranks(train, layout, start=one_step)[0], strict=True):
        torch.testing.assert_close(found, expected, **EXACT)
    saved = run_in_two_ranks(train, layout, last=1)[0]
    for expected, found in zip(two_steps, train(alone(), "alone", start=saved), strict=True):
        torch.testing.assert_close(found, expected, **EXACT)


def test_what_is_gathered_is_a_copy(one_step):
    run = Run(alone(), "alone")
    run.take_steps(0, 1)
    saved = run.gather()
    run.take_steps(1, 2)
    torch.testing.assert_close(saved, one_step, rtol=0, atol=0)


def refuse(ranks: Ranks, layout: str) -> list[str]:
    run = Run(ranks, layout)
    run.take_steps(0, 1)
    weights, remembered = run.gather()
    bad = torch.zeros(2, 2)
    return [
        *(read_refusal(lambda one=one: scatter_weights(run.network, one, ranks)) for one in spoil(weights, bad)),
        *(
            read_refusal(lambda one=one: scatter_optimizer(run.network, run.optimizer, one, ranks))
            for one in ({"nobody.weight.momentum_buffer": bad}, {"prototypes.0.weight.momentum_buffer": bad})
        ),
    ]


def spoil(weights: dict[str, Tensor], bad: Tensor) -> Iterator[dict[str, Tensor]]:
    yield {name: weight for name, weight in weights.items() if name != "trunk.stem.conv.weight"}
    yield weights | {"trunk.stem.conv.weight": bad}
    yield weights | {"nobody.weight": bad}


def read_refusal(attempt) -> str:
    try:
        attempt()
    except CheckpointError as error:
        return str(error)
    return "taken"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_does_not_fit_is_refused_on_every_rank(layout):
    first, second = run_in_two_ranks(refuse, layout)
    for lacking, misshapen, strange, *of_optimizer in (first,):
        assert "'trunk.stem.conv.weight' has the shape of nothing, expected is (32, 3, 3, 3)" in lacking
        assert "'trunk.stem.conv.weight' has the shape (2, 2), expected is (32, 3, 3, 3)" in misshapen
        assert "'nobody.weight' has the shape (2, 2), expected is no such name" in strange
        assert "'nobody.weight.momentum_buffer' has the shape (2, 2), expected is no such name" in of_optimizer[0]
        assert "'prototypes.0.weight.momentum_buffer' has the shape (2, 2), expected is (5, 7)" in of_optimizer[1]
    assert first == second


def read_statistics(ranks: Ranks, layout: str) -> dict[str, Tensor]:
    run = Run(ranks, layout)
    run.take_steps(0, 1)
    return dict(run.student.named_buffers())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_rank_has_the_same_statistics(layout, one_step):
    for statistics in run_in_two_ranks(read_statistics, layout):
        torch.testing.assert_close(statistics, {name: one_step[0][name] for name in statistics}, **EXACT)


# --- what a rank holds -------------------------------------------------------------------------------------------


def look_inside(ranks: Ranks) -> dict:
    run = Run(ranks, "sharded", dtype=torch.float32, precision=torch.bfloat16, recompute=True)
    seen: list[torch.dtype] = []
    for module in (run.student.trunk.stages[2][0].b.conv, run.student.trunk.stages[2][0].b.norm, run.student.head[0]):
        module.register_forward_hook(lambda module, *_: seen.append(module.weight.dtype))
    elements = sum(parameter.to_local().numel() for parameter in run.student.parameters())
    run.take_steps(0, 1, torch.bfloat16)
    gradients = [parameter.grad for parameter in run.student.trunk.parameters()]
    return {
        "parts": all(isinstance(parameter, DTensor) for parameter in run.student.parameters()),
        "share": elements / sum(parameter.numel() for parameter in run.student.parameters()),
        "together": seen[:2] + seen[-1:],
        "gradients": {gradient.dtype for gradient in gradients},
        "weights": gather_weights(run.network, ranks),
    }


def test_a_rank_holds_half_and_only_convolutions_come_together_in_half_precision():
    first, second = run_in_two_ranks(look_inside)
    for found in (first, second):
        assert found["parts"] and found["share"] == pytest.approx(0.5, abs=0.05)
        assert found["together"] == [torch.bfloat16, torch.float32, torch.float32]
        assert found["gradients"] == {torch.float32}
    assert {weight.dtype for weight in first["weights"].values()} == {torch.float32, torch.int64}
    run = Run(alone(), "alone", dtype=torch.float32)
    run.take_steps(0, 1, torch.bfloat16)
    for name, weight in run.gather()[0].items():
        close = float(F.cosine_similarity(first["weights"][name].float().flatten(), weight.float().flatten(), dim=0))
        assert close > 0.98, name


def start_from_nothing(ranks: Ranks, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    with torch.device("meta"):
        student = Student()
    shard(student, ranks)
    scatter_weights(student, weights if ranks.is_first else {}, ranks)
    with torch.no_grad():
        student.eval()([torch.ones(2, 3, 32, 32, dtype=torch.float64)])
    return gather_weights(student, ranks)


def test_a_network_that_no_rank_could_hold_gets_its_weights_from_the_first(one_step):
    found, nothing = run_in_two_ranks(start_from_nothing, one_step[0])
    torch.testing.assert_close(found, one_step[0], rtol=0, atol=0)
    assert not nothing


def go_back_and_on(ranks: Ranks) -> STATE:
    run = Run(ranks, "sharded")
    run.take_steps(0, 1)
    saved = run.gather()
    run.take_steps(1, 3)
    with torch.no_grad():
        # After this some weights are still together, and not what the optimizer knows.
        run.network.eval()(run.cut_crops(7))
    run.network.train()
    remembered = gather_optimizer(run.network, run.optimizer, ranks)
    assert len(remembered) == (len(run.optimizer.state) if ranks.is_first else 0)
    run.scatter(*saved)
    run.take_steps(1, 2)
    return run.gather()


def test_nothing_is_left_of_steps_that_were_taken_back(two_steps):
    for expected, found in zip(two_steps, run_in_two_ranks(go_back_and_on)[0], strict=True):
        torch.testing.assert_close(found, expected, **EXACT)


def overflow(ranks: Ranks, layout: str) -> tuple[float, list[bool]]:
    run = Run(ranks, layout, dtype=torch.float32)
    run.take_steps(0, 1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024)
    scaler.scale(run.network(run.cut_crops(1)).square().mean()).backward()
    gradient = run.student.trunk.stem.conv.weight.grad
    if layout == "replicated":
        gradient[0] = torch.inf
    elif ranks.rank == 1:
        gradient.to_local()[0] = torch.inf
    before = [parameter.detach().clone() for parameter in run.student.parameters()]
    scaler.unscale_(run.optimizer)
    scaler.step(run.optimizer)
    scaler.update()
    pairs = zip(run.student.parameters(), before, strict=True)
    return scaler.get_scale(), [torch.equal(*map(take_part, pair)) for pair in pairs]


def take_part(tensor: Tensor) -> Tensor:
    return tensor.detach().to_local() if isinstance(tensor, DTensor) else tensor.detach()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_overflow_in_one_part_stops_the_step_of_all(layout):
    for scale, unmoved in run_in_two_ranks(overflow, layout):
        assert scale == 512 and all(unmoved)


# --- norms -------------------------------------------------------------------------------------------------------


def measure(ranks: Ranks) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    run = Run(ranks, "sharded", dtype=torch.float32)
    run.take_steps(0, 1)
    parts = {name: parameter.detach() for name, parameter in run.student.named_parameters()}
    parts |= {f"{name}.grad": p.grad for name, p in run.student.named_parameters() if p.grad is not None}
    together = {name: part.full_tensor() for name, part in parts.items()}
    # One that is not sharded, whose norm must not be counted once for each rank.
    parts["plain"] = together["plain"] = torch.full((3,), 2.0)
    one_by_one = {name: whole_norms([part])[0] for name, part in parts.items()}
    return together, one_by_one, dict(zip(parts, whole_norms(list(parts.values())), strict=True))


def test_a_norm_is_that_of_the_whole_tensor():
    for together, one_by_one, at_once in run_in_two_ranks(measure):
        assert {"trunk.stem.conv.weight.grad", "prototypes.0.weight", "plain"} < together.keys()
        expected = {name: tensor.norm() for name, tensor in together.items()}
        torch.testing.assert_close(one_by_one, expected)
        torch.testing.assert_close(at_once, expected)
        torch.testing.assert_close(whole_norms(list(together.values())), torch.stack(list(expected.values())))


def test_the_norm_of_a_tensor_in_half_precision_does_not_overflow():
    assert whole_norms([torch.full((4,), 60000.0, dtype=torch.float16)]).item() == 120000


def test_alone_nothing_is_wrapped():
    student = Student()
    kinds = [type(module) for module in student.modules()]
    shard(student, alone())
    assert replicate(student, alone()) is student
    assert [type(module) for module in student.modules()] == kinds
