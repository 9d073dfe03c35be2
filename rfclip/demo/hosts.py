"""Requests that do not come from a page of this machine are refused before anything of the demo sees them.

A browser lets a site whose name was made to point at 127.0.0.1 (DNS rebinding) talk to the demo as to itself, and lets
any site send forms there. The names in the Host and Origin headers give both away.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_LOCAL = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)


@asynccontextmanager
async def guarded(app: Starlette) -> AsyncIterator[None]:
    """Lifespan of an application that puts :class:`LocalOnly` before all else of it, other middleware included.

    Among the middleware it would stand behind gradio's own, which answers preflights, and lets any host read a refusal.
    """
    if app.middleware_stack is None:
        raise RuntimeError("the application begins its life before its middleware is built: Starlette has changed")
    app.middleware_stack = LocalOnly(app.middleware_stack)
    yield


class LocalOnly:
    """ASGI middleware that answers requests for this machine alone, on any port, and from its own page alone.

    A wrong Host header gives status 400, a foreign Origin header 403; a websocket is closed before it is accepted.

    Args:
        app: what answers the others.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or pass on."""
        refusal = None if scope["type"] == "lifespan" else refused(Headers(scope=scope))
        if refusal is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            status, sentence = refusal
            await PlainTextResponse(sentence, status)(scope, receive, send)


def refused(headers: Headers) -> tuple[int, str] | None:
    """HTTP status and sentence of a request that is not answered, or None."""
    hosts, origins = headers.getlist("host"), headers.getlist("origin")
    if len(hosts) != 1 or not _LOCAL.fullmatch(hosts[0]):
        asked = ", ".join(hosts) or "nothing"
        return 400, (
            f"This page is for 127.0.0.1, localhost and [::1] alone, and was asked for as {asked}: open the address "
            "that the demo printed."
        )
    if any(origin.lower() != f"http://{hosts[0].lower()}" for origin in origins):
        return 403, (
            f"This page takes requests of its own alone, and this one comes from {', '.join(origins)}: open the "
            "address that the demo printed."
        )
    return None
