"""Is this computer ready? A report that can be pasted into a bug report.

Rule: it names no folder and no file of the person's, and changes nothing.
"""

import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from indexer.collection import Collection
from indexer.layout import list_collections, read_home
from seer_model.errors import UserError

FAISS_WHEELS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs", "faiss-gpu-cu11", "faiss-gpu-cu12")
PACKAGES = ("seer", "torch", "streamlit", "numpy", "pillow", "safetensors", "huggingface_hub")
LOW_DISK_BYTES = 2 << 30


@dataclass(frozen=True)
class Finding:
    """One line of the report. `state`: ok; note (works, with less); bad (does not work)."""

    name: str
    state: Literal["ok", "note", "bad"]
    text: str


def examine() -> list[Finding]:
    """Look at everything that a build and a search need."""
    return [
        Finding("system", "ok", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"),
        Finding("packages", "ok", ", ".join(f"{name} {_read_version(name)}" for name in PACKAGES)),
        *(_guard(name, check) for name, check in CHECKS.items()),
    ]


def _guard(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except ImportError as error:
        return Finding(name, "bad", f"{error}; install seer's packages again (README)")
    except (UserError, OSError) as error:
        # The sentence may name a folder; its kind does not.
        return Finding(name, "bad", f"{type(error).__name__}; the command that needs it says more")


def _check_faiss() -> Finding:
    wheels = [name for name in FAISS_WHEELS if _read_version(name) != "none"]
    if len(wheels) > 1:
        remove = " ".join(wheels)
        return Finding(
            "faiss", "bad", f"{' and '.join(wheels)} are both installed and overwrite each other. "
            f"Run: pip uninstall {remove}; then install the one that you want."
        )  # fmt: skip
    from indexer.index import describe_faiss

    told = describe_faiss()
    return Finding("faiss", "ok", f"{', '.join(wheels) or 'unknown wheel'} {told['version']}, GPUs: {told['gpus']}")


def _check_torch() -> Finding:
    from seer_model.devices import list_devices, read_cuda_version

    built_for = read_cuda_version()
    devices = list_devices()
    text = f"built for {f'CUDA {built_for}' if built_for else 'the CPU'}; devices: {', '.join(devices)}"
    if shutil.which("nvidia-smi") and len(devices) == 1:
        return Finding("torch", "note", f"{text}. There is an NVIDIA driver, but torch does not use it: "
                       "install a torch built for the driver's CUDA, or go on with the CPU.")  # fmt: skip
    return Finding("torch", "ok", text)


def _check_disk() -> Finding:
    place = read_home()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    text = f"{free / 2**30:.1f} GB free where collections are kept"
    return Finding("disk", "ok" if free >= LOW_DISK_BYTES else "note", text)


def _check_model() -> Finding:
    from seer_model.backbone import open_backbone

    backbone = open_backbone(device="cpu", batch_size=1)
    return Finding("model", "ok", f"{backbone.model} loads, {backbone.dimension} numbers")


def _check_collections() -> Finding:
    told = [_describe_collection(folder) for folder in list_collections()]
    numbered = [f"{number}. {text}" for number, (_, text) in enumerate(told, start=1)]
    state = "ok" if all(is_good for is_good, _ in told) else "bad"
    return Finding("collections", state, "; ".join(numbered) or "none yet; make one: seer build PICTURES")


def _describe_collection(folder: Path) -> tuple[bool, str]:
    try:
        with Collection(folder) as collection:
            status = collection.read_status()
    except UserError as error:
        return False, f"{type(error).__name__} (seer status --collection says more)"
    return True, f"{status.images} images, {status.failed} failed, {status.index or 'nothing published'}"


def _read_version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"


CHECKS = {
    "faiss": _check_faiss,
    "torch": _check_torch,
    "disk": _check_disk,
    "model": _check_model,
    "collections": _check_collections,
}
