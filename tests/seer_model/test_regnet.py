"""The network against the published counts, against its own folded form, and the numbers that once failed to load."""

import pytest
import torch

from seer_model.errors import SettingsError
from seer_model.regnet import ARCHITECTURES, Architecture, RegNet, generate_architecture, name_architecture
from tests.seer_model.making_weights import TINY, make_network

# spec/seer.md, 1.3: exact where the page is exact, else rounded to a thousand.
PARAMETERS = {
    "200MF": 2_794_000,
    "400MF": 3_903_000,
    "600MF": 5_446_000,
    "800MF": 5_494_000,
    "1.6GF": 10_313_000,
    "3.2GF": 17_923_000,
    "4GF": 19_558_000,
    "6.4GF": 29_286_000,
    "8GF": 37_163_000,
    "12GF": 49_582_000,
    "16GF": 80_565_000,
    "32GF": 141_333_770,
    "64GF": 276_457_786,
    "128GF": 637_419_894,
    "256GF": 1_272_156_138,
    "256GF-classy": 821_051_000,
    "10B": 9_323_934_872,
}
DIMENSIONS = {
    "200MF": 368,
    "400MF": 440,
    "600MF": 608,
    "800MF": 768,
    "1.6GF": 888,
    "3.2GF": 1512,
    "4GF": 1088,
    "6.4GF": 1296,
    "8GF": 2016,
    "12GF": 2240,
    "16GF": 3024,
    "32GF": 3712,
    "64GF": 4920,
    "128GF": 7392,
    "256GF": 10444,
    "256GF-classy": 5088,
    "10B": 28280,
}


@pytest.mark.parametrize("size", ARCHITECTURES)
def test_every_size_has_the_parameters_of_the_specification(size):
    with torch.device("meta"):
        network = RegNet(ARCHITECTURES[size])
    count = sum(parameter.numel() for parameter in network.parameters())
    is_exact = PARAMETERS[size] % 1000 != 0
    assert (count if is_exact else round(count, -3)) == PARAMETERS[size]
    assert ARCHITECTURES[size].dimension == DIMENSIONS[size]


def test_widths_groups_and_depths_are_those_of_the_table():
    size = ARCHITECTURES["256GF"]
    assert size.depths == (2, 7, 17, 1)
    assert size.widths == (746, 1492, 4103, 10444)
    assert size.group_widths == (373,) * 4
    assert ARCHITECTURES["256GF-classy"].group_widths == (640, 848, 848, 848)
    assert ARCHITECTURES["1.6GF"].widths == (48, 120, 336, 888)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("32GF", ((8, 58), (58, 174), (174, 348), (348, 928))),
        ("256GF", ((8, 186), (186, 373), (373, 1026), (1026, 2611))),
        ("10B", ((8, 505), (505, 1010), (1010, 2778), (2778, 7070))),
    ],
)
def test_squeeze_widths_follow_the_input_and_round_half_to_even(size, expected):
    for depth, widths, (first, later) in zip(
        ARCHITECTURES[size].depths, ARCHITECTURES[size].squeeze_widths, expected, strict=True
    ):
        assert widths == (first, *[later] * (depth - 1))


def test_a_size_is_named_by_its_numbers_and_an_unknown_one_is_not():
    assert name_architecture(generate_architecture(27, 640, 230.83, 2.53, 373)) == "256GF"
    assert name_architecture(TINY) is None


@pytest.mark.parametrize(("side", "expected"), [(224, 7), (96, 3), (160, 5)])
def test_the_feature_map_is_a_32nd_of_the_picture(side, expected):
    with torch.inference_mode():
        assert make_network()(torch.zeros(1, 3, side, side)).shape == (1, 64, expected, expected)


def test_a_folded_network_equals_the_one_it_was():
    network, x = make_network(), torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        before = network(x)
        network.fold_norms()
        after = network(x)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    torch.testing.assert_close(after, before, atol=1e-5 * float(before.abs().max()), rtol=0)


def test_fresh_weights_are_drawn_as_the_published_runs_drew_them():
    network = RegNet(ARCHITECTURES["800MF"], generator=torch.Generator().manual_seed(0))
    grouped = network.stages[2][1].b.conv.weight
    assert float(grouped.detach().std()) == pytest.approx((2 / (9 * 320)) ** 0.5, rel=0.02)
    wide = network.stages[3][0].c.conv.weight
    assert float(wide.detach().std()) == pytest.approx((2 / 768) ** 0.5, rel=0.02)


def test_a_generator_makes_fresh_weights_repeatable_and_another_seed_makes_others():
    first, again, other = (
        RegNet(TINY, generator=torch.Generator().manual_seed(seed)).state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["stem.conv.weight"], other["stem.conv.weight"])


def test_numbers_that_make_no_network_are_refused():
    with pytest.raises(SettingsError, match="width 20 is not a multiple of its group width 8"):
        Architecture(depths=(1, 1, 1, 1), widths=(16, 20, 24, 32), group_widths=(8, 8, 8, 8))
    with pytest.raises(SettingsError, match="4 stages"):
        Architecture(depths=(1, 1), widths=(16, 24), group_widths=(8, 8))
    with pytest.raises(SettingsError, match="do not fit the depths"):
        Architecture(
            depths=(1, 1, 1, 2), widths=(8,) * 4, group_widths=(8,) * 4, squeeze_widths=((2,), (2,), (2,), (2,))
        )
    with pytest.raises(SettingsError, match="1 or more"):
        Architecture(depths=(1, 1, 1, 0), widths=(8,) * 4, group_widths=(8,) * 4)
