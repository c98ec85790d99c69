"""Our own addresses, asked of a real server by hand: what is there, what is not, and who may ask."""

import http.client
import io
import json
import re
import socket
import time
from contextlib import closing
from urllib.parse import quote, urlsplit

import pytest
from PIL import Image

from tests.ui.conftest import HOSTILE_NAMES, Gallery


def ask(server: str, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """One GET. Returns: status, headers with lower-case names, body."""
    with closing(http.client.HTTPConnection(urlsplit(server).netloc, timeout=20)) as connection:
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        with connection.getresponse() as response:
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def ask_raw(server: str, target: bytes, host: str | None = None, method: bytes = b"GET") -> tuple[int, bytes]:
    """One call whose target goes out as it is. Returns: the status, 0 if the server hangs up; and the body."""
    address = urlsplit(server)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(method + b" " + target + b" HTTP/1.1\r\nConnection: close\r\n")
        connection.sendall(f"Host: {host or address.netloc}\r\n\r\n".encode())
        with connection.makefile("rb") as answer:
            head, _, body = answer.read().partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, body


def open_websocket(server: str, **headers: str) -> int:
    """The first step of a WebSocket. Returns: the status, 101 if it was opened."""
    offered = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "c2VlciBzZWVyIHNlZXIhIQ==",
    }
    with closing(http.client.HTTPConnection(urlsplit(server).netloc, timeout=20)) as connection:
        connection.request("GET", "/_stcore/stream", headers=offered | headers)
        with connection.getresponse() as response:
            return response.status


# --- thumbnails --------------------------------------------------------------------------------------------------


def test_a_thumbnail_is_a_small_webp_that_a_browser_may_keep_for_ever(server: str, gallery: Gallery):
    content_hash = gallery.find_hash("picture-05.jpg")
    status, headers, body = ask(server, f"/t/{content_hash}.webp")
    assert status == 200
    assert headers["content-type"] == "image/webp"
    assert headers["x-content-type-options"] == "nosniff"
    assert "immutable" in headers["cache-control"]
    with Image.open(io.BytesIO(body)) as picture:
        assert (picture.format, picture.size) == ("WEBP", (140, 120))


def test_a_browser_that_has_the_thumbnail_gets_no_second_one(server: str, gallery: Gallery):
    address = f"/t/{gallery.find_hash('picture-05.jpg')}.webp"
    tag = ask(server, address)[1]["etag"]
    status, headers, body = ask(server, address, If_None_Match=tag)
    assert (status, body, headers["etag"]) == (304, b"", tag)
    assert ask(server, address, If_None_Match='"another"')[0] == 200


NOT_THERE = (
    *(f"/t/{'0' * 64}.webp", f"/o/{'0' * 64}", "/t/.webp", "/t/", "/o/", "/t/x.webp", "/o/x"),
    *("/t/a/b/c.webp", "/o/a/b", f"/t/{'f' * 65}.webp", f"/o/{'a' * 5000}", f"/t/{'0' * 64}.png", f"/t/{'0' * 64}"),
    *("/t/-1.webp", "/o/18446744073709551616", "/o/1e309", f"/t/{'g' * 64}.webp", "/o/?download", "/o/x?download"),
)
REFUSED = (
    *("/t/../../etc/passwd.webp", "/t/../../etc/passwd", "/o/../ui/app.py", "/o//etc/passwd", "//etc/passwd", "/o/.."),
    *("/t/%2e%2e%2f%2e%2e%2fetc%2fpasswd.webp", "/o/%2e%2e%2fcatalog.sqlite", "/o/%2Fetc%2Fpasswd", "/o/..%2f..%2f"),
    *("/o/%252e%252e%252fcatalog.sqlite", "/t/%252Fetc%252Fpasswd.webp", "/o/%25252e", "/o/....//catalog.sqlite"),
    *("/o/%00", "/t/%00.webp", f"/o/{'0' * 64}%00", f"/t/{'0' * 63}%0a.webp", "/o/%ff%fe", "/o/%c0%ae%c0%ae%c0%af"),
    *("/t/%5c%5cserver%5cshare.webp", "/o/..%5c..%5ccatalog.sqlite", "/o/C:%5cwindows%5cwin.ini", "/o/%e2%88%95etc"),
    *("/static/../../../etc/passwd", "/static/%2e%2e/%2e%2e/etc/passwd", "/app/static/../script.py", "/media/../x"),
    *("/component/seer/../../x", "/_stcore/bidi-components/x/..%2f..%2fx", "/media/%2fetc%2fpasswd", "/media/x"),
)
"""The guard stops some of these before they come to our routes."""
PRIVATE = (b"Traceback", b"site-packages", b"/ui/", b"catalog.sqlite", b"root:", b".py", b"Error")


@pytest.mark.parametrize("address", [*NOT_THERE, *REFUSED])
def test_what_is_not_in_the_collection_is_not_found_and_nothing_is_said_about_it(server: str, address: str):
    status, body = ask_raw(server, address.encode())
    assert status == 404
    assert len(body) < 100 and not any(word in body for word in PRIVATE)


@pytest.mark.parametrize("target", [b"/o/\xe9", b"/o/\xff\xfe", b"http://evil.example/o/x", b"*"])
def test_a_target_that_is_none_is_refused(server: str, target: bytes):
    status, body = ask_raw(server, target)
    assert status in (0, 400, 404) and not any(word in body for word in PRIVATE)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_pictures_are_read_and_nothing_else(server: str, gallery: Gallery, method: str):
    content_hash = gallery.find_hash("picture-05.jpg")
    for address in (f"/t/{content_hash}.webp", f"/o/{content_hash}", "/healthz", "/", "/o/x"):
        status, body = ask_raw(server, address.encode(), method=method.encode())
        assert (status, body) == (405, b"Nothing here answers to this method.\n")


def test_a_head_is_the_answer_without_its_body_and_a_range_is_the_whole(server: str, gallery: Gallery):
    for address in (f"/t/{gallery.find_hash('picture-05.jpg')}.webp", f"/o/{gallery.find_hash('picture-05.jpg')}"):
        _, headers, whole = ask(server, address)
        with closing(http.client.HTTPConnection(urlsplit(server).netloc, timeout=20)) as connection:
            connection.request("HEAD", address)
            with connection.getresponse() as response:
                told = {name.lower(): value for name, value in response.getheaders()}
                assert (response.status, response.read()) == (200, b"")
        assert {**headers, "date": ""} == {**told, "date": ""} and int(told["content-length"]) == len(whole)
        for part in ("bytes=0-9", "bytes=-5", "bytes=999999999-", "bytes=5-2", "bytes=0-1,3-4", "x"):
            assert ask(server, address, Range=part)[::2] == (200, whole)


@pytest.mark.parametrize("spelling", [str.upper, "{} ".format, lambda text: text[:32] + " " + text[32:], "{}0".format])
def test_a_hash_is_asked_for_in_one_spelling_only(server: str, gallery: Gallery, spelling):
    content_hash = gallery.find_hash("picture-05.jpg")
    assert spelling(content_hash) != content_hash or content_hash.isdigit()
    for address in (f"/t/{quote(spelling(content_hash))}.webp", f"/o/{quote(spelling(content_hash))}"):
        assert ask(server, address)[0] == 404
    for after in ("%0a", "%20", "/", "."):
        assert ask(server, f"/t/{content_hash}.webp{after}")[0] == ask(server, f"/o/{content_hash}{after}")[0] == 404


def test_a_null_byte_or_control_sign_is_refused(server: str):
    for target in (b"/t/\x00.webp", b"/o/\x00", b"/t/a\x01.webp"):
        assert ask_raw(server, target)[0] in (0, 400, 404)


# --- originals ---------------------------------------------------------------------------------------------------


def test_an_original_is_the_file_as_it_is(server: str, gallery: Gallery):
    status, headers, body = ask(server, f"/o/{gallery.find_hash('picture-05.jpg')}")
    assert (status, headers["content-type"]) == (200, "image/jpeg")
    assert body == (gallery.pictures / "picture-05.jpg").read_bytes()
    assert headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in headers["content-security-policy"]
    assert "content-disposition" not in headers


def test_an_original_that_browsers_cannot_show_comes_as_webp_and_as_a_download(server: str, gallery: Gallery):
    content_hash = gallery.find_hash("scan.tiff")
    status, headers, body = ask(server, f"/o/{content_hash}")
    assert (status, headers["content-type"]) == (200, "image/webp")
    with Image.open(io.BytesIO(body)) as picture:
        assert (picture.format, picture.size) == ("WEBP", (140, 120))
    status, headers, body = ask(server, f"/o/{content_hash}?download")
    assert (status, headers["content-type"]) == (200, "image/tiff")
    assert body == (gallery.pictures / "scan.tiff").read_bytes()


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_download_has_the_files_name_whatever_it_is(server: str, gallery: Gallery, name: str):
    _, headers, _ = ask(server, f"/o/{gallery.find_hash(name)}?download")
    assert headers["content-disposition"] == f"attachment; filename*=UTF-8''{quote(name, safe='')}"


# --- who may ask -------------------------------------------------------------------------------------------------


def test_the_server_says_that_it_lives_and_loads_the_model_before_the_first_visit(server: str):
    for _ in range(300):
        status, _, body = ask(server, "/healthz")
        assert (status, json.loads(body)["status"]) == (200, "ok")
        if json.loads(body)["is_model_loaded"]:
            return
        time.sleep(0.1)
    pytest.fail("the model was not loaded")


ADDRESSES = ("/", "/status", "/healthz", "/_stcore/health", "/_stcore/host-config", "/static/index.html")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8501", "127.0.0.1.evil.example", "192.168.1.7", "[::2]"]
)
def test_a_foreign_name_for_this_computer_gets_nothing(server: str, gallery: Gallery, host: str):
    for address in (*ADDRESSES, f"/t/{gallery.find_hash('picture-05.jpg')}.webp"):
        assert ask_raw(server, address.encode(), host)[0] == 403
    assert open_websocket(server, Host=host) == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:99", "127.0.0.1", "[::1]:8501", "127.0.0.5"])
def test_every_loopback_name_is_one_of_ours(server: str, host: str):
    assert ask_raw(server, b"/healthz", host)[0] == 200


def test_a_foreign_page_cannot_open_our_websocket(server: str):
    assert open_websocket(server, Origin=server) == 101
    assert open_websocket(server, Origin="http://evil.example") == 403


def test_an_upload_needs_the_pages_own_token(server: str):
    with closing(http.client.HTTPConnection(urlsplit(server).netloc, timeout=20)) as connection:
        connection.request("PUT", "/_stcore/upload_file/some-session/some-file", body=b"x")
        with connection.getresponse() as response:
            assert response.status == 403


def test_the_page_names_no_other_computer(server: str):
    _, _, page = ask(server, "/")
    assert not re.findall(rb'(?:src|href)="(?:https?:)?//[^"]*"', page)
