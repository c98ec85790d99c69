"""The terms of a query in the URL: what is spelled is read again, and what makes no sense counts as not given."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.collection import Region
from ui.terms import LEAST, MOST_TERMS, WHOLE, Part, TrayTerm, read_part, read_terms

HASHES = st.text("0123456789abcdef", min_size=64, max_size=64)
PARTS = st.builds(
    lambda left, top, width, height: read_part((left, top, width, height)),
    *(st.integers(0, WHOLE - LEAST),) * 2,
    *(st.integers(LEAST, WHOLE),) * 2,
)
TERMS = st.builds(TrayTerm, content_hash=HASHES, is_upload=st.booleans(), is_wanted=st.booleans(), part=PARTS)


@given(st.lists(TERMS, max_size=MOST_TERMS))
def test_what_is_spelled_is_read_again(terms: list[TrayTerm]):
    assert list(read_terms([term.spell() for term in terms])) == terms


@given(st.lists(st.text(string.printable) | st.text("-up:@,0123456789abcdef", min_size=60, max_size=90)))
def test_whatever_stands_there_is_read_or_passed_over(spelled: list[str]):
    for term in read_terms(spelled):
        assert term.spell() in spelled or term.part is None


@pytest.mark.parametrize("numbers", [(0, 0, 0, 0), (0, 0, 10, 500), (900, 0, 200, 500), (0, 0, 1000, 1000)])
def test_a_part_that_is_none_means_the_whole(numbers: tuple[int, ...]):
    assert read_part(numbers) is None


@given(PARTS.filter(bool), st.integers(1, 20_000), st.integers(1, 20_000))
def test_a_part_lies_in_every_picture(part: Part, width: int, height: int):
    region = part.measure(width, height)
    assert isinstance(region, Region) and min(region.left, region.top) >= 0 and min(region.width, region.height) >= 1
    assert region.left + region.width <= width and region.top + region.height <= height


def test_more_terms_than_can_be_are_passed_over():
    assert len(read_terms(["0" * 64] * (MOST_TERMS + 5))) == MOST_TERMS
