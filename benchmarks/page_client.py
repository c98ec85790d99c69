"""One person at the page, as the server sees a browser: Streamlit's protocol over its WebSocket, pictures over HTTP.

    async with PageSession("127.0.0.1", 8501) as page:
        start = await page.open()
        answer = await page.find_similar(start.cards[0].content_hash)

Sent is what Streamlit's own frontend sends: the token of its cookie as a subprotocol and with uploads, the query string
and the page, the uploader's state and the button that was pressed, the hashes of messages that it still has. Not sent
are the values of widgets that were left alone, and heartbeats. Nothing is drawn.

Rule: it only acts and reads what came; whether that is right, others judge.
"""

import asyncio
import json
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from time import perf_counter
from typing import Self
from urllib.parse import urlsplit

from streamlit.components.v2.bidi_component.main import _make_trigger_id
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.BidiComponent_pb2 import BidiComponent
from streamlit.proto.ClientState_pb2 import ClientState, ContextInfo
from streamlit.proto.Common_pb2 import FileUploaderState, UploadedFileInfo
from streamlit.proto.Element_pb2 import Element
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.asyncio.client import ClientConnection, connect

from ui.keys import Action, Key

COOKIE = "_streamlit_xsrf"
CONNECTIONS = 6
"""How many a browser opens to one host."""
FOOTER = re.compile(r"\bgeneration (\d+)\b")
WAIT_SECONDS = 120


class PageFailed(Exception):
    """The server answered otherwise than a page needs; said in words."""


@dataclass(frozen=True)
class Card:
    """One image of a gallery. `line` is what stands under it: the similarity, or a name on the start page."""

    content_hash: str
    line: str


@dataclass(kw_only=True)
class View:
    """What one run of the page's script has drawn."""

    elements: list[Element] = field(default_factory=list)
    status: int = -1
    """How the script ended, a `ForwardMsg.ScriptFinishedStatus`."""
    drawn_seconds: float = 0.0
    """From the person's action to the end of the script."""
    whole_seconds: float = 0.0
    """From the person's action to the last of the pictures."""
    fetched: int = 0
    """Pictures that were not in the browser's cache."""

    @property
    def cards(self) -> list[Card]:
        """The gallery, in order."""
        gallery = self.find_gallery()
        return [Card(one["image"], one["line"]) for one in json.loads(gallery.json)] if gallery else []

    @property
    def pictures(self) -> list[str]:
        """Addresses of all pictures in view, on the page's own host."""
        own = [image.url for element in self._list("imgs") for image in element.imgs.imgs]
        return [urlsplit(url).path for url in own] + [f"/t/{card.content_hash}.webp" for card in self.cards]

    @property
    def generation(self) -> str | None:
        """The generation that answered, as the footer says."""
        said = [found[1] for element in self._list("text") if (found := FOOTER.search(element.text.body))]
        return said[-1] if said else None

    @property
    def complaints(self) -> list[str]:
        """What the page itself says is wrong."""
        said = [element.alert.body for element in self._list("alert")]
        return said + [element.exception.message for element in self._list("exception")]

    def find_gallery(self) -> BidiComponent | None:
        """The component that draws the cards, where there are any."""
        found = (element.bidi_component for element in self._list("bidi_component"))
        return next((one for one in found if one.id.endswith(f"-{Key.GALLERY}")), None)

    def find_uploader(self) -> str:
        """The widget that takes a picture."""
        return self._list("file_uploader")[0].file_uploader.id

    def _list(self, kind: str) -> list[Element]:
        return [element for element in self.elements if element.WhichOneof("type") == kind]


class Connections:
    """The few kept connections of a browser to one host.

    Written out, since a library's client takes as much processor as the server that is measured, on the same cores.
    """

    def __init__(self, host: str, port: int) -> None:
        self._place = host, port
        self._free: asyncio.LifoQueue[tuple[asyncio.StreamReader, asyncio.StreamWriter] | None] = asyncio.LifoQueue()
        for _ in range(CONNECTIONS):
            self._free.put_nowait(None)

    async def ask(
        self, method: str, path: str, headers: Iterable[tuple[str, str]] = (), body: bytes = b""
    ) -> tuple[int, dict[str, str], bytes]:
        """One request. Returns: status, headers with lower-case names, body. Raises: PageFailed."""
        fields = (("Host", "{}:{}".format(*self._place)), ("Content-Length", str(len(body))), *headers)
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
        request = f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body
        kept = await self._free.get()
        try:
            for connection in (kept, None):  # A kept one may have been closed meanwhile: a browser asks again.
                used = connection or await asyncio.open_connection(*self._place)
                kept = None  # Until its answer was read to the end, it is of no use to another request.
                try:
                    used[1].write(request)
                    answer = await _read_answer(used[0])
                except (ConnectionError, asyncio.IncompleteReadError):
                    used[1].close()
                else:
                    kept = used
                    return answer
            raise PageFailed(f"{method} {path}: the server hung up")
        finally:
            self._free.put_nowait(kept)

    def close(self) -> None:
        """Give the connections back."""
        while not self._free.empty():
            if kept := self._free.get_nowait():
                kept[1].close()


async def _read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return int(head[0].split()[1]), headers, body


class PageSession:
    """One tab of one browser, with a cache of its own."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port, self._origin = host, port, f"http://{host}:{port}"
        self._connections = Connections(host, port)
        self._socket: ClientConnection | None = None
        self._cookie = self._session_id = self._page = ""
        self.query = ""
        """What the address bar shows behind the question mark."""
        self._kept_messages: set[str] = set()
        self._cache: set[str] = set()
        self.view = View()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def connect(self) -> None:
        """Fetch the cookie, and open the WebSocket."""
        _, headers, _ = await self._connections.ask("GET", "/_stcore/health")
        self._cookie = SimpleCookie(headers.get("set-cookie", ""))[COOKIE].value
        self._socket = await connect(
            f"ws://{self._host}:{self._port}/_stcore/stream",
            origin=self._origin,
            subprotocols=["streamlit", self._cookie],
            additional_headers={"Cookie": f"{COOKIE}={self._cookie}"},
            max_size=None,
        )

    async def close(self) -> None:
        """Leave the page."""
        if self._socket is not None:
            await self._socket.close()
        self._connections.close()

    async def open(self, query: str = "") -> View:
        """The first visit, at this query string."""
        self.query = query
        return await self._run(perf_counter())

    async def find_similar(self, content_hash: str) -> View:
        """Press "Find similar" on a card in view."""
        pressed = WidgetState(
            id=_make_trigger_id(self.view.find_gallery().id, "events"),
            json_trigger_value=json.dumps([{"event": Action.SIMILAR, "value": content_hash}]),
        )
        return await self._run(perf_counter(), pressed)

    async def upload(self, name: str, picture: bytes) -> View:
        """Drop a picture. The page empties the uploader, so its state is sent once."""
        started = perf_counter()
        request = BackMsg()
        request.file_urls_request.request_id = uuid.uuid4().hex
        request.file_urls_request.session_id = self._session_id
        request.file_urls_request.file_names.append(name)
        await self._socket.send(request.SerializeToString())
        (urls,) = (await self._receive("file_urls_response")).file_urls_response.file_urls
        await self._ask("PUT", urls.upload_url, 204, *_make_form(name, picture))
        info = UploadedFileInfo(name=name, size=len(picture), file_id=urls.file_id, file_urls=urls)
        dropped = FileUploaderState(uploaded_file_info=[info])
        return await self._run(started, WidgetState(id=self.view.find_uploader(), file_uploader_state_value=dropped))

    async def _run(self, started: float, *changed: WidgetState) -> View:
        """Let the script run, read what it draws, and fetch the pictures in view."""
        state = ClientState(query_string=self.query, page_script_hash=self._page)
        state.cached_message_hashes.extend(self._kept_messages)
        state.context_info.CopyFrom(
            ContextInfo(timezone="UTC", locale="en", url=f"{self._origin}/?{self.query}", color_scheme="light")
        )
        state.widget_states.widgets.extend(changed)
        await self._socket.send(BackMsg(rerun_script=state).SerializeToString())
        self.view = await self._read_view()
        self.view.drawn_seconds = perf_counter() - started
        fetched = await asyncio.gather(*map(self._fetch, dict.fromkeys(self.view.pictures)))
        self.view.fetched, self.view.whole_seconds = sum(fetched), perf_counter() - started
        return self.view

    async def _read_view(self) -> View:
        # By place: what is drawn twice in one place is seen once, and a spinner's place is not the answer's.
        drawn: dict[tuple[int, ...], Element] = {}
        while True:
            message = await self._receive()
            kind = message.WhichOneof("type")
            if kind == "new_session":
                drawn.clear()
                self._session_id = message.new_session.initialize.session_id
                self._page = message.new_session.page_script_hash
            elif kind == "navigation":
                self._page = message.navigation.page_script_hash
            elif kind == "page_info_changed":
                self.query = message.page_info_changed.query_string
            elif kind == "delta" and message.delta.HasField("new_element"):
                drawn[tuple(message.metadata.delta_path)] = message.delta.new_element
            elif kind == "script_finished":
                return View(elements=[drawn[path] for path in sorted(drawn)], status=message.script_finished)

    async def _receive(self, wanted: str | None = None) -> ForwardMsg:
        while True:
            async with asyncio.timeout(WAIT_SECONDS):
                message = ForwardMsg.FromString(await self._socket.recv())
            if message.metadata.cacheable:
                self._kept_messages.add(message.hash)
            if wanted in (None, message.WhichOneof("type")):
                return message

    async def _fetch(self, url: str) -> bool:
        """Fetch a picture unless it is in the cache. Returns: whether it was fetched."""
        if url in self._cache:
            return False
        headers, body = await self._ask("GET", url, 200)
        if not headers.get("content-type", "").startswith("image/") or not body:
            raise PageFailed(f"{url} is no picture")
        if "immutable" in headers.get("cache-control", ""):
            self._cache.add(url)
        return True

    async def _ask(
        self, method: str, path: str, expected: int, headers: Iterable[tuple[str, str]] = (), body: bytes = b""
    ) -> tuple[dict[str, str], bytes]:
        own = (("Cookie", f"{COOKIE}={self._cookie}"), ("X-Xsrftoken", self._cookie), ("Origin", self._origin))
        async with asyncio.timeout(WAIT_SECONDS):
            status, found, content = await self._connections.ask(method, path, (*own, *headers), body)
        if status != expected:
            raise PageFailed(f"{method} {path} has status {status}, expected {expected}")
        return found, content


def _make_form(name: str, picture: bytes) -> tuple[tuple[tuple[str, str]], bytes]:
    """A form with one file, as browsers send it: headers and body."""
    mark = uuid.uuid4().hex
    head = f'--{mark}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"\r\n'
    body = f"{head}Content-Type: image/png\r\n\r\n".encode() + picture + f"\r\n--{mark}--\r\n".encode()
    return (("Content-Type", f"multipart/form-data; boundary={mark}"),), body
