"""What `make fuzz` runs can be run, and the readers stand its seeds and some mutations of them: atheris is stood in for
by a few rounds without its eyes, since it has no wheels for most machines."""

import importlib
import sys
from contextlib import nullcontext
from pathlib import Path
from random import Random
from types import ModuleType, SimpleNamespace

import pytest

from seer_model.errors import UserError
from tests.danger.making_mutants import KINDS, rename

SEED = 7
MUTATE = [mutate for mutate in KINDS if mutate is not rename]


class Atheris(SimpleNamespace):
    """As much of atheris as `fuzz` uses; `tried` is what the reader was given."""

    def instrument_imports(self, include: list[str]) -> nullcontext:
        assert include
        return nullcontext()

    def Setup(self, arguments: list[str], read) -> None:  # noqa: N802 - its names
        self.corpus, self.read, self.tried = Path(arguments[-1]), read, []
        assert all(argument.startswith("-") and "=" in argument for argument in arguments[1:-1])

    def Fuzz(self) -> None:  # noqa: N802
        chance = Random(SEED)
        for seed in sorted(self.corpus.iterdir()):
            data = seed.read_bytes()
            for given in (data, *(mutate(chance, data) for mutate in MUTATE for _ in range(self.rounds))):
                self.tried.append(given)
                self.read(given)


@pytest.fixture
def atheris(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Atheris:
    """In the place of the real one; what a run keeps goes to a folder of the test's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fuzz"])
    monkeypatch.setitem(sys.modules, "atheris", Atheris(rounds=1))
    return sys.modules["atheris"]


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """One of the programs, which forgets the stand-in with the test."""
    monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module(name)
    monkeypatch.delitem(sys.modules, name)
    return module


@pytest.mark.parametrize(("name", "seeds", "rounds"), [("fuzz.pictures", 13, 12), ("fuzz.checkpoints", 5, 4)])
def test_a_reader_stands_the_seeds_and_some_mutations(
    name: str, seeds: int, rounds: int, atheris: Atheris, monkeypatch: pytest.MonkeyPatch
):
    program, atheris.rounds = load(name, monkeypatch), rounds
    program.fuzz(name, program.read, program.make_seeds())
    assert len(list(atheris.corpus.iterdir())) == seeds
    assert len(atheris.tried) == seeds * (1 + len(MUTATE) * rounds)
    assert len(set(atheris.tried)) > len(atheris.tried) / 2


@pytest.mark.usefixtures("atheris")
@pytest.mark.parametrize(
    ("name", "error"), [("fuzz.pictures", "PictureError"), ("fuzz.checkpoints", "CheckpointError")]
)
def test_the_seeds_are_whole(name: str, error: str, monkeypatch: pytest.MonkeyPatch):
    program = load(name, monkeypatch)
    monkeypatch.setattr(program, error, ZeroDivisionError)  # What is refused is let out.
    for seed in program.make_seeds():
        program.read(seed)
    with pytest.raises(UserError):
        program.read(b"no seed")


def test_what_a_reader_lets_out_ends_the_run(atheris: Atheris, monkeypatch: pytest.MonkeyPatch):
    program = load("fuzz.pictures", monkeypatch)
    monkeypatch.setattr(program, "open_picture", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        program.fuzz("pictures", program.read, program.make_seeds())
