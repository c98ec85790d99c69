"""Inverted lists on the disk against those that FAISS makes: byte for byte, however the rows were cut into parts."""

from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.lists import (
    ALIGNED,
    BLOCK,
    ListsFile,
    Part,
    count_blocks,
    measure_lists,
    merge,
    pack,
    read_part,
    unpack,
    write_part,
)

LISTS, WIDTH = 8, 8


@pytest.fixture(scope="module")
def filled() -> faiss.IndexIVFPQFastScan:
    """FAISS's own index of 900 rows in 8 lists, 8 bytes a code."""
    rows = np.random.default_rng(0).normal(size=(900, 32)).astype(np.float32)
    index = faiss.index_factory(32, f"IVF{LISTS},PQ16x4fs", faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = 1
    index.train(rows)
    index.add(rows)
    return index


def read_own(index: faiss.IndexIVFPQFastScan, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Blocks and row numbers of a list, as FAISS holds them."""
    rows = index.invlists.list_size(number)
    blocks = faiss.rev_swig_ptr(index.invlists.get_codes(number), count_blocks(rows) * BLOCK * WIDTH)
    return blocks.reshape(-1, BLOCK * WIDTH), faiss.rev_swig_ptr(index.invlists.get_ids(number), rows)


def read_rows(index: faiss.IndexIVFPQFastScan) -> tuple[np.ndarray, np.ndarray]:
    """The list of each of its rows, and its code."""
    lists, codes = np.empty(index.ntotal, np.int32), np.empty((index.ntotal, WIDTH), np.uint8)
    for number in range(LISTS):
        blocks, rows = read_own(index, number)
        lists[rows], codes[rows] = number, unpack(blocks, len(rows))
    return lists, codes


def make_parts(folder: Path, lists: np.ndarray, codes: np.ndarray, cuts: Sequence[int]) -> list[Part]:
    """Parts that end at these rows, and at the last."""
    ends, parts = [*cuts, len(lists)], []
    for first, last in zip([0, *cuts], ends, strict=True):
        path = folder / f"{first}.part"
        write_part(path, lists[first:last], codes[first:last], LISTS)
        parts.append(read_part(path, first, last - first, LISTS, WIDTH))
    return parts


@settings(max_examples=50, deadline=None)
@given(rows=st.integers(0, 100), width=st.integers(1, 9), seed=st.integers(0, 999))
def test_codes_that_are_packed_come_back(rows: int, width: int, seed: int):
    codes = np.random.default_rng(seed).integers(0, 256, (rows, width), np.uint8)
    blocks = pack(codes)
    assert blocks.shape == (count_blocks(rows), BLOCK * width)
    assert (unpack(blocks, rows) == codes).all()


def test_codes_are_packed_as_faiss_packs_them():
    codes = np.random.default_rng(1).integers(0, 256, (BLOCK, WIDTH), np.uint8)
    packer = faiss.IndexIVFPQFastScan(faiss.IndexFlatIP(32), 32, 1, 16, 4, faiss.METRIC_INNER_PRODUCT).get_CodePacker()
    block = np.zeros(packer.block_size, np.uint8)
    packer.pack_all(faiss.swig_ptr(codes), faiss.swig_ptr(block))
    assert packer.nvec == BLOCK and (pack(codes)[0] == block).all()


@pytest.mark.parametrize("cuts", [(), (450,), (1, 2, 33, 600, 899), (0, 31, 32, 900)])
def test_lists_of_parts_are_those_that_faiss_makes_of_all_rows(cuts: tuple[int, ...], filled, tmp_path: Path):
    parts = make_parts(tmp_path, *read_rows(filled), cuts)
    merge(tmp_path / "lists", LISTS, WIDTH, parts)
    found = ListsFile(tmp_path / "lists", LISTS, WIDTH)
    assert (found.places % ALIGNED == 0).all() and found.sizes.sum() == 900
    assert 0 <= measure_lists(900, LISTS, WIDTH) - found.size_bytes < LISTS * (BLOCK * WIDTH + ALIGNED)
    for number in range(LISTS):
        blocks, rows = read_own(filled, number)
        full, rest, numbers = found.read_list(number)
        assert (np.concatenate([full, pack(rest)]) == blocks).all() and (numbers == rows).all()


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(1, 899), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_lists_that_grew_are_those_made_at_once(cuts: list[int], seed: int, tmp_path_factory: pytest.TempPathFactory):
    folder, random = tmp_path_factory.mktemp("lists"), np.random.default_rng(seed)
    lists = random.choice(random.integers(0, LISTS, 5), 900).astype(np.int32)  # some of them stay empty
    codes = random.integers(0, 256, (900, WIDTH), np.uint8)
    parts = make_parts(folder, lists, codes, sorted(cuts))
    merge(folder / "whole", LISTS, WIDTH, parts)
    merge(folder / "0", LISTS, WIDTH, parts[:1])
    for number, part in enumerate(parts[1:]):
        merge(folder / str(number + 1), LISTS, WIDTH, [part], ListsFile(folder / str(number), LISTS, WIDTH))
    assert (folder / str(len(parts) - 1)).read_bytes() == (folder / "whole").read_bytes()


@pytest.mark.parametrize("harm", ["flip", "cut", "longer", "gone"])
def test_a_part_that_is_not_whole_is_none(harm: str, tmp_path: Path):
    random, path = np.random.default_rng(2), tmp_path / "part"
    lists, codes = random.integers(0, LISTS, 100).astype(np.int32), random.integers(0, 256, (100, WIDTH), np.uint8)
    write_part(path, lists, codes, LISTS)
    whole = path.read_bytes()
    assert read_part(path, 0, 100, LISTS, WIDTH) is not None
    assert read_part(path, 0, 99, LISTS, WIDTH) is None
    if harm == "flip":
        for place in range(0, len(whole), 7):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 8]) + whole[place + 1 :])
            assert read_part(path, 0, 100, LISTS, WIDTH) is None, place
        return
    path.unlink()
    if harm != "gone":
        path.write_bytes(whole[:-1] if harm == "cut" else whole + b"1")
    assert read_part(path, 0, 100, LISTS, WIDTH) is None


def test_a_file_of_other_lists_is_refused(tmp_path: Path):
    lists, codes = np.zeros(100, np.int32), np.zeros((100, WIDTH), np.uint8)
    merge(tmp_path / "lists", LISTS, WIDTH, make_parts(tmp_path, lists, codes, []))
    for count, width in ((LISTS, WIDTH + 1), (LISTS * 8, WIDTH), (4096, WIDTH)):
        with pytest.raises(ValueError, match="it has"):
            ListsFile(tmp_path / "lists", count, width)
