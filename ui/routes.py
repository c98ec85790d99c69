"""Our own addresses beside the page: thumbnails, originals, and a sign of life.

    /t/{content_hash}.webp      the thumbnail
    /o/{content_hash}           the original, as the file is; a format that browsers cannot show comes as a WebP picture
    /o/{content_hash}?download  the original as a file to keep, always as it is
    /map/{name}.bin             the points of the map; its name says of which images, so it never changes
    /healthz                    {"status": "ok", ...}

Rule: a picture is named by its content hash, never by a path, and what no collection that is shown has does not exist.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from indexer.collection import Collection
from seer_model.errors import UserError
from ui.map_drawing import name_map, pack_map
from ui.resources import is_model_loaded, list_shown, overview_of, shrink
from ui.texts import show_path

CONTENT_HASH = re.compile(r"[0-9a-f]{64}")
SHOWN_BY_BROWSERS = frozenset({"image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "image/avif"})
LARGE_PX = 2048
# A hash names one content for ever; private, because the pictures are nobody else's business.
FOR_EVER = {"Cache-Control": "private, max-age=31536000, immutable"}
# A picture is shown as a picture and as nothing else, whatever its bytes would like to be.
GUARDED = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox"}


def list_routes() -> list[BaseRoute]:
    """The routes that stand before Streamlit's own."""
    return [
        Route("/t/{name}.webp", serve_thumbnail),
        Route("/o/{name}", serve_original),
        # Streamlit answers an unknown address with its page; under ours it is not found.
        Route("/map/{name}.bin", serve_map),
        Route("/map/{rest:path}", serve_nothing),
        Route("/t/{rest:path}", serve_nothing),
        Route("/o/{rest:path}", serve_nothing),
        Route("/healthz", serve_health),
    ]


def serve_thumbnail(request: Request) -> Response:
    """The thumbnail of an image of the open collection."""
    return _serve(request, lambda collection, name: _show(collection.read_thumbnail(name), "image/webp"))


def serve_original(request: Request) -> Response:
    """The original of an image of the open collection."""
    return _serve(request, _keep if "download" in request.query_params else _show_original)


def serve_map(request: Request) -> Response:
    """The points of the map of the generation that answers, under the name that they have now."""
    for collection in _list_shown():
        with suppress(UserError):
            found = overview_of(collection).read_map()
            if found is not None and name_map(collection.read_generation(), found) == request.path_params["name"]:
                headers = {**FOR_EVER, **GUARDED}
                return Response(pack_map(found), media_type="application/octet-stream", headers=headers)
    return serve_nothing(request)


def serve_nothing(_: Request) -> Response:
    """What does not exist."""
    return Response("Not found", status_code=404, media_type="text/plain", headers=GUARDED)


def serve_health(_: Request) -> Response:
    """That the server answers, and whether a picture from outside would have to wait for the model."""
    return JSONResponse({"status": "ok", "is_model_loaded": is_model_loaded()}, headers={"Cache-Control": "no-store"})


def _serve(request: Request, make: Callable[[Collection, str], Response | None]) -> Response:
    name = request.path_params["name"]
    if not CONTENT_HASH.fullmatch(name):
        return serve_nothing(request)
    try:
        collection = next((one for one in _list_shown() if one.find_image(name) is not None), None)
        if collection is None:
            return serve_nothing(request)
        tag = f'"{name}"'
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"ETag": tag, **FOR_EVER})
        response = make(collection, name)
    except UserError:
        # No collection, an image removed meanwhile, an original that no longer decodes: not there, as far as this goes.
        return serve_nothing(request)
    if response is None:
        return serve_nothing(request)
    response.headers.update({"ETag": tag, **FOR_EVER, **GUARDED})
    return response


def _list_shown() -> list[Collection]:
    """Whose images may be seen. None where there is no collection."""
    try:
        return list_shown()
    except UserError:
        return []


def _show(picture: bytes | None, media_type: str) -> Response | None:
    return None if picture is None else Response(picture, media_type=media_type)


def _show_original(collection: Collection, name: str) -> Response | None:
    data, media_type = collection.read_original(name) or (None, "")
    if data is None or media_type in SHOWN_BY_BROWSERS:
        return _show(data, media_type)
    return _show(shrink(data, LARGE_PX, collection), "image/webp")


def _keep(collection: Collection, name: str) -> Response | None:
    data, media_type = collection.read_original(name) or (None, "")
    if data is None:
        return None
    file_name = show_path(collection.read_image(collection.find_image(name)).path.name)
    disposition = f"attachment; filename*=UTF-8''{quote(file_name, safe='')}"
    return Response(data, media_type=media_type, headers={"Content-Disposition": disposition})
