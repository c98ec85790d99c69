"""The guard by itself: who passes and who does not, told to it as a server tells it."""

from collections.abc import Coroutine, Iterable

import pytest

from tests.ui.test_password import PASSWORD, basic
from ui.guard import LARGEST_BODY, Guard, is_same_address, limit_body, read_host, refuse
from ui.headers import list_headers
from ui.password import Lock
from ui.server import HostRefused, list_names, require_password

HEADERS = list_headers(b"")


class Inside:
    """What stands behind the guard; remembers who came."""

    def __init__(self, content_type: str = "text/html; charset=utf-8") -> None:
        self.calls: list[dict] = []
        self._start = {
            "type": "http.response.start", "status": 200, "headers": [(b"content-type", content_type.encode())]
        }  # fmt: skip

    async def __call__(self, scope, receive, send) -> None:
        self.calls.append(scope)
        await send({**self._start, "headers": list(self._start["headers"])})


def run(coroutine: Coroutine) -> None:
    """Run what never waits; asyncio would mind the browser's loop, where there is one beside."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits")


def call(
    inside: Inside, *, names: Iterable[str] = (), lock: Lock | None = None, kind: str = "http", method: str = "GET",
    path: str = "/", server: tuple[str, int] = ("127.0.0.1", 8501), client: str = "127.0.0.1", **headers: str,
) -> tuple[int, list[tuple[str, str]]]:  # fmt: skip
    """One call. Returns: the status and the headers of the answer."""
    given = {"host": "localhost", **{name.replace("_", "-"): value for name, value in headers.items()}}
    raw = [(name.encode(), value.encode("latin-1")) for name, value in given.items()]
    scope = {"type": kind, "method": method, "path": path, "headers": raw, "server": server, "client": (client, 1)}
    sent: list[dict] = []

    async def send(message: dict) -> None:
        sent.append(message)

    guard = Guard(inside, names=frozenset(names), lock=lock, headers=HEADERS)
    run(guard(scope, lambda: None, send))
    return sent[0]["status"], [(name.decode(), value.decode()) for name, value in sent[0]["headers"]]


# --- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["192.168.1.7", "192.168.1.7:8501", "pictures.lan", "PICTURES.lan:80", "localhost"])
def test_the_address_called_and_the_names_allowed_are_own(host: str):
    at = {"names": ["pictures.lan"], "server": ("192.168.1.7", 8501)}
    assert call(Inside(), host=host, **at)[0] == 200
    # A server on all networks of both versions of IP sees the older one's addresses like this.
    assert call(Inside(), host=host, names=["pictures.lan"], server=("::ffff:192.168.1.7", 8501))[0] == 200


@pytest.mark.parametrize(
    "host", ["192.168.1.8", "evil.example", "pictures.lan.evil.example", "x.pictures.lan", "", "0.0.0.0", "[::]", "*"]
)
def test_any_other_name_is_a_trick_also_where_the_page_listens_to_all(host: str):
    inside = Inside()
    at = {"names": ["pictures.lan"], "server": ("192.168.1.7", 8501), "lock": Lock(PASSWORD)}
    assert call(inside, host=host, authorization=basic(PASSWORD), **at)[0] == 403
    assert not inside.calls


def test_two_host_headers_are_as_bad_as_none():
    from starlette.datastructures import Headers

    twice = Headers(raw=[(b"host", b"localhost"), (b"host", b"evil.example")])
    assert read_host(twice) is None and read_host(Headers(raw=[])) is None
    assert read_host(Headers(raw=[(b"host", b"[::1]:8501")])) == "::1"
    for strange in (b"localhost:1@evil.example", b"[::1]evil.example", b"[::1", b"localhost/x", b"", b":80", b"a b"):
        assert read_host(Headers(raw=[(b"host", strange)])) is None


def test_addresses_are_compared_as_addresses():
    assert is_same_address("::1", "0:0:0:0:0:0:0:1")
    assert not is_same_address("name", "1.2.3.4") and not is_same_address("1.2.3.4", "1.2.3.5")


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "http://localhost:3000", "http://localhost.evil"])
def test_a_page_from_elsewhere_gets_nothing_even_from_another_port_of_this_computer(origin: str):
    for kind in ("http", "websocket"):
        assert call(inside := Inside(), kind=kind, host="localhost:8501", origin=origin)[0] == 403
        assert not inside.calls
    # A proxy that speaks TLS hands on the name that the browser knows.
    for own in ("http://localhost:8501", "https://localhost:8501"):
        assert call(Inside(), host="localhost:8501", origin=own)[0] == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_foreign_page_may_link_to_ours_and_load_nothing_of_it(site: str):
    for mode in ("no-cors", "cors", "websocket", ""):
        assert call(Inside(), sec_fetch_site=site, sec_fetch_mode=mode)[0] == 403
    link = {"sec_fetch_site": site, "sec_fetch_mode": "navigate"}
    assert call(Inside(), **link, sec_fetch_dest="document")[0] == 200
    for dest in ("iframe", "frame", "object", "embed", ""):
        assert call(Inside(), **link, sec_fetch_dest=dest)[0] == 403
    for picture in ("/t/x.webp", "/o/x"):
        assert call(Inside(), **link, sec_fetch_dest="document", path=picture)[0] == 403
    for own in ("same-origin", "none"):
        assert call(Inside(), sec_fetch_site=own, sec_fetch_mode="no-cors")[0] == 200


@pytest.mark.parametrize("path", ["/..", "/o/../x", "//etc", "/o//x", "/o/\0", "/o/x\n", "/o/\u202ex", "/o/..\\x"])
def test_an_address_that_nobody_was_given_is_not_found(path: str):
    assert call(inside := Inside(), path=path)[0] == 404
    assert not inside.calls


def test_a_bug_behind_it_is_answered_with_our_headers_and_raised_on():
    class Broken(Inside):
        async def __call__(self, scope, receive, send) -> None:
            raise RuntimeError("a bug")

    sent = []

    async def send(message: dict) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"localhost")]}
    guard = Guard(Broken(), names=frozenset(), lock=None, headers=HEADERS)
    with pytest.raises(RuntimeError, match="a bug"):
        run(guard({**scope, "server": ("127.0.0.1", 1), "client": ("127.0.0.1", 1)}, lambda: None, send))
    told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    assert sent[0]["status"] == 500 and b"a bug" not in sent[1]["body"]
    assert {name.lower(): value for name, value in HEADERS.items()}.items() <= told.items()


# --- the password ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_without_the_password_nobody_comes_in(kind: str):
    inside, lock = Inside(), Lock(PASSWORD)
    for authorization in ("", basic("wrong password"), "Bearer x"):
        status, headers = call(inside, lock=lock, kind=kind, authorization=authorization)
        assert status == 401 and ("www-authenticate", 'Basic realm="seer", charset="UTF-8"') in headers
        assert not [value for name, value in headers if name == "set-cookie"]
    assert not inside.calls
    assert call(inside, lock=lock, kind=kind, authorization=basic(PASSWORD))[0] == 200
    assert len(inside.calls) == 1


def test_who_guesses_is_made_to_wait_and_told_so():
    lock = Lock(PASSWORD)
    answers = [call(Inside(), lock=lock, authorization=basic(f"guess {number}")) for number in range(11)]
    assert [status for status, _ in answers] == [401] * 10 + [429]
    assert ("retry-after", "60") in answers[-1][1] and b"Wait a minute" in refuse(429, {"type": "http"}).body


def test_the_page_brings_a_ticket_that_opens_the_websocket_and_nothing_else():
    lock = Lock(PASSWORD)
    _, headers = call(Inside(), lock=lock, authorization=basic(PASSWORD), server=("127.0.0.1", 8765))
    cookie = next(value for name, value in headers if name == "set-cookie")
    assert cookie.startswith("seer-8765=") and cookie.endswith("; Path=/_stcore/stream; HttpOnly; SameSite=Strict")
    shown = {"lock": lock, "server": ("127.0.0.1", 8765), "cookie": cookie.split(";")[0]}
    assert call(Inside(), kind="websocket", **shown)[0] == 200
    assert call(Inside(), kind="http", **shown)[0] == 401
    assert call(Inside(), kind="websocket", lock=Lock(PASSWORD), cookie=cookie.split(";")[0])[0] == 401


def test_no_picture_and_no_page_without_a_password_brings_a_ticket():
    for inside, lock in ((Inside("image/webp"), Lock(PASSWORD)), (Inside(), None)):
        _, headers = call(inside, lock=lock, authorization=basic(PASSWORD))
        assert not [value for name, value in headers if name == "set-cookie"]


# --- methods, sizes, headers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "FOO"])
def test_nothing_but_uploads_answers_to_more_than_reading(method: str):
    upload = "/_stcore/upload_file/session/file"
    for path in ("/", "/t/x.webp", "/_stcore/agent/interact", "/_stcore/upload_file", "/x/_stcore/upload_file/a/b"):
        assert call(inside := Inside(), method=method, path=path)[0] == 405
        assert not inside.calls
    assert call(Inside(), method=method, path=upload)[0] == (200 if method in ("PUT", "DELETE") else 405)


def test_a_body_that_says_it_is_too_large_is_refused_unread():
    upload = {"method": "PUT", "path": "/_stcore/upload_file/session/file"}
    assert call(inside := Inside(), content_length=str(LARGEST_BODY + 1), **upload)[0] == 413
    assert not inside.calls
    assert call(inside, content_length=str(LARGEST_BODY), **upload)[0] == 200


def test_a_body_that_says_nothing_is_cut_off_where_it_becomes_too_large():
    from starlette.exceptions import HTTPException

    async def receive() -> dict:
        return {"type": "http.request", "body": b"x" * 40, "more_body": True}

    within = limit_body(receive, largest=100)

    async def read(count: int) -> None:
        for _ in range(count):
            await within()

    run(read(2))
    with pytest.raises(HTTPException) as refusal:
        run(read(1))
    assert refusal.value.status_code == 413


def test_every_answer_is_hardened_and_a_route_that_says_more_is_not_overruled():
    for options in ({}, {"host": "evil.example"}, {"kind": "websocket", "host": "evil.example"}):
        _, headers = call(Inside(), **options)
        assert {name.lower(): value for name, value in HEADERS.items()}.items() <= dict(headers).items()
    inside = Inside()
    inside._start["headers"].append((b"content-security-policy", b"sandbox"))
    policies = [value for name, value in call(inside)[1] if name == "content-security-policy"]
    assert policies == ["sandbox"]


def test_scripts_that_stand_in_the_page_run_and_no_others():
    policy = list_headers(b"<script>\n  x = 1\n</script><script src='y'></script>")["Content-Security-Policy"]
    scripts = next(part for part in policy.split("; ") if part.startswith("script-src"))
    assert scripts == "script-src 'self' blob: 'sha256-BbJ+FSK+ErAV471Y8ZXwwfLNZHNs207gkT7PGBH0XE0='"
    assert "unsafe" not in scripts and "default-src 'self'" in policy and "frame-ancestors 'none'" in policy


# --- where to listen ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_loopback_needs_no_password_and_all_else_does(host: str):
    require_password(host, None)
    for other in ("0.0.0.0", "::", "192.168.1.7", "pictures.lan"):
        with pytest.raises(HostRefused, match="SEER_PASSWORD or --password-file"):
            require_password(other, None)
        require_password(other, PASSWORD)


def test_a_name_for_others_needs_a_password_on_loopback_too():
    for names in (["pictures.lan"], ["localhost", "10.0.0.1"]):
        with pytest.raises(HostRefused, match=f"--allow-host {names[-1]} would open"):
            require_password("127.0.0.1", None, names)
        require_password("127.0.0.1", PASSWORD, names)
    require_password("127.0.0.1", None, ["localhost", "::1"])


def test_an_empty_host_would_be_all_networks_and_is_refused():
    with pytest.raises(HostRefused, match="--host is empty"):
        require_password("", PASSWORD)


def test_the_names_are_those_given_and_the_own_one():
    assert list_names("192.168.1.7", ["Pictures.LAN"]) == ["pictures.lan", "192.168.1.7"]
    for everywhere in ("0.0.0.0", "::"):
        assert list_names(everywhere, [])[0] not in ("0.0.0.0", "::", "")


@pytest.mark.parametrize("name", ["*", "*.lan", "http://pictures.lan", "a.lan:80", "", "a b", "pictures.lan/", "."])
def test_what_is_no_name_is_refused(name: str):
    with pytest.raises(HostRefused, match="is no name"):
        list_names("127.0.0.1", [name])
