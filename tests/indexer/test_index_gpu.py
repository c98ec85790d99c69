"""FAISS on a GPU, with the GPU's functions played by the CPU's: who calls them, with what, and what comes of it."""

import threading
from pathlib import Path
from types import SimpleNamespace

import faiss
import numpy as np
import pytest

from indexer import index, index_gpu
from indexer.index_maker import train
from indexer.recipes import Recipe


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """One GPU, and what was done with it."""
    told = SimpleNamespace(threads=set(), scratch=[], searches=0, copied=0, error=None)

    class Resources:
        def setTempMemory(self, size: int) -> None:  # noqa: N802 - FAISS's name
            told.threads.add(threading.get_ident())
            told.scratch.append(size)

    def knn_gpu(resources: Resources, queries: np.ndarray, piece: np.ndarray, count: int, *, metric: int):
        told.threads.add(threading.get_ident())
        told.searches += 1
        if told.error:
            raise RuntimeError(told.error)
        faiss.omp_set_num_threads(1)
        return faiss.knn(queries, piece, count, metric=metric)

    def index_cpu_to_gpu(resources: Resources, device: int, index: faiss.Index) -> faiss.Index:
        told.threads.add(threading.get_ident())
        told.copied += 1
        if told.error:
            raise RuntimeError(told.error)
        return faiss.clone_index(index)

    for name, played in (("StandardGpuResources", Resources), ("knn_gpu", knn_gpu), ("get_num_gpus", lambda: 1)):
        monkeypatch.setattr(faiss, name, played, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", index_cpu_to_gpu, raising=False)
    monkeypatch.setattr(index_gpu, "_failed", [])
    for kept in (index_gpu._own, index_gpu._open_resources):
        kept.cache_clear()
    yield told
    index_gpu._own().shutdown()
    for kept in (index_gpu._own, index_gpu._open_resources):
        kept.cache_clear()


def test_one_thread_owns_the_gpu_and_its_memory_is_bounded(gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch):
    rows = np.random.default_rng(0).normal(size=(900, 16)).astype(np.float16)
    norms = np.linalg.norm(rows.astype(np.float32), axis=1)
    queries = rows[:5].astype(np.float32) / norms[:5, None]
    monkeypatch.setattr(index, "PIECE_BYTES", 16 * 4 * 300)
    askers = [threading.Thread(target=index.find_nearest, args=(rows, norms, queries, 3)) for _ in range(4)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    similarities, found = index.find_nearest(rows, norms, queries, 3)
    assert gpu.searches == 5 * 3 and gpu.scratch == [index_gpu.SCRATCH_BYTES]
    assert len(gpu.threads) == 1 and threading.get_ident() not in gpu.threads
    assert list(found[:, 0]) == list(range(5))
    np.testing.assert_allclose(similarities[:, 0], 1, atol=1e-5)


def test_a_training_and_the_lists_use_the_gpu_and_leave_an_index_for_the_cpu(gpu: SimpleNamespace):
    rows = np.random.default_rng(1).normal(size=(2000, 16)).astype(np.float16)
    maker = train(Recipe(reduced=16, lists=16), rows, np.arange(2000))
    lists = faiss.extract_index_ivf(maker._index)
    assert gpu.copied == 1
    own = int(lists.quantizer.this)
    maker.add(rows)
    assert gpu.copied == 2 and len(gpu.threads) == 1
    assert int(lists.quantizer.this) == own
    assert maker.show().search(rows[:2].astype(np.float32), 50, probes=16).shape == (2, 50)


def test_what_the_gpu_helped_to_make_is_what_the_cpu_makes(gpu: SimpleNamespace, tmp_path: Path):
    made = {}
    for name, failed in (("gpu", []), ("cpu", ["no GPU from here on"])):
        index_gpu._failed[:] = failed
        rows = np.random.default_rng(1).normal(size=(2000, 16)).astype(np.float16)
        maker = train(Recipe(reduced=16, lists=16), rows, np.arange(2000))
        maker.add(rows)
        maker.write(tmp_path / name)
        made[name] = (tmp_path / name).read_bytes()
    assert gpu.copied == 2 and made["gpu"] == made["cpu"]


def test_lists_and_codes_of_a_part_are_the_same_with_a_gpu(gpu: SimpleNamespace):
    rows = np.random.default_rng(1).normal(size=(2000, 16)).astype(np.float16)
    maker = train(Recipe(reduced=16, lists=16), rows, np.arange(2000))
    with_gpu = maker.encode(rows)
    assert gpu.copied == 2 and len(gpu.threads) == 1
    gpu.error = "out of memory"
    without = maker.encode(rows)
    assert all(np.array_equal(*pair) for pair in zip(with_gpu, without, strict=True))
    assert gpu.copied == 3, "it was asked once more, and failed"


def test_a_gpu_that_fails_is_told_once_and_the_cpu_goes_on(gpu: SimpleNamespace, caplog: pytest.LogCaptureFixture):
    gpu.error = "Error in virtual void* faiss::gpu::StandardGpuResourcesImpl: out of memory\nsecond line"
    rows = np.random.default_rng(1).normal(size=(2000, 16)).astype(np.float16)
    maker = train(Recipe(reduced=16, lists=16), rows, np.arange(2000))
    maker.add(rows)
    norms = np.linalg.norm(rows.astype(np.float32), axis=1)
    _, found = index.find_nearest(rows, norms, rows[:5].astype(np.float32), 1)
    assert list(found[:, 0]) == list(range(5)) and maker.rows == 2000
    assert (gpu.copied, gpu.searches) == (1, 0)
    assert [record.getMessage() for record in caplog.records] == [
        "FAISS goes on without the GPU: Error in virtual void* faiss::gpu::StandardGpuResourcesImpl: out of memory"
    ]
