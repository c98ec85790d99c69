"""What every test stands on: a home of its own, no network, a device, and the photos beside the repository.

Rule: a test never touches the person's own collections and models, and never leaves this computer.
"""

import ipaddress
import os
import socket
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from benchmarks.on_gpu import PLACE_OF_PHOTOS

VARIABLE, DEVICES = "SEER_TEST_DEVICE", ("cpu", "cuda", "pretended")
"""Where `tests.device` reads which one was chosen."""

pytest_plugins = ["tests.danger.tally"]

# Threads of OpenMP that wait burn their core, which another process of the tests could use. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    """The flag for what takes longer than a suite that is run at every change may."""
    parser.addoption("--long", action="store_true", help="longer versions of the tests of danger, and the marked ones")
    parser.addoption("--device", choices=DEVICES, default=DEVICES[0], help="where the tests of the network run")


def pytest_configure(config: pytest.Config) -> None:
    """Before any test is read: those that need a device ask `tests.device`."""
    os.environ[VARIABLE] = config.getoption("--device")
    if config.getoption("--device") == DEVICES[0]:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Also where there is one: the same tests everywhere.


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without the flag the long ones are deselected, and counted as that."""
    if config.getoption("--long"):
        return
    long = [item for item in items if item.get_closest_marker("long")]
    items[:] = [item for item in items if item not in long]
    config.hook.pytest_deselected(items=long)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, dict | None, object]:
    """Reports leave a worker process of pytest-xdist as text, and may hold file names that are none."""
    return escape((yield))


def escape(value: object) -> object:
    """The same, with a backslash before what is no text."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {key: escape(one) for key, one in value.items()}
    return type(value)(map(escape, value)) if isinstance(value, list | tuple) else value


def fail_in_ci_else_skip(reason: str) -> None:
    """What a test needs is not here: in CI that is a failure, on a person's computer a skip with the reason."""
    if os.environ.get("SEER_CI") or os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def photos_folder() -> Path:
    """The 699 real photos; read-only."""
    place = os.environ.get(PLACE_OF_PHOTOS)
    photos = Path(place) if place else REPOSITORY.parent / "shared" / "data" / "photos"
    if place and not (photos / "labels.csv").is_file():
        pytest.fail(f"{PLACE_OF_PHOTOS} names {photos}, where the photos and their labels.csv are not.")
    if not photos.is_dir():
        fail_in_ci_else_skip(f"There is no folder {photos}; the photos lie beside the repository, in shared/.")
    return photos


@pytest.fixture(autouse=True)
def seer_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The product's home folder, empty and new for each test."""
    home = tmp_path_factory.mktemp("seer-home")
    monkeypatch.setenv("SEER_HOME", str(home))
    return home


@pytest.fixture(autouse=True)
def given_way(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """By how much commands lowered their priority: not really, as that of the tests would never rise again."""
    from indexer import decode

    given = []
    monkeypatch.setattr(os, "nice", given.append)
    monkeypatch.setattr(decode, "NICENESS", 0)  # Beside another process of the tests they would wait.
    return given


@pytest.fixture(scope="session", autouse=True)
def device() -> Iterator[None]:
    """The device that was chosen, ready."""
    from tests.device import begin  # read when `pytest_configure` has set what it reads

    with begin():
        yield


@pytest.fixture(scope="session", autouse=True)
def isolated_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """From the first fixture on: no connection and no name look-up leaves this computer, and home is elsewhere."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("SEER_HOME", str(tmp_path_factory.mktemp("seer-home-of-session")))
        guard_network(monkeypatch)
        yield


def guard_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a check before each way out."""
    connect, connect_ex, look_up = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: object) -> None:
        _require_loopback(self, address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: object) -> int:
        _require_loopback(self, address)
        return connect_ex(self, address)

    def guarded_look_up(host: object, *args: object, **options: object) -> list:
        if not _is_loopback(host):
            raise OutsideConnection(f"A test looked up {host!r}; tests use no network.")
        return look_up(host, *args, **options)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_look_up)


class OutsideConnection(AssertionError):
    """A test tried to leave this computer."""


def _require_loopback(connection: socket.socket, address: object) -> None:
    if connection.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
        raise OutsideConnection(f"A test connected to {address!r}; tests use no network.")


def _is_loopback(host: object) -> bool:
    text = host.decode() if isinstance(host, bytes) else host
    if text in (None, "", "localhost"):
        return True
    try:
        # 0.0.0.0 is where a server listens, no place that a packet leaves for.
        address = ipaddress.ip_address(str(text).split("%")[0])
        return address.is_loopback or address.is_unspecified
    except ValueError:
        return False
