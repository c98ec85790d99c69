"""The page's password: where it comes from, and who knows it.

It is given in the environment or in a file, never as an argument: every user of the computer can list those.
Browsers ask for it by themselves (HTTP Basic; the user's name is free). Safari does not send it along when it opens a
WebSocket; there a ticket counts too, a cookie that came with the page and is good for this process only.

Rule: what a caller gives is only ever compared as a keyed hash, in constant time.
"""

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import stat
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from seer_model.errors import UserError

VARIABLE = "SEER_PASSWORD"
LEAST_LETTERS = 12
MOST_BYTES = 4096
GUESSES_OF_ONE = 10
"""Different wrong passwords that one caller may try in a minute."""
GUESSES_OF_ALL = 300
"""The same of all callers together, however many addresses they have."""
MINUTE = 60.0
WRONG, TOO_MANY = 401, 429


class PasswordRefused(UserError):
    """The password that the page was given is none, or others can read it."""


def read_password(path: Path | None) -> str | None:
    """The password in a file, else the one in the environment; None if neither is given.

    Raises: PasswordRefused if it is shorter than 12 characters, or if others than its owner can read the file.
    """
    if path is not None:
        return _require_length(_read_file(path), path)
    given = os.environ.get(VARIABLE)
    # Set, but empty, is a mistake in somebody's script and no wish to go without.
    return None if given is None else _require_length(given, VARIABLE)


def _read_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            # Of the file that is open, not of what may stand under its name a moment later.
            mode = os.fstat(file.fileno()).st_mode
            if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
                raise PasswordRefused(f"Other users can read {path}. Take that from them: chmod 600 {path}")
            text = file.read(MOST_BYTES + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror or error if isinstance(error, OSError) else "no text in UTF-8"
        raise PasswordRefused(
            f"The password file {path} cannot be read ({reason}). Name a text file with the password as its one line."
        ) from error
    return text.removesuffix("\n").removesuffix("\r")


def _require_length(password: str, place: Path | str) -> str:
    if len(password) < LEAST_LETTERS:
        raise PasswordRefused(
            f"The password in {place} has {len(password)} characters; {LEAST_LETTERS} or more are needed. "
            "Make one: python3 -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    if not password.isprintable() or len(password.encode()) > MOST_BYTES:
        raise PasswordRefused(f"The password in {place} is not one line of at most {MOST_BYTES} bytes. Write it anew.")
    return password


class Lock:
    """Knows the password, and keeps count of wrong ones."""

    def __init__(self, password: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._secret = secrets.token_bytes()
        self._right = self._hash(password.encode())
        self._clock = clock
        self._wrong: deque[tuple[float, str, bytes]] = deque()
        self.ticket = secrets.token_urlsafe()
        """What the page brings with it for opening the WebSocket."""

    def try_password(self, caller: str, authorization: str) -> int | None:
        """None if the Authorization header has the password; else the status of the answer, 401 or 429."""
        given = read_basic(authorization)
        if given is None:
            return WRONG
        guess = self._hash(given)
        if self._is_closed_to(caller):
            return TOO_MANY
        if hmac.compare_digest(guess, self._right):
            return None
        self._count(caller, guess)
        return WRONG

    def is_ticket(self, given: str) -> bool:
        """Whether it is the ticket of this process."""
        return hmac.compare_digest(self._hash(given.encode()), self._hash(self.ticket.encode()))

    def _hash(self, password: bytes) -> bytes:
        # Of one length whatever the password's, so that comparing tells nothing about it.
        return hmac.digest(self._secret, password, hashlib.sha256)

    def _is_closed_to(self, caller: str) -> bool:
        while self._wrong and self._wrong[0][0] <= self._clock() - MINUTE:
            self._wrong.popleft()
        of_one = sum(other == caller for _, other, _ in self._wrong)
        return of_one >= GUESSES_OF_ONE or len(self._wrong) >= GUESSES_OF_ALL

    def _count(self, caller: str, guess: bytes) -> None:
        # A tab that asks for thirty thumbnails with yesterday's password is wrong once.
        if not any((other, before) == (caller, guess) for _, other, before in self._wrong):
            self._wrong.append((self._clock(), caller, guess))


def read_basic(authorization: str) -> bytes | None:
    """The password in an Authorization header; None if there is none."""
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(credentials.strip(), validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return None
