"""The machine that a figure was measured on, in words that may be published: no host name, no path, no user.

Rule: what changes a figure is named: processor, cores, load, versions, the GPU and its number formats.
"""

import os
import platform
from pathlib import Path

import numpy as np
import PIL
import torch

from indexer.workers import count_cores

CPU_TABLE = Path("/proc/cpuinfo")


def describe_machine(device: torch.device) -> dict[str, str | int | float]:
    """As JSON-able values."""
    return {
        "processor": name_processor(),
        "cores": count_cores(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else -1.0,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        **(_describe_gpu(device) if device.type == "cuda" else {}),
    }


def name_processor() -> str:
    """As the system calls it."""
    if CPU_TABLE.exists():
        for line in CPU_TABLE.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _describe_gpu(device: torch.device) -> dict[str, str | int]:
    properties = torch.cuda.get_device_properties(device)
    return {
        "gpu": properties.name,
        "gpu_memory_mb": properties.total_memory >> 20,
        "cuda": torch.version.cuda or "none",
        "cudnn": torch.backends.cudnn.version() or 0,
        # What "fp32" means on this GPU: torch's own defaults, which nothing here changes.
        "fp32_convolutions": "TF32" if torch.backends.cudnn.allow_tf32 else "fp32",
        "fp32_products": torch.get_float32_matmul_precision(),
    }


def show_machine(machine: dict[str, str | int | float]) -> str:
    """One line, two with a GPU."""
    versions = ", ".join(f"{name} {machine[name]}" for name in ("python", "torch", "numpy", "pillow"))
    text = f"{machine['processor']}, {machine['cores']} cores, load {machine['load']} at the start; {versions}"
    if "gpu" in machine:
        text += f"\n{machine['gpu']}, {machine['gpu_memory_mb']:,} MB, CUDA {machine['cuda']}; "
        text += f"convolutions in {machine['fp32_convolutions']} where fp32 is said"
    return text
