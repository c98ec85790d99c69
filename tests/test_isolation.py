"""The tests' own floor: they stay on this computer, in a home of their own, and CI skips nothing."""

import os
import socket

import pytest

from tests.conftest import fail_in_ci_else_skip


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
