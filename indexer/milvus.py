"""Milvus, written to and asked: the one module that knows pymilvus. A cluster, or a file by milvus-lite.

    milvus://HOST[:PORT][/DATABASE][/NAME]     a server; milvus+https:// with TLS; who asks: MILVUS_TOKEN
    milvus:///FOLDER/FILE.db[/NAME], FILE.db   milvus-lite, in this process; one process at a time

NAME is an alias. Behind it stands a version: a generation as Milvus holds it, under a name of its own, which readers
ask by. What it was made of stands in its properties, as JSON.

Rule: whatever pymilvus raises leaves here as an EngineError, in a sentence; no address holds a password.
"""

import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from indexer.errors import EngineError, EngineMissing, EngineUnreachable, VersionGone
from indexer.layout import PRIVATE

if TYPE_CHECKING:
    from pymilvus import MilvusClient

PORT = 19_530
TOKEN = "MILVUS_TOKEN"
"""The variable with USER:PASSWORD, or a key."""
FORMS = "milvus://HOST[:PORT]/NAME, or FILE.db for milvus-lite"
SUFFIX = ".db"
LITE_HAS = {"collections", "databases"}
"""One at least is in the folder that a file of milvus-lite is."""
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
"""Milvus's rule for names, with room for what a version's is told apart by."""
CONNECT_SECONDS, ASK_SECONDS, WORK_SECONDS = 5.0, 10.0, 600.0
PATIENCE_SECONDS = 1.5
"""With a server that does not answer."""
CHANNEL = {f"grpc.{which}_reconnect_backoff_ms": 200 for which in ("initial", "min", "max")}
"""Else one that is back is not tried again for up to two minutes."""
LOOK_AGAIN_SECONDS = 0.2
MOST_ROWS = 16_384
"""That one question may be answered with."""
NOT_FOUND, ALIAS_NOT_FOUND, NOT_LOADED = 100, 1600, 101
"""What Milvus says by number."""
FACTS, MEASURED = "seer.facts", "seer.measured"
METRIC = "COSINE"
INDEXES: Mapping[str, tuple[dict, str | None]] = {
    "HNSW": ({"M": 16, "efConstruction": 200}, "ef"),
    "HNSW_SQ": ({"M": 16, "efConstruction": 200, "sq_type": "SQ8"}, "ef"),
    "DISKANN": ({}, "search_list"),
    "FLAT": ({}, None),
}
"""Index -> how it is built, and what says how far a search looks: as many rows, at least, as are asked for."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a Milvus is, and the alias there."""

    uri: str
    name: str
    database: str = ""

    @property
    def is_file(self) -> bool:
        """Whether milvus-lite is meant."""
        return not self.uri.startswith("http")

    def __str__(self) -> str:
        """As a person may type it."""
        if self.is_file:
            return f"milvus://{self.uri}/{self.name}"
        place = "/".join(filter(None, (urlsplit(self.uri).netloc, self.database, self.name)))
        return f"{'milvus+https' if self.uri.startswith('https') else 'milvus'}://{place}"


@dataclass(frozen=True, kw_only=True)
class Version:
    """A generation as Milvus holds it."""

    name: str
    facts: dict
    """What it was made of."""
    measured: dict | None
    """How right its answers are; None until it is whole."""


def read_address(text: str, default: str) -> Address:
    """What a person typed. `default`: from which a name is made where none is given. Raises: EngineError."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", default)[:200]
    name = name if NAME.fullmatch(name) else f"seer_{name}"[:200]
    if "://" not in text and text.rstrip("/").endswith(SUFFIX):
        return Address(uri=os.path.abspath(text), name=name)
    try:
        parts = urlsplit(text)
    except ValueError:
        raise EngineError(f"{_hide(text)} names no search engine; allowed are {FORMS}.") from None
    if parts.scheme not in ("milvus", "milvus+https") or parts.query or parts.fragment:
        raise EngineError(f"{_hide(text)} names no search engine; allowed are {FORMS}.")
    if "@" in parts.netloc:
        raise EngineError(
            f"{_hide(text)} holds who asks. Leave that out, and set {TOKEN} to USER:PASSWORD or to a key."
        )
    place = _read_file(parts.path) if not parts.netloc else _read_server(parts.scheme, parts.netloc, parts.path)
    found = Address(**{"name": name, **place})
    if not NAME.fullmatch(found.name):
        raise EngineError(
            f"{found.name!r} is no name in Milvus: letters, digits and _ are allowed, 200 at most, a digit not first."
        )
    return found


def _hide(text: str) -> str:
    return re.sub(r"//[^/@]*@", "//...@", text)


def _read_file(path: str) -> dict:
    file, suffix, name = path.rpartition(SUFFIX)
    if not suffix or name.count("/") > 1 or (name and not name.startswith("/")):
        raise EngineError(f"milvus://{path} names neither a server nor a file; allowed are {FORMS}.")
    return {"uri": file + suffix} | ({"name": name[1:]} if name.strip("/") else {})


def _read_server(scheme: str, place: str, path: str) -> dict:
    *database, name = [part for part in path.split("/") if part] or [""]
    if len(database) > 1:
        raise EngineError(f"{scheme}://{place}{path} has more parts than HOST/DATABASE/NAME. Leave some out.")
    try:
        port = urlsplit(f"//{place}").port or PORT
    except ValueError:
        raise EngineError(f"{scheme}://{place} has no port that is a number up to 65535.") from None
    host = place.rpartition(":")[0] if re.search(r":\d*$", place) else place
    uri = f"{'https' if scheme.endswith('https') else 'http'}://{host}:{port}"
    return {"uri": uri, "database": "".join(database)} | ({"name": name} if name else {})


class Milvus:
    """One Milvus, connected to. Threads may share it.

    Args:
        makes_file: whether a file of milvus-lite that is not there is begun.
    Raises, as all that is asked of it: EngineMissing, EngineUnreachable, EngineError.
    """

    def __init__(self, address: Address, *, makes_file: bool = False) -> None:
        self.address = address
        self._client = _connect(address, makes_file)
        self.is_lite = "lite" in self._ask("get_server_version", seconds=CONNECT_SECONDS)
        # milvus-lite takes no other; a cluster keeps rows as the store has them.
        self._kind, self._number = ("FLOAT_VECTOR", np.float32) if self.is_lite else ("FLOAT16_VECTOR", np.float16)

    def close(self) -> None:
        """Give the connection back."""
        self._client.close()

    def _ask(self, question: str, *arguments: object, seconds: float | None = None, **options: object) -> Any:
        """What pymilvus answers; where nobody does, again for a moment: a server may be starting anew."""
        ends = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                with explain(self.address):
                    return getattr(self._client, question)(*arguments, timeout=seconds or ASK_SECONDS, **options)
            except EngineUnreachable:
                if time.monotonic() > ends:
                    raise
                time.sleep(LOOK_AGAIN_SECONDS)

    def find_target(self) -> str | None:
        """What the alias names, ours or not; None if there is no such alias."""
        try:
            return self._ask("describe_alias", self.address.name, seconds=CONNECT_SECONDS)["collection_name"]
        except VersionGone:
            return None

    def find(self, name: str) -> Version | None:
        """A version by name; None if there is none of ours."""
        try:
            told = self._ask("describe_collection", name)
        except VersionGone:
            return None
        properties = told.get("properties") or {}
        facts = _read_json(properties.get(FACTS) or told.get("description"))
        return facts and Version(name=name, facts=facts, measured=_read_json(properties.get(MEASURED)))

    def list_names(self) -> list[str]:
        """Of all collections there."""
        return sorted(self._ask("list_collections"))

    def begin(
        self, name: str, facts: dict, fields: Mapping[str, tuple[str, int | None]], vector: str, index: str
    ) -> None:
        """Make a version without rows. The first of the fields is its primary key, a dimension stands in the facts."""
        from pymilvus import DataType

        told = json.dumps(facts)
        with explain(self.address):
            schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False, description=told)
            for number, (field, (kind, longest)) in enumerate(fields.items()):
                more = {} if longest is None else {"max_length": longest}
                schema.add_field(field, DataType[kind], is_primary=not number, **more)
            schema.add_field(vector, DataType[self._kind], dim=facts["dimension"])
            how = self._client.prepare_index_params()
            how.add_index(vector, index_type=index, metric_type=METRIC, params=INDEXES[index][0])
        # With an index it is loaded at once, and rows can be counted.
        options = {"schema": schema, "index_params": how, "properties": {FACTS: told}}
        self._ask("create_collection", name, seconds=WORK_SECONDS, **options)

    def count(self, name: str, expression: str = "") -> int:
        """Rows of a version, whoever has just written them."""
        self.load(name)
        options = {"filter": expression, "output_fields": ["count(*)"], "consistency_level": "Strong"}
        return int(self._ask("query", name, seconds=WORK_SECONDS, **options)[0]["count(*)"])

    def write(self, name: str, records: Sequence[dict], vector: str, rows: np.ndarray, *, is_new: bool) -> None:
        """Write (n, D) float16 rows with what is held of them, a batch; unless they are new, in place of what is there.

        Milvus keeps rows of one key side by side: only an upsert may be repeated.
        """
        vectors = rows.astype(self._number)
        batch = [{**record, vector: values} for record, values in zip(records, vectors, strict=True)]
        with explain(self.address):
            (self._client.insert if is_new else self._client.upsert)(name, batch, timeout=WORK_SECONDS)

    def release(self, name: str) -> None:
        """Let go of what is loaded of a version before rows are written: it would only take memory meanwhile.

        And milvus-lite would write index files in the background, which a later load reads half written.
        """
        self._ask("release_collection", name)

    def settle(self, name: str, vector: str) -> None:
        """Wait until all rows are sealed and in the index, and load that."""
        self._ask("flush", name, seconds=WORK_SECONDS)
        while self._ask("describe_index", name, vector).get("pending_index_rows", 0):
            time.sleep(LOOK_AGAIN_SECONDS)
        self.load(name)

    def tell(self, name: str, measured: dict | None) -> None:
        """Say how right a version's answers are: it is whole from now on. None: it is not any more."""
        self._ask("alter_collection_properties", name, properties={MEASURED: json.dumps(measured)})

    def switch(self, name: str) -> None:
        """Let a version answer, in one step."""
        self._ask("create_alias" if self.find_target() is None else "alter_alias", name, self.address.name)

    def drop(self, name: str) -> None:
        """Remove a version."""
        self._ask("drop_collection", name)

    def load(self, name: str) -> None:
        """Make a version ready to be asked: milvus-lite forgets which ones were when it ends."""
        state = self._ask("get_load_state", name)["state"]
        if getattr(state, "name", str(state)) != "Loaded":
            self._ask("load_collection", name, seconds=WORK_SECONDS)

    def search(
        self, name: str, vector: str, key: str, queries: np.ndarray, count: int, index: str, expression: str = ""
    ) -> np.ndarray:
        """The rows of a version that seem nearest to each of (Q, D) queries.

        Returns: (Q, count) int64, nearest first; -1 where there are no more. Raises: VersionGone.
        """
        width = INDEXES[index][1]
        asked = {
            "data": list(queries.astype(self._number)),
            "anns_field": vector,
            "limit": count,
            "filter": expression,
            "search_params": {"metric_type": METRIC, "params": {width: count} if width else {}},
            # Without a field that is named, milvus-lite sends all of them, embeddings too.
            "output_fields": [key],
            "consistency_level": "Eventually",  # Nothing is written to a version that answers.
        }
        try:
            found = self._ask("search", name, **asked)
        except EngineNotLoaded:
            self.load(name)  # Who keeps the server has released it, or started it anew.
            found = self._ask("search", name, **asked)
        rows = np.full((len(queries), count), -1, dtype=np.int64)
        for place, nearest in enumerate(found):
            rows[place, : len(nearest)] = [one[key] for one in nearest]
        return rows


class EngineNotLoaded(EngineError):
    """A version is there and has to be loaded before it can be asked."""


def _connect(address: Address, makes_file: bool) -> "MilvusClient":
    try:
        from pymilvus import MilvusClient
    except ImportError as error:
        raise EngineMissing(f"Milvus needs pymilvus ({error}). Install it: pip install 'seer[milvus]'") from None
    # What goes wrong is told by the error; they would say it to the terminal as well, with a traceback.
    for name in ("pymilvus", "milvus_lite", "grpc"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if address.is_file:
        _require_lite(Path(address.uri), makes_file)
    with explain(address):
        who = {"token": os.environ.get(TOKEN, ""), "db_name": address.database}
        return MilvusClient(address.uri, **who, timeout=CONNECT_SECONDS, grpc_options=CHANNEL)


def _require_lite(file: Path, makes_file: bool) -> None:
    try:
        import milvus_lite  # noqa: F401
    except ImportError as error:
        raise EngineMissing(
            f"A file needs milvus-lite ({error}). Install it: pip install --no-deps milvus-lite (the faiss-cpu that it "
            "asks for would take the place of the FAISS that is here)."
        ) from None
    if not file.parent.is_dir():
        raise EngineError(f"There is no folder {file.parent} for {file.name}. Make it, or name another file.")
    if not file.exists():
        if not makes_file:
            raise EngineError(f"There is no {file}. Run seer publish --to {file}, or name another file.")
        _make_private(file)
    elif not _is_of_lite(file):
        raise EngineError(f"{file} is no database of milvus-lite. Name another file.")


def _make_private(file: Path) -> None:
    """It is a folder, and holds what the collection does: paths, and what pictures are like."""
    try:
        file.mkdir(mode=PRIVATE)
    except OSError as error:
        raise EngineError(
            f"{file} cannot be made ({error.strerror}). Allow writing in {file.parent}, or name another file."
        ) from error


def _is_of_lite(file: Path) -> bool:
    try:
        found = os.listdir(file)
    except OSError as error:
        raise EngineError(f"{file} is no database of milvus-lite that can be read ({error.strerror}).") from error
    # An empty one is what a run that was stopped early has left.
    return not found or not LITE_HAS.isdisjoint(found)


def _list_errors() -> tuple[type[Exception], ...]:
    from grpc import RpcError
    from pymilvus.exceptions import MilvusException

    return MilvusException, RpcError


@contextmanager
def explain(address: Address) -> Iterator[None]:
    """Turn what pymilvus raises into an EngineError."""
    try:
        yield
    except _list_errors() as error:
        code, text = getattr(error, "code", None), getattr(error, "message", None) or str(error)
        if callable(code):  # gRPC's own
            code, text = code(), error.details()
        raise _make_error(address, code, " ".join(str(text).split())) from None


def _make_error(address: Address, code: object, text: str) -> EngineError:
    if code in (NOT_FOUND, ALIAS_NOT_FOUND):
        return VersionGone(f"{address} does not hold what it was asked for ({text}). Run seer publish again.")
    if code == NOT_LOADED:
        return EngineNotLoaded(f"Milvus at {address} has not loaded what it was asked for ({text[:200]}).")
    if "Open local milvus failed" in text:
        return EngineUnreachable(
            f"{address.uri} cannot be opened: milvus-lite serves one process at a time, and another has it; or it may "
            "not be written. End that process (a page, perhaps), or run milvus-lite server --data-dir "
            f"{address.uri} and let both ask milvus://127.0.0.1:{PORT}/{address.name}"
        )
    if _is_unreachable(code, text):
        return EngineUnreachable(
            f"Milvus does not answer at {address} ({text[:200]}). See that it runs and can be reached. What was "
            "published stays; without --search-engine the index of this collection answers."
        )
    way = f" If {address.uri} is damaged, remove it and run seer publish." if address.is_file else ""
    return EngineError(f"Milvus at {address} refuses ({text[:400]}).{way}")


def _is_unreachable(code: object, text: str) -> bool:
    words = ("Fail connecting", "server unavailable", "UNAVAILABLE", "DEADLINE_EXCEEDED", "Retry timeout", "timed out")
    return getattr(code, "name", "") in ("UNAVAILABLE", "DEADLINE_EXCEEDED") or any(word in text for word in words)


def _read_json(text: str | None) -> dict | None:
    try:
        read = json.loads(text or "")
    except ValueError:
        return None
    return read if isinstance(read, dict) else None
