"""A page with a password, on all networks, as a person starts it: what strangers get, and what the person gets."""

import re
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from unittest.mock import MagicMock
from urllib.parse import urlsplit

import pytest
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ClientState_pb2 import ClientState
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.web.server.starlette.starlette_app import create_streamlit_routes
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.ui.conftest import Gallery, start_server
from tests.ui.test_cli_ui import run
from tests.ui.test_password import PASSWORD, basic, write_password
from tests.ui.test_routes import ask
from ui.app import MESSAGE_MB, list_options
from ui.cli import say_ready, ui_command
from ui.routes import list_routes

NAME = "pictures.example"
UPLOAD_MB = 3
OPEN_SETTINGS = {
    # What a person may have set for other programs made with Streamlit.
    "STREAMLIT_SERVER_ENABLE_XSRF_PROTECTION": "false",
    "STREAMLIT_SERVER_ENABLE_CORS": "false",
    "STREAMLIT_SERVER_ENABLE_AGENT_API": "true",
    "STREAMLIT_SERVER_ENABLE_STATIC_SERVING": "true",
    "STREAMLIT_SERVER_BASE_URL_PATH": "elsewhere",
    "STREAMLIT_SERVER_MAX_MESSAGE_SIZE": "500",
    "STREAMLIT_CLIENT_SHOW_ERROR_DETAILS": "full",
    "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "true",
    "STREAMLIT_GLOBAL_DEVELOPMENT_MODE": "true",
}
LARGEST_BODY = (UPLOAD_MB + 1) << 20
KEY = {"Authorization": basic(PASSWORD)}


@pytest.fixture(scope="module")
def locked(gallery: Gallery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`seer ui` with a password on all networks. Yields: its address on this computer."""
    home = tmp_path_factory.mktemp("locked")
    where = ("--host", "0.0.0.0", "--allow-host", NAME, "--port", "0", "--collection", str(gallery.place))
    secret = ("--password-file", str(write_password(home, PASSWORD)))
    # With a smaller limit for uploads: a hundred megabytes take their time.
    small = f"import ui.texts; ui.texts.UPLOAD_MB = {UPLOAD_MB}"
    process, address = start_server(home, "ui", *where, *secret, before=small, **OPEN_SETTINGS)
    assert address.startswith(f"http://{NAME}:")
    yield f"http://127.0.0.1:{urlsplit(address).port}"
    process.kill()
    complained = process.communicate()[1]
    assert PASSWORD not in complained


def send(server: str, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send bytes as they are, and read until the server hangs up. Returns: status (0: none), headers, body."""
    address = urlsplit(server)
    head, body = b"HTTP/1.1 0", b""
    with closing(socket.create_connection((address.hostname, address.port), timeout=20)) as connection:
        connection.sendall(request)
        with suppress(ConnectionResetError), connection.makefile("rb") as answer:
            head, _, body = answer.read().partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    return int(first.split()[1]), {line.split(":")[0].lower(): line.split(": ", 1)[1] for line in lines}, body


def make_request(method: str, target: str, *lines: str) -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: localhost", "Connection: close", *lines, "", ""]).encode()


def list_addresses() -> list[str]:
    """One address for each route that Streamlit registers, read from itself, and for each of ours."""
    streamlit = [getattr(route, "path", "") for route in create_streamlit_routes(MagicMock())]
    assert {"/_stcore/stream", "/_stcore/health", "/media/{file_id:path}"} < set(streamlit) and len(streamlit) > 15
    own = [route.path for route in list_routes()]
    more = ["/", "/status", "/static/index.html", "/index.html", "/app/static/x", "/favicon.png", "/no/such/page"]
    return sorted({re.sub(r"\{.*?\}", "x", path) for path in (*streamlit, *own, *more) if path})


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_without_the_password_no_address_answers_anything_but_401(locked: str, method: str):
    for address in list_addresses():
        status, headers, body = send(locked, make_request(method, address))
        assert (address, status) == (address, 401)
        assert body in (b"", b"This page has a password.\n")
        assert not {"set-cookie", "access-control-allow-origin"} & headers.keys()


def test_with_the_password_the_page_its_pictures_and_its_parts_answer(locked: str, gallery: Gallery):
    content_hash = gallery.find_hash("picture-05.jpg")
    for address in ("/", "/status", "/healthz", "/_stcore/health", f"/t/{content_hash}.webp", f"/o/{content_hash}"):
        assert ask(locked, address, **KEY)[0] == 200
        assert ask(locked, address, Authorization=basic("another password"))[0] == 401


def test_the_password_does_not_help_who_calls_the_page_by_a_foreign_name(locked: str):
    assert ask(locked, "/", Host=NAME, **KEY)[0] == 200
    for host in ("evil.example", "0.0.0.0", "10.1.2.3"):
        assert ask(locked, "/", Host=host, **KEY)[0] == 403
    assert ask(locked, "/", Origin="http://evil.example", **KEY)[0] == 403


# --- the WebSocket -----------------------------------------------------------------------------------------------


UNBOUNDED = {"proxy": None, "max_size": None, "max_queue": None}


def open_stream(server: str, **headers: str):
    """Open the page's WebSocket as a browser does; raises InvalidStatus where it is refused."""
    address = server.replace("http:", "ws:") + "/_stcore/stream"
    return connect(address, additional_headers=headers, subprotocols=["streamlit"], **UNBOUNDED)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": basic("another password")}, 401),
        ({"Cookie": "seer-1=x"}, 401),
        ({**KEY, "Origin": "http://evil.example"}, 403),
        ({**KEY, "Origin": "http://127.0.0.1:1"}, 403),
        ({**KEY, "Origin": "null"}, 403),
    ],
)
def test_a_stranger_or_a_foreign_page_opens_no_websocket(locked: str, headers: dict[str, str], status: int):
    with pytest.raises(InvalidStatus) as refusal, open_stream(locked, **headers):
        pass
    assert refusal.value.response.status_code == status


def test_the_password_opens_the_websocket_and_so_does_the_ticket_of_the_page(locked: str):
    ticket = ask(locked, "/", **KEY)[1]["set-cookie"].split(";")[0]
    for known in (KEY, {"Cookie": ticket}):
        with open_stream(locked, Origin=locked, **known) as stream:
            assert start_session(stream)


def start_session(stream) -> str:
    """Let the page's script run. Returns: the session's id, which uploads are named by."""
    stream.send(BackMsg(rerun_script=ClientState()).SerializeToString())
    while True:
        message = ForwardMsg.FromString(stream.recv(timeout=20))
        if message.WhichOneof("type") == "new_session":
            return message.new_session.initialize.session_id


def test_a_message_that_is_too_large_is_refused_unread_and_one_that_is_none_ends_the_websocket(locked: str):
    with open_stream(locked, **KEY) as stream, pytest.raises(ConnectionClosed) as closed:
        # The head of one frame, and nothing of what it announces.
        stream.socket.sendall(b"\x82\xff" + ((MESSAGE_MB << 20) + 1).to_bytes(8, "big") + bytes(4))
        stream.recv(timeout=20)
    assert closed.value.rcvd.code == 1009
    with open_stream(locked, **KEY) as stream, pytest.raises(ConnectionClosed) as closed:
        stream.send(b"\xff" * 100)
        stream.recv(timeout=20)
    assert closed.value.rcvd.code == 1002 and "Traceback" not in closed.value.rcvd.reason


# --- sizes -------------------------------------------------------------------------------------------------------

UPLOAD = "/_stcore/upload_file/session/file"
SAYS_KEY = f"Authorization: {KEY['Authorization']}"


def test_an_upload_that_is_too_large_is_refused_before_it_is_read(locked: str):
    # Nothing of the body is ever sent: who answers has not waited for it.
    request = make_request("PUT", UPLOAD, SAYS_KEY, f"Content-Length: {LARGEST_BODY + 1}")
    status, headers, _ = send(locked, request.replace(b"Connection: close\r\n", b""))
    assert (status, headers["connection"]) == (413, "close"), "what still comes is not even thrown away"
    assert send(locked, make_request("PUT", UPLOAD, f"Content-Length: {LARGEST_BODY + 1}"))[0] == 401
    assert send(locked, make_request("PUT", UPLOAD, SAYS_KEY, "Content-Length: 1" + "0" * 5000))[0] == 400
    assert send(locked, make_request("PUT", UPLOAD, SAYS_KEY, "Content-Length: 1"))[0] == 403, "no token of the page"


def test_an_upload_in_pieces_is_cut_off_where_it_becomes_too_large(locked: str):
    address = urlsplit(locked)
    token = ask(locked, "/_stcore/health", **KEY)[1]["set-cookie"].split(";")[0]
    token_lines = (SAYS_KEY, f"Cookie: {token}", f"X-Xsrftoken: {token.partition('=')[2]}")
    form_lines = ("Content-Type: multipart/form-data; boundary=edge", "Transfer-Encoding: chunked")
    form = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    connection = socket.create_connection((address.hostname, address.port), timeout=20)
    with open_stream(locked, **KEY) as stream, closing(connection):
        place = f"/_stcore/upload_file/{start_session(stream)}/file"
        connection.sendall(make_request("PUT", place, *token_lines, *form_lines))
        for piece in (form, *[bytes(1 << 20)] * (LARGEST_BODY >> 20)):
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        with connection.makefile("rb") as answer:
            assert answer.readline().split()[1] == b"413"
            # Streamlit's own sentence is another one: ours stands before it.
            assert f"This is larger than {UPLOAD_MB} MB.".encode() in answer.read()


def test_a_head_that_has_no_end_is_cut_off(locked: str):
    for request in (make_request("GET", "/", "X: " + "x" * 1_000_000), make_request("GET", "/" + "x" * 1_000_000)):
        assert send(locked, request)[0] in (0, 400)


# --- what the browser is told ------------------------------------------------------------------------------------


def test_the_page_stands_in_no_other_pages_frame_and_tells_nobody_where_it_was(locked: str):
    for headers in (ask(locked, "/", **KEY)[1], ask(locked, "/")[1], ask(locked, "/", Host="evil.example")[1]):
        assert headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"


def test_the_protections_are_on_whatever_the_persons_own_settings_say(locked: str):
    on = ("server.enableCORS", "server.enableXsrfProtection")
    off = ("browser.gatherUsageStats", "server.enableAgentApi", "server.enableStaticServing", "global.developmentMode")
    options = list_options("127.0.0.1", 8501)
    assert all(options[name] is True for name in on) and all(options[name] is False for name in off)
    # The server was started with settings that say the opposite.
    assert send(locked, make_request("DELETE", UPLOAD, SAYS_KEY))[0] == 403
    assert "access-control-allow-origin" not in ask(locked, "/_stcore/health", Origin=locked, **KEY)[1]
    assert b"the API is switched off" in ask(locked, "/_stcore/agent/openapi.json", **KEY)[2]


# --- the command -------------------------------------------------------------------------------------------------


def test_a_password_that_will_not_do_is_a_sentence_before_anything_starts(gallery: Gallery, tmp_path: Path):
    start = ("ui", "--collection", str(gallery.place), "--host", "0.0.0.0")
    readable = str(write_password(tmp_path, PASSWORD, mode=0o644))
    for ended, sentence in (
        (run(*start, "--password-file", readable), f"Other users can read {readable}"),
        (run("demo", str(tmp_path), "--port", "0", SEER_PASSWORD="short"), "SEER_PASSWORD has 5 characters"),
    ):
        assert (ended.returncode, ended.stdout) == (1, "")
        assert sentence in ended.stderr and ended.stderr.count("\n") == 1


def test_the_password_is_no_argument():
    assert "--password" not in {name for option in ui_command.params for name in option.opts}


def test_who_opens_the_page_to_others_is_told_that_nothing_is_encrypted(capsys: pytest.CaptureFixture):
    say_ready(["http://pictures.lan:8501"], "0.0.0.0", PASSWORD)
    said = capsys.readouterr().out
    assert "It asks for a password" in said and "Nothing is encrypted" in said and PASSWORD not in said
