"""How a reader is fuzzed: a corpus that grows in a folder of its own, and limits at which the run stops.

    python -m fuzz.pictures [SECONDS]
    python -m fuzz.checkpoints [SECONDS]

atheris watches which branches of the Python code an input takes, ours and that of Pillow, torch and safetensors, and
keeps the inputs that take new ones. Inside the C libraries it sees nothing but a crash.

Rule: what a reader lets out besides its one error is a finding; the run stops and keeps the input in `.scratch/fuzz`.
"""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

FOLDER = Path(".scratch/fuzz")
SLOWEST_SECONDS = 20
MOST_MEMORY_MB = 4096
LONGEST_INPUT = 64 << 10


def fuzz(name: str, read: Callable[[bytes], None], seeds: Iterable[bytes]) -> None:
    """Feed a reader until SECONDS are over (the command line's first word; 300), or something is found.

    Args:
        read: raises nothing, whatever the bytes are.
        seeds: whole files to begin with; the corpus of an earlier run is gone on with.
    """
    import atheris

    corpus = FOLDER / name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number:02d}").write_bytes(seed)
    seconds = sys.argv[1] if len(sys.argv) > 1 else "300"
    options = {
        "max_total_time": seconds,
        "timeout": SLOWEST_SECONDS,
        "rss_limit_mb": MOST_MEMORY_MB,
        "max_len": LONGEST_INPUT,
        "artifact_prefix": f"{FOLDER / name}/",
        "print_final_stats": 1,
    }
    atheris.Setup([sys.argv[0], *(f"-{key}={value}" for key, value in options.items()), str(corpus)], read)
    atheris.Fuzz()
