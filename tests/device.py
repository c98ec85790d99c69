"""The device on which the tests of the network run: cpu, unless `pytest --device` says otherwise."""

import os
from contextlib import ExitStack

CHOSEN = os.environ.get("SEER_TEST_DEVICE", "cpu")
"""cpu, cuda or pretended; `conftest` sets it."""
DEVICE = "cpu" if CHOSEN == "cpu" else "cuda"


def begin() -> ExitStack:
    """Make the device ready, in each process that uses it. Returns: what is to be closed at the end."""
    stack = ExitStack()
    if CHOSEN == "cuda":
        import torch

        # Else sums in another order, or of fewer bits, make of a run that goes on another run.
        torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32 = True, False
    if CHOSEN == "pretended":
        from tests.pretended_gpu import pretend_gpu

        stack.enter_context(pretend_gpu())
    return stack
