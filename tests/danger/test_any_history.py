"""Any history of a folder and of the builds over it ends as a fresh build of that folder would: against a dictionary.

The model is `files`: path -> content, of what lies in the folder now. After each build the collection must answer as
one that was made anew from the same files, account for every file, and have embedded no content that it had.

Rule: what the model knows it knows from the operations alone, never from the collection.
"""

import fnmatch
import os
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from indexer.decode import hash_content
from indexer.errors import SourceError
from indexer.layout import CATALOG
from indexer.report import BuildReport, Watchers
from indexer.upkeep import prune_collection, relocate_folder
from tests.danger.conftest import MEMORY
from tests.danger.oracle import Truth, list_wrong, read_truth, require_equal
from tests.danger.tally import add
from tests.indexer.making import build, draw

MODELS = ("seer-mini", "regnety-400mf")
NAMES = st.sampled_from(["a.png", "b.png", "c.png", "n\udcff.png", "sub/a.png", "sub/b.png", "sub/deep/a.png", "x.jpg"])
CONTENTS = st.integers(0, 11)
GLOBS = st.sampled_from(["sub", "a.png", "n*", "sub/deep/*", "*.jpg", ""])
NOTHING = Truth(rows={}, answers={})
"""No truth but what the collection itself has."""
NO_PICTURES = 2
"""Contents with these numbers are no pictures."""


class Killed(BaseException):
    """Stands for a kill: nothing of ours catches it."""


class History(RuleBasedStateMachine):
    """One folder, one collection, and what happens to both."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="seer-history-", dir=MEMORY if MEMORY.is_dir() else None))
        self.folder, self.place = self.home / "pictures", self.home / "collection"
        self.folder.mkdir()
        self.files: dict[str, bytes] = {}
        self.removed: dict[str, bytes] = {}
        self.embedded: set[tuple[str, bytes]] = set()
        self.pruned_away = False
        self.model, self.clock, self.fresh, self.excluded = MODELS[0], 1_700_000_000, 0, ""

    def teardown(self) -> None:
        """Nothing is left behind."""
        shutil.rmtree(self.home, ignore_errors=True)

    # Files

    def write(self, name: str, content: bytes) -> None:
        """Each write has a time of its own, as far as a file system tells times apart."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.clock += 7
        os.utime(path, (self.clock, self.clock))
        self.files[name] = content

    @initialize()
    def begin(self) -> None:
        """Something to begin with: a folder that is emptied is a story of its own."""
        for number, name in enumerate(("first.png", "second.png", "third.png")):
            self.write(name, make_content(NO_PICTURES + number))
        self.build()

    @rule(name=NAMES, number=CONTENTS)
    def add_or_change(self, name: str, number: int) -> None:
        self.write(name, make_content(number))

    @rule(data=st.data(), name=NAMES)
    def rename(self, data: st.DataObject, name: str) -> None:
        old = self.choose(data)
        if name != old:
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(self.folder / old, self.folder / name)
            self.files[name] = self.files.pop(old)

    @rule(data=st.data(), name=NAMES)
    def copy(self, data: st.DataObject, name: str) -> None:
        self.write(name, self.files[self.choose(data)])

    @precondition(lambda self: len(self.files) > 1)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        name = self.choose(data)
        (self.folder / name).unlink()
        self.removed[name] = self.files.pop(name)

    @precondition(lambda self: self.removed)
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.removed)))
        self.write(name, self.removed.pop(name))

    @rule(data=st.data())
    def touch(self, data: st.DataObject) -> None:
        name = self.choose(data)
        self.write(name, self.files[name])

    @rule(data=st.data())
    def swap(self, data: st.DataObject) -> None:
        """Two files of one time, and most of them of one size, change places between two builds."""
        one, two = self.choose(data), self.choose(data)
        self.clock += 7
        for name in (one, two):
            os.utime(self.folder / name, (self.clock, self.clock))
        self.build()
        if one != two:
            aside = (self.folder / one).rename(self.home / "aside")
            (self.folder / two).rename(self.folder / one)
            aside.rename(self.folder / two)
            self.files[one], self.files[two] = self.files[two], self.files[one]

    @rule(data=st.data(), place=st.floats(0, 1))
    def corrupt(self, data: st.DataObject, place: float) -> None:
        name = self.choose(data)
        content = self.files[name]
        self.write(name, content[: int(len(content) * place)])

    @rule(new=st.sampled_from(["pictures", "elsewhere", "another"]))
    def move_all(self, new: str) -> None:
        old, moved = self.folder, self.home / new
        if moved == old:
            return
        self.folder = old.rename(moved)
        try:
            relocate_folder(self.place, old, moved)
        except SourceError:
            # As it must be where nothing is left of what the last build knew: that could be any folder.
            self.folder = moved.rename(old)
            with closing(sqlite3.connect(self.place / CATALOG)) as connection:
                known = [os.fsdecode(path) for (path,) in connection.execute("SELECT path FROM files")]
            assert known and not any(map(os.path.exists, known))

    def choose(self, data: st.DataObject) -> str:
        """One of the files that are there."""
        return data.draw(st.sampled_from(sorted(self.files)))

    def list_seen(self) -> dict[str, bytes]:
        """The files that are not passed over."""
        return {name: content for name, content in self.files.items() if not is_excluded(name, self.excluded)}

    # Builds

    def start_build(self, **how: object) -> BuildReport:
        """Where all files are passed over, somebody must have meant it."""
        pictures = () if self.place.exists() else (self.folder,)
        return build(self.place, *pictures, model=self.model, accept_removals=not self.list_seen(), **how)

    @rule()
    def build(self, **how: object) -> None:
        """The one that all is about."""
        report = self.start_build(**how)
        kinds = {hash_content(content) for content in self.list_seen().values()}
        had = {content for model, content in self.embedded if model == self.model}
        if not self.pruned_away:
            assert report.embedded <= len(kinds - had), "a content was embedded twice"
        assert (report.found, report.pending) == (len(self.list_seen()), 0)
        self.embedded |= {(self.model, content) for content in kinds}
        self.pruned_away = False
        self.compare()

    @rule(glob=GLOBS)
    def exclude(self, glob: str) -> None:
        """From now on, until another glob or none is given."""
        self.excluded = glob
        self.build(exclude=(glob,))

    @rule(steps=st.integers(1, 10), change=st.sampled_from(["build", "build", "prune"]))
    def is_killed(self, steps: int, change: str) -> None:
        left = steps

        def on_step(name: str) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise Killed

        try:
            if change == "build":
                self.start_build(watchers=Watchers(on_step=on_step))
            else:
                self.prune(on_step)
        except Killed:
            add("faults injected")
            add("kills survived")
        self.require_no_wrong()

    @rule(limit=st.integers(0, 2))
    def build_a_part(self, limit: int) -> None:
        self.start_build(limit=limit)
        self.require_no_wrong()

    @rule(model=st.sampled_from(MODELS))
    def change_model(self, model: str) -> None:
        if model != self.model:
            self.model, self.embedded, self.pruned_away = model, set(), True

    @rule()
    def prune_now(self) -> None:
        self.prune(lambda name: None)
        self.require_no_wrong()

    def prune(self, on_step) -> None:
        """What a prune lets go may be embedded again."""
        self.embedded, self.pruned_away = set(), True
        prune_collection(self.place, on_step=on_step)

    # What must hold

    def require_no_wrong(self) -> None:
        """Between builds it may lag behind the folder, and pair no path with a content that the path never had."""
        # The catalog knows of no change yet: a path may be shown for what it held when it was read.
        wrong = [text for text in list_wrong(self.place, NOTHING, self.folder) if " is shown for " not in text]
        add("wrong answers", len(wrong))
        assert not wrong, wrong

    def compare(self) -> None:
        """With a collection that is made anew."""
        self.fresh += 1
        fresh = self.home / f"fresh-{self.fresh}"
        build(fresh, self.folder, exclude=(self.excluded,))
        seen = [self.folder / name for name in self.list_seen()]
        require_equal(self.place, read_truth(fresh, *seen), *seen)
        there = {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()}
        assert there == set(self.files)
        shutil.rmtree(fresh)


def is_excluded(name: str, glob: str) -> bool:
    """Whether the file, or a folder that it lies in, is passed over."""
    parts = name.split("/")
    above = ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
    return any(fnmatch.fnmatch(one, glob) for one in (*parts, *above))


def make_content(number: int, made: dict[int, bytes] = {}) -> bytes:  # noqa: B006 - drawn once
    """The bytes of picture `number`; the first ones are none."""
    if number < NO_PICTURES:
        return b"\x89PNG\r\n\x1a\n broken" if number else b""
    if number not in made:
        with tempfile.TemporaryDirectory() as folder:
            # Uncompressed, so that all are of one size, whatever the files are called.
            made[number] = draw(Path(folder) / "picture.bmp", number).read_bytes()
    return made[number]


@pytest.mark.usefixtures("by_pixels", "in_one_process")
def test_any_history_ends_as_a_fresh_build_would(pytestconfig: pytest.Config):
    examples, steps = (600, 60) if pytestconfig.getoption("--long") else (35, 25)
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        History,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=slow,
            derandomize=True, database=None,
        ),
    )  # fmt: skip
