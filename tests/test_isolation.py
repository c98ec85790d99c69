"""The tests' own floor: they stay on this computer, in a home of their own; CI skips nothing; processes tell as one."""

import os
import socket
from collections import Counter
from types import SimpleNamespace

import pytest

from tests.conftest import escape, fail_in_ci_else_skip
from tests.danger import tally


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("2001:db8::1", 80, 0, 0)])
def test_a_connection_that_leaves_this_computer_is_refused(address):
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family) as connection:
        for connect in (connection.connect, connection.connect_ex):
            with pytest.raises(AssertionError, match="no network"):
                connect(address)


def test_no_name_is_looked_up():
    with pytest.raises(AssertionError, match="no network"):
        socket.getaddrinfo("example.org", 443)


def test_loopback_answers():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(("localhost", server.getsockname()[1]), timeout=5).close()


def test_every_test_has_a_home_of_its_own(seer_home):
    assert os.environ["SEER_HOME"] == str(seer_home)
    assert seer_home.is_dir() and not list(seer_home.iterdir())


@pytest.mark.parametrize("variable", ["CI", "SEER_CI"])
def test_what_is_missing_fails_in_ci_and_is_skipped_elsewhere(monkeypatch, variable):
    for name in ("CI", "SEER_CI"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(pytest.skip.Exception, match="no Chromium"):
        fail_in_ci_else_skip("There is no Chromium here.")
    monkeypatch.setenv(variable, "true")
    with pytest.raises(pytest.fail.Exception, match="no Chromium"):
        fail_in_ci_else_skip("There is no Chromium here.")


def test_a_report_that_holds_a_name_that_is_no_text_can_be_sent():
    report = {"sections": [("Captured log", "n\udcff.png: gone"), ("stdout", "é")], "longrepr": None, "duration": 0.5}
    sent = [("Captured log", "n\\udcff.png: gone"), ("stdout", "é")]
    assert escape(report) == report | {"sections": sent}


def test_what_several_processes_have_counted_is_told_as_one_sum(monkeypatch):
    monkeypatch.setattr(tally, "TALLY", Counter())
    workers = [SimpleNamespace(config=SimpleNamespace(workeroutput={})) for _ in range(2)]
    for count, worker in enumerate(workers, start=1):
        tally.TALLY.clear()
        tally.add("kills survived", count)
        tally.pytest_sessionfinish(worker)
    tally.TALLY.clear()
    for node in (*(worker.config for worker in workers), SimpleNamespace()):  # the last one was killed
        tally.pytest_testnodedown(node)
    tally.pytest_sessionfinish(SimpleNamespace(config=SimpleNamespace()))  # one that has no workers, or is none
    assert tally.TALLY == {"kills survived": 3}
