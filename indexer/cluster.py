"""A Ray cluster at work for a build: Ray Data carries output shards through the stages of `cluster_stages`.

    shards of waiting files -> read (tasks) -> decode (actors, on CPUs) -> embed (actors, one for each GPU) -> names

Ray places the stages, holds back those that are ahead, and does again what a lost node had in hand. A cluster without
GPUs embeds on its CPUs.

Rule: paths and settings go to the cluster, names of shards come back; the collection itself stays with who asks.
"""

import logging
import os
import socket
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from indexer.cluster_stages import (
    NETWORK,
    DecodeFiles,
    Embedder,
    Embedding,
    EmbedFiles,
    Row,
    read_files,
)
from indexer.decode import DecodeSettings
from indexer.fleet import About
from indexer.parts import PartTask, fill_if_reached
from seer_model.errors import DeviceError, SettingsError, UserError

READING_CPUS, DECODING_CPUS, NETWORK_CPUS = 0.05, 0.45, 0.05
"""What each asks for of one CPU, so that Ray places it. Where nodes are lost and two decoders share a CPU there is room
for a reader and a network, or one would wait for the other for ever. What they use is the system's matter."""
IN_FLIGHT = 2
"""Shards with each actor: one in hand, one waiting."""
HERE = "local"
"""Ray's word for a cluster that is started on this computer, and ends with its driver."""
MOST_PORT = 65_535
LISTENER_SECONDS = 10.0
"""How long the address of a cluster is waited for."""
TRIES = "RAY_gcs_server_port_wait_time_s"
"""Ray's name in the environment for how often it speaks to one; where it starts one itself, for something else."""
MOST_DEATHS = 8
"""Of actors and nodes over one shard, before it is given up."""


@dataclass(frozen=True)
class Plan:
    """How many of each stage there are, and on what."""

    device: str
    embedders: int
    decoders: int

    def count(self, stage: str) -> int:
        """Of one of the stages; readers are as many as decoders."""
        return self.embedders if stage == NETWORK else self.decoders


class Cluster:
    """The connection to a cluster, or to one that is started on this computer for as long as it is needed.

    Raises: SettingsError if Ray is not installed, or no cluster is at that address.
    """

    def __init__(self, address: str | None, device: str, workers: int | None = None) -> None:
        self._ray, self._embedder = _import_ray(), None
        _connect(self._ray, address)
        try:
            self.plan = self._make_plan(device, workers)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of it; what it has in hand for us ends."""
        self._ray.shutdown()

    def open_embedder(self, embedding: Embedding) -> About:
        """A model on one of the cluster's devices, until the next `run`. Raises: as `Embedder`."""
        # As an actor of its own, or each question would open the model anew.
        kind = self._ray.remote(**self._need_device(), max_restarts=MOST_DEATHS, max_task_retries=MOST_DEATHS)
        self._embedder = kind(Embedder).remote(embedding)
        return self._wait_for(self._embedder.describe.remote())

    def embed(self, embedding: Embedding, pixels: list[np.ndarray]) -> tuple[np.ndarray, list[bool]]:
        """As a `Lane`. Raises: as `Embedder`."""
        if self._embedder is None:
            self.open_embedder(embedding)
        return self._wait_for(self._embedder.embed.remote(pixels))

    def run(self, rows: list[Row], decoding: DecodeSettings, embedding: Embedding) -> Iterator[Row]:
        """Carry shards through all stages, and tell each in order once it is written, or has failed (`require_made`).

        Raises: DeviceError if the cluster is lost.
        """
        self._free_device()
        decoders, embedders = min(self.plan.decoders, len(rows)), min(self.plan.embedders, len(rows))
        made = self._ray.data.from_items(rows, override_num_blocks=len(rows))
        # So little is asked for that Ray would start a process for nearly every shard, each of which loads it anew.
        made = made.map(read_files, num_cpus=READING_CPUS, concurrency=decoders)
        made = made.map(DecodeFiles, fn_constructor_args=[decoding, 1], num_cpus=DECODING_CPUS, **self._pool(decoders))
        made = made.map(EmbedFiles, fn_constructor_args=[embedding], **self._need_device(), **self._pool(embedders))
        with _explain_loss(self._ray):
            yield from made.iter_rows()

    def fill_parts(self, tasks: Sequence[PartTask]) -> None:
        """Make parts of an index, one on each node at a time; nodes that do not reach its folder leave theirs undone.

        Raises: what the parts do; DeviceError if the cluster is lost.
        """
        self._free_device()
        # A whole node for each: a part takes all of its cores, and memory is that of one part.
        cpus = min(int(node["Resources"].get("CPU", 0)) or 1 for node in self._ray.nodes() if node["Alive"])
        fill = self._ray.remote(num_cpus=cpus, max_retries=MOST_DEATHS)(fill_if_reached)
        self._wait_for([fill.remote(task) for task in tasks])

    def _pool(self, size: int) -> dict[str, Any]:
        strategy = self._ray.data.ActorPoolStrategy(
            min_size=1, initial_size=size, max_size=size, max_tasks_in_flight_per_actor=IN_FLIGHT
        )
        # By themselves they would try for ever what their process dies of; there is no newer way to say so.
        warnings.filterwarnings("ignore", "`ray_remote_args", category=DeprecationWarning)
        return {"compute": strategy, "ray_remote_args_fn": partial(dict, max_restarts=-1, max_task_retries=MOST_DEATHS)}

    def _need_device(self) -> dict[str, float]:
        if self.plan.device == "cuda":
            return {"num_gpus": 1, "num_cpus": 0}
        return {"num_cpus": NETWORK_CPUS}

    def _free_device(self) -> None:
        if self._embedder is not None:
            self._ray.kill(self._embedder)
        self._embedder = None

    def _wait_for(self, asked: Any) -> Any:
        with _explain_loss(self._ray):
            return self._ray.get(asked)

    def _make_plan(self, device: str, workers: int | None) -> Plan:
        there = self._ray.cluster_resources()
        cpus, gpus = int(there.get("CPU", 0)), int(there.get("GPU", 0))
        if device == "cuda" and not gpus:
            raise DeviceError("No node of the cluster has a GPU. Add one, or give --device cpu.")
        kind = "cuda" if gpus and device != "cpu" else "cpu"
        return Plan(kind, max(1, gpus if kind == "cuda" else cpus // 2), max(1, workers or cpus))


def _import_ray() -> Any:
    # Before it is loaded: nothing of what a person does is told to anybody.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Its core writes of what it mends by itself into the middle of our lines.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # Nor what its nodes tell of each other: that goes to where our answer is, whatever `log_to_driver` says.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "^")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise SettingsError("--engine ray needs Ray, which is not installed: pip install 'seer[ray]'") from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = context.enable_auto_log_stats = False
    context.execution_options.preserve_order = True
    return ray


def _connect(ray: Any, address: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = address or os.environ.get("RAY_ADDRESS")
    address = None if address == HERE else address
    try:
        if address:
            _require_listener(address)
        with _muted(), _tried_once() if address else nullcontext():
            # Not one that somebody else has started here meanwhile.
            ray.init(address or HERE, include_dashboard=None if address else False, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        where = f"at {address}" if address else "on this computer"
        raise SettingsError(
            f"There is no Ray cluster {where} ({_take_first_line(error)}). Start one with `ray start --head`, give "
            "its address, or leave --address out: then one is started here."
        ) from error
    for name in ("ray", "ray.data"):
        _keep_off_terminal(logging.getLogger(name))


def _require_listener(address: str) -> None:
    """Ray itself would try for a quarter of an hour, without a word. Raises: OSError, ValueError if nobody is there."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        if int(port) > MOST_PORT:
            raise ValueError(f"ports end at {MOST_PORT}")
        socket.create_connection((host.strip("[]"), int(port)), timeout=LISTENER_SECONDS).close()


def _keep_off_terminal(logger: logging.Logger) -> None:
    """What it tells of failures goes to Ray's own files; a person gets a sentence of ours."""
    logger.setLevel(logging.ERROR)
    files = [one for one in logger.handlers if type(one).__name__ == "SessionFileHandler"]
    # Without any at all Python would print them.
    logger.handlers = [*files, logging.NullHandler()]


@contextmanager
def _tried_once() -> Iterator[None]:
    """Who is there and is no Ray cluster is spoken to for 40 s, not twenty times as long."""
    if TRIES in os.environ:
        yield
        return
    os.environ[TRIES] = "1"
    try:
        yield
    finally:
        del os.environ[TRIES]


@contextmanager
def _muted() -> Iterator[None]:
    """Ray's core says at its start that it is going to be quiet, past Python, in the middle of our progress."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def _explain_loss(ray: Any) -> Iterator[None]:
    """What a stage raised comes back as what it was."""
    try:
        yield
    except ray.exceptions.RayError as error:
        if (told := _find_user_error(error)) is not None:
            raise told from None
        raise DeviceError(
            f"The cluster lost what it had in hand ({type(error).__name__}: {_take_first_line(error)}). "
            "What was embedded is kept; look at its nodes, then run again."
        ) from error


def _take_first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def _find_user_error(error: BaseException | None) -> UserError | None:
    # The innermost: what Ray makes of one is one as well, with a traceback for its text.
    found = None
    while error is not None:
        found = error if isinstance(error, UserError) else found
        error = getattr(error, "cause", None) or error.__cause__
    return found
