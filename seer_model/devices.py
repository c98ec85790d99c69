"""What a device computes well, and how much it holds.

Rule: this module asks, reckons, and sets what is the whole process's; no tensor is made here.
"""

import contextlib
import ctypes
from pathlib import Path

import torch

CPU_BATCH, MOST_BATCH = 8, 256
"""On a CPU larger batches make maps so large that each needs new pages of the system, which costs a third."""
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
M_ARENA_MAX = -8
"""As glibc's malloc.h has it."""
MEMORY_TABLE = Path("/proc/meminfo")
SHORT_OF_MEMORY = ("DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED", "unable to find an engine to execute")
"""In errors of the processor's allocator, of cuBLAS and of cuDNN, which has then no room for any of its ways."""


def choose_precision(asked: str, device: torch.device) -> str:
    """`auto`: fp16 on a GPU, as fast there as bf16 and three bits finer; fp32 on a CPU."""
    if asked != "auto":
        return asked
    return "fp16" if device.type == "cuda" else "fp32"


def fit_batch(free_bytes: float, picture_bytes: float) -> int:
    """The largest power of two of pictures that half of the free memory holds, 1 to MOST_BATCH."""
    most, batch = free_bytes / 2 / max(1.0, picture_bytes), 1
    while 2 * batch <= min(most, MOST_BATCH):
        batch *= 2
    return batch


def measure_free(device: torch.device) -> int | None:
    """Bytes of memory that are free on a device; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = MEMORY_TABLE.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device's memory, or the processor's, was too small; torch has a class of its own for some of this."""
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in SHORT_OF_MEMORY)


def share_cores(count: int) -> None:
    """Leave this process one of `count` parts of the threads that it would have."""
    set_threads(max(1, torch.get_num_threads() // count))


def set_threads(count: int) -> None:
    """How many threads the networks of this process have on a CPU."""
    torch.set_num_threads(count)


def use_one_heap() -> None:
    """Let all threads allocate from this process's first heap, where the C library gives each its own (glibc).

    A network's maps are blocks of megabytes, for which a thread's own heap asks the system anew each time. To be called
    before there are threads.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # Another C library, another system.
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def read_cuda_version() -> str | None:
    """The CUDA version that this torch was built for; None for a build without CUDA."""
    return torch.version.cuda


def list_devices() -> list[str]:
    """The devices that can be chosen, each with what a bug report should know of it."""
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    properties = [torch.cuda.get_device_properties(gpu) for gpu in gpus]
    described = [f"cuda:{n} ({p.name}, {p.total_memory / 2**30:.0f} GiB)" for n, p in enumerate(properties)]
    return [f"cpu ({torch.get_num_threads()} threads)", *described]
