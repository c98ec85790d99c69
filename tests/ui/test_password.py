"""The page's password: where it comes from, what is refused, and how guesses are slowed down."""

import ast
import base64
import inspect
import os
import random
import stat
import string
from pathlib import Path

import pytest

import ui.password
from ui.password import GUESSES_OF_ALL, GUESSES_OF_ONE, Lock, PasswordRefused, read_basic, read_password

PASSWORD = "correct horse: battery"


def basic(password: str, user: str = "anybody") -> str:
    """The Authorization header that a browser sends."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def write_password(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "password"
    path.write_bytes(text.encode())
    path.chmod(mode)
    return path


# --- where it comes from -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_file_holds_the_password_as_its_one_line(tmp_path: Path, ending: str):
    assert read_password(write_password(tmp_path, PASSWORD + ending)) == PASSWORD


def test_the_file_comes_before_the_environment_and_neither_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert read_password(None) is None
    monkeypatch.setenv("SEER_PASSWORD", "from the environment")
    assert read_password(None) == "from the environment"
    assert read_password(write_password(tmp_path, PASSWORD)) == PASSWORD


@pytest.mark.parametrize("password", ["", "elevenletter"[:11], "            "[:3]])
def test_a_short_password_is_refused_and_not_repeated(password: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SEER_PASSWORD", password)
    for path in (None, write_password(tmp_path, password)):
        with pytest.raises(PasswordRefused, match=f"has {len(password)} characters; 12 or more") as refusal:
            read_password(path)
        assert not password.strip() or password not in str(refusal.value)


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such modes")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o622])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int):
    path = write_password(tmp_path, PASSWORD, mode)
    with pytest.raises(PasswordRefused, match=f"chmod 600 {path}"):
        read_password(path)
    path.chmod(stat.S_IRUSR)
    assert read_password(path) == PASSWORD


def test_what_is_no_password_file_is_refused_in_a_sentence(tmp_path: Path):
    (tmp_path / "folder").mkdir(mode=0o700)
    write_password(tmp_path, "two lines\nin one file")
    (tmp_path / "latin").touch(mode=0o600)
    (tmp_path / "latin").write_bytes(b"\xe9" * 20)
    for name in ("folder", "missing", "latin", "password"):
        with pytest.raises(PasswordRefused, match=str(tmp_path / name)) as refusal:
            read_password(tmp_path / name)
        assert "Errno" not in str(refusal.value) and "codec" not in str(refusal.value)


# --- who knows it ------------------------------------------------------------------------------------------------


def test_the_right_password_opens_whoever_says_it():
    lock = Lock(PASSWORD)
    for user in ("", "me", "you"):
        assert lock.try_password("1.2.3.4", basic(PASSWORD, user)) is None


WRONG = (
    *("", "Basic", "Basic ", "Basic %%%", "Bearer " + PASSWORD, PASSWORD, basic(""), basic(PASSWORD + " ")),
    *(basic(PASSWORD[:-1]), basic(PASSWORD.upper()), "Basic " + base64.b64encode(PASSWORD.encode()).decode()),
    *("Basic \xff\xfe", "Basic " + base64.b64encode(b"x:\xff\x00").decode(), "Basic " + "A" * 60_000),
)


@pytest.mark.parametrize("authorization", WRONG, ids=range(len(WRONG)))
def test_anything_else_does_not(authorization: str):
    assert Lock(PASSWORD).try_password("1.2.3.4", authorization) == 401


def test_letters_of_any_alphabet_make_a_password():
    assert Lock("пароль-страницы").try_password("1.2.3.4", basic("пароль-страницы")) is None
    assert read_basic(basic("a:b:c")) == b"a:b:c"


def test_a_ticket_is_good_for_one_process():
    one, other = Lock(PASSWORD), Lock(PASSWORD)
    assert one.is_ticket(one.ticket)
    assert not any(map(one.is_ticket, (other.ticket, "", one.ticket[:-1], PASSWORD)))


def test_secrets_are_compared_in_constant_time_only():
    source = ast.parse(inspect.getsource(ui.password.Lock))
    compared = [ast.unparse(node) for node in ast.walk(source) if isinstance(node, ast.Call)]
    assert sum(call.startswith("hmac.compare_digest(") for call in compared) == 2
    others = [ast.unparse(node) for node in ast.walk(source) if isinstance(node, ast.Compare)]
    assert not [text for text in others if "_right" in text or "ticket" in text or "_secret" in text]


# --- guessing ----------------------------------------------------------------------------------------------------


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_ten_guesses_in_a_minute_close_the_door_to_one_caller_only():
    lock = Lock(PASSWORD, clock := Clock())
    answers = [lock.try_password("1.1.1.1", basic(f"guess {number}")) for number in range(GUESSES_OF_ONE + 5)]
    assert answers == [401] * GUESSES_OF_ONE + [429] * 5
    # Else the right one among the guesses would be told apart from the others.
    assert lock.try_password("1.1.1.1", basic(PASSWORD)) == 429
    assert lock.try_password("2.2.2.2", basic(PASSWORD)) is None
    clock.now = 60.0
    assert lock.try_password("1.1.1.1", basic(PASSWORD)) is None


def test_asking_without_a_password_or_again_with_the_same_is_no_guess():
    lock = Lock(PASSWORD, Clock())
    for _ in range(100):
        assert lock.try_password("1.1.1.1", "") == 401
        assert lock.try_password("1.1.1.1", basic("yesterday's password")) == 401
    for number in range(GUESSES_OF_ONE - 2):
        assert lock.try_password("1.1.1.1", basic(f"guess {number}")) == 401
    assert lock.try_password("1.1.1.1", basic(PASSWORD)) is None


def test_many_addresses_get_no_further_and_what_is_kept_of_them_is_bounded():
    lock = Lock(PASSWORD, clock := Clock())
    draw = random.Random(0)
    tried = 0
    for number in range(5000):
        clock.now = number / 100
        caller = "".join(draw.choices(string.hexdigits, k=8))
        tried += lock.try_password(caller, basic(f"guess {number}")) == 401
    assert tried == GUESSES_OF_ALL == len(lock._wrong)
