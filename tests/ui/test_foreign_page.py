"""A page from elsewhere, in the browser of somebody who has ours open: what it can load of ours."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.ui.conftest import Gallery

pytestmark = pytest.mark.browser

TRY = """
async ([server, picture]) => {
  const come = (thing, good = "onload") => new Promise(done => {
    thing[good] = () => done("in");
    thing.onerror = () => done("out");
  });
  const put = (name, values) => document.head.appendChild(Object.assign(document.createElement(name), values));
  const ask = (path, how) => fetch(server + path, how).then(answer => answer.ok || how ? "in" : "out", () => "out");
  const tried = {
    image: come(Object.assign(new Image(), {src: server + picture})),
    script: come(put("script", {src: server + "/_stcore/health"})),
    style: come(put("link", {rel: "stylesheet", href: server + "/status"})),
    socket: come(new WebSocket(server.replace("http", "ws") + "/_stcore/stream"), "onopen"),
    read: ask("/healthz"),
    unread: ask(picture, {mode: "no-cors"}),
    upload: ask("/_stcore/upload_file/a/b", {method: "PUT", body: "x"}),
  };
  const ended = await Promise.all(Object.entries(tried).map(async ([name, end]) => [name, await end]));
  return Object.fromEntries(ended);
}
"""


FRAME = """
url => new Promise(done => {
  const frame = Object.assign(document.createElement("iframe"), {src: url, onload: () => done("loaded")});
  document.body.append(frame);
  setTimeout(() => done("nothing"), 3000);
})
"""


class Foreign(BaseHTTPRequestHandler):
    """An empty page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>elsewhere</title>")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def foreign() -> Iterator[str]:
    """A page on another port of this computer, the nearest that a foreign page can come. Yields: its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Foreign) as elsewhere:
        threading.Thread(target=elsewhere.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{elsewhere.server_port}"
        elsewhere.shutdown()


def test_a_page_from_elsewhere_loads_shows_and_sends_nothing(browser, server: str, gallery: Gallery, foreign: str):
    page = browser.new_page()
    picture = f"/t/{gallery.find_hash('picture-05.jpg')}.webp"
    page.goto(server)
    ours = page.evaluate(TRY, [server, picture])
    assert (ours["image"], ours["socket"], ours["read"], ours["unread"]) == ("in", "in", "in", "in")
    # Whether a frame with a download comes to an end would tell whether the picture is here.
    kept = f"{server}/o/{gallery.find_hash('picture-05.jpg')}?download"
    page.goto(foreign)
    assert page.evaluate(FRAME, kept) == page.evaluate(FRAME, kept.replace("/o/", "/o/f0")) == "loaded"
    assert set(page.evaluate(TRY, [server, picture]).values()) == {"out"}
    page.evaluate("url => document.body.append(Object.assign(document.createElement('iframe'), {src: url}))", server)
    page.wait_for_timeout(1000)
    assert {frame.url for frame in page.frames[1:]} == {"chrome-error://chromewebdata/"}
    page.close()
