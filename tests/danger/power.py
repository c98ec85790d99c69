"""What a power cut may leave: the changes to a collection are recorded, and every legal state of its files is made.

    recorder = Recorder(place)
    with recorder.recording():
        build(place, pictures)
    for files in recorder.list_states(): write_state(files, elsewhere)

A file is legally what it was when it was last synced, or what it is, or - as long as it is not synced - the synced
part with half of the rest, or with zeros in place of the rest. A name is legally what it was when its folder was last
synced, or what it is; a rename has happened or has not. What SQLite writes is taken as it stands at each moment: it
syncs its files and their names itself before a commit returns (`tests/indexer/test_durability.py` reads the settings),
and a state between two of its writes is one that it rolls back.

Rule: nothing is assumed of the order in which unsynced changes reach the disk.
"""

import hashlib
import json
import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from indexer.generations import VERIFIED

CHANGES = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link"}
"""Audit events that a change to a folder or a file begins with."""
BY_SQLITE = ("catalog.sqlite", "thumbnails.sqlite")
MIXTURES = 3
Files = dict[str, bytes | None]
"""Path below the collection -> content; None: a folder."""


@dataclass
class Moment:
    """All that the disk may hold of a collection at one moment, by number of file or folder (inode)."""

    root: int
    names: dict[int, dict[str, int]]
    """Folder -> name -> file or folder, as it is."""
    synced_names: dict[int, dict[str, int]]
    contents: dict[int, bytes]
    synced_contents: dict[int, bytes]


@dataclass
class Recorder:
    """Records the moments of changes that this process makes in one folder. It must exist; what it holds is synced."""

    place: Path
    moments: list[Moment] = field(default_factory=list)
    _handles: dict[int, int] = field(default_factory=dict)
    """Kept open, so that no number is given to another file."""
    _synced_names: dict[int, dict[str, int]] = field(default_factory=dict)
    _synced_contents: dict[int, bytes] = field(default_factory=dict)
    _is_looking: bool = False
    _is_recording: bool = False

    @contextmanager
    def recording(self) -> Iterator[None]:
        """While this is open every change is recorded, at the moment before it is made."""
        now = self._look()
        self._synced_names = {one: dict(names) for one, names in now.names.items()}
        self._synced_contents = dict(now.contents)
        sys.addaudithook(self._hear)  # There is no way to take one away; it is deaf afterwards.
        fsync, self._is_recording = os.fsync, True
        os.fsync = lambda handle: (self.note(), fsync(handle), self._take_for_synced(handle))[1]
        try:
            yield
            self.note()
        finally:
            os.fsync, self._is_recording = fsync, False
            for handle in self._handles.values():
                os.close(handle)

    def _hear(self, event: str, _: tuple) -> None:
        if self._is_recording and not self._is_looking and event in CHANGES:
            self.note()

    def note(self) -> None:
        """Record this moment, unless it is as the one before."""
        moment = self._look()
        if not self.moments or moment != self.moments[-1]:
            self.moments.append(moment)

    def _look(self) -> Moment:
        self._is_looking = True
        try:
            names: dict[int, dict[str, int]] = {}
            contents: dict[int, bytes] = {}
            self._look_into(self.place, names, contents)
            # What has no name any more may have it again after a cut.
            for number, handle in self._handles.items():
                if number not in names and number not in contents and number in self._synced_contents:
                    contents[number] = os.pread(handle, os.fstat(handle).st_size, 0)
            root = os.stat(self.place).st_ino
            return Moment(root, names, dict(self._synced_names), contents, dict(self._synced_contents))
        finally:
            self._is_looking = False

    def _look_into(self, folder: Path, names: dict, contents: dict) -> None:
        own = names[os.stat(folder).st_ino] = {}
        for entry in os.scandir(folder):
            number = own[entry.name] = entry.inode()
            if number not in self._handles:
                self._handles[number] = os.open(entry.path, os.O_RDONLY)
            if entry.is_dir():
                self._look_into(Path(entry.path), names, contents)
            else:
                contents[number] = Path(entry.path).read_bytes()

    def _take_for_synced(self, handle: int) -> None:
        number, moment = os.fstat(handle).st_ino, self._look()
        if number in moment.names:
            self._synced_names[number] = dict(moment.names[number])
        elif number in moment.contents:
            self._synced_contents[number] = moment.contents[number]
        self.note()

    def list_states(self, seed: int = 0) -> list[Files]:
        """Each state that a cut at one of the moments may leave, once."""
        chance, states = random.Random(seed), {}
        for moment in self.moments:
            for files in _list_legal(moment, chance):
                states.setdefault(_hash(files), files)
        return list(states.values())


def _list_legal(moment: Moment, chance: random.Random) -> Iterator[Files]:
    for is_new in (lambda: False, lambda: True):
        for content in ("synced", "present", "half", "zeros"):
            yield _lay_out(moment, is_new, lambda content=content: content)
    for _ in range(MIXTURES):
        yield _lay_out(
            moment,
            lambda: chance.random() < 0.5,
            lambda: chance.choice(("synced", "present", "half", "zeros")),
        )


def _lay_out(moment: Moment, is_new, choose_content) -> Files:
    """One state. `is_new` decides of each change of a name, `choose_content` of each file that is not synced."""
    files: Files = {}
    waiting = [("", moment.root)]
    while waiting:
        folder, number = waiting.pop()
        for name, one in _choose_names(moment, number, is_new).items():
            path = f"{folder}{name}"
            if one in moment.names or one in moment.synced_names:
                files[path] = None
                waiting.append((f"{path}/", one))
            else:
                files[path] = _choose_content(moment, name, one, choose_content)
    return files


def _choose_names(moment: Moment, folder: int, is_new) -> dict[str, int]:
    new, old = moment.names.get(folder), moment.synced_names.get(folder, {})
    if new is None:
        return old  # The folder itself has been removed.
    chosen = {name: one for name, one in new.items() if old.get(name) == one or name.startswith(BY_SQLITE)}
    changed = {one for names in (old, new) for name, one in names.items() if chosen.get(name) != one}
    # By what is named: a rename is one change of two names.
    for one in sorted(changed):
        names = new if is_new() else old
        for name in [name for name, other in names.items() if other == one and not name.startswith(BY_SQLITE)]:
            if name not in chosen or names is new:
                chosen[name] = one
    # Where a rename took another file's place, one of the two has the name.
    return {**{name: old[name] for name in old.keys() & new.keys()}, **chosen}


def _choose_content(moment: Moment, name: str, number: int, choose_content) -> bytes:
    present, synced = moment.contents.get(number, b""), moment.synced_contents.get(number, b"")
    if name.startswith(BY_SQLITE) or present == synced:
        return present
    rest = present[len(synced) :] if present.startswith(synced) else present
    begun = present[: len(present) - len(rest)]
    match choose_content():
        case "synced":
            return synced
        case "half":
            return begun + rest[: len(rest) // 2]
        case "zeros":
            return begun + bytes(len(rest))
        case _:
            return present


def _hash(files: Files) -> bytes:
    parts = sorted((path, content) for path, content in files.items() if not path.endswith("-shm"))
    return hashlib.sha256(repr(parts).encode()).digest()


def write_state(files: Files, place: Path) -> None:
    """Lay a state out on the disk, as the files of a collection at `place`."""
    place.mkdir()
    for path, content in sorted(files.items()):
        if content is None:
            (place / path).mkdir()
        elif not path.endswith("-shm"):  # Memory of processes that are gone.
            (place / path).write_bytes(content)
    for verified in place.glob(f"generations/*/{VERIFIED}"):
        _renew_stamps(verified)


def _renew_stamps(verified: Path) -> None:
    """The stamps that were verified are true of the copies where they may be: numbers and times outlive a cut."""
    try:
        told = json.loads(verified.read_bytes())
    except ValueError:
        return
    for name, (_, size, _) in told.items():
        if (verified.parent / name).is_file():
            status = (verified.parent / name).stat()
            told[name] = [status.st_ino, size, status.st_mtime_ns]
    verified.write_text(json.dumps(told), encoding="utf-8")
