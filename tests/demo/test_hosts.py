"""The demo answers requests of its own page on this machine, and none of a foreign site."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.demo_process import address_in, running

pytest.importorskip("gradio")
httpx = pytest.importorskip("httpx")

from rfclip.clip.tiny import DRAWN_WORLD_ONLY  # noqa: E402  (after importorskip)
from rfclip.demo.hosts import LocalOnly  # noqa: E402  (needs starlette, which comes with gradio)

FOREIGN = [
    "evil.example",
    "evil.example:80",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "localhost:80@evil.example",
    "[::1].evil.example",
    "[::2]",
    "10.0.0.7",
    "0.0.0.0",
    "",
    "localhost:",
    "localhost:x",
]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What the demo printed; it runs until the module's tests are done."""
    with running(tmp_path_factory.mktemp("demo")) as text:
        yield text


def answer(said: str, method: str, path: str, headers: dict[str, str], **more: Any) -> Any:
    with httpx.Client(trust_env=False) as client:
        return client.request(method, address_in(said) + path, headers=headers, **more)


@pytest.mark.parametrize(
    ("method", "path", "more"),
    [
        ("GET", "/", {}),
        ("HEAD", "/", {}),
        ("GET", "/config", {}),
        ("POST", "/gradio_api/upload", {"files": {"files": ("a.png", b"x")}}),
        ("POST", "/gradio_api/queue/join", {"json": {"data": [], "fn_index": 0, "session_hash": "x"}}),
        ("GET", "/gradio_api/queue/data?session_hash=x", {}),
        ("GET", "/gradio_api/heartbeat/x", {}),
        ("OPTIONS", "/config", {}),
        ("GET", "/nothing", {}),
    ],
)
def test_a_name_that_was_made_to_point_here_is_refused_on_every_path(
    said: str, method: str, path: str, more: dict[str, Any]
) -> None:
    headers = {"Host": "evil.example", "Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    found = answer(said, method, path, headers, **more)
    assert found.status_code == 400
    assert "access-control-allow-origin" not in found.headers
    if method != "HEAD":
        assert found.text.startswith("This page is for 127.0.0.1, localhost and [::1] alone")


@pytest.mark.parametrize("host", FOREIGN)
def test_hosts_that_are_refused(said: str, host: str) -> None:
    assert answer(said, "GET", "/config", {"Host": host}).status_code == 400


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LocalHost:7860", "[::1]", "[::1]:8000"])
def test_names_of_this_machine_are_answered_on_any_port(said: str, host: str) -> None:
    assert answer(said, "GET", "/config", {"Host": host}).status_code == 200
    assert answer(said, "GET", "/config", {"Host": host, "Origin": f"http://{host}"}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://localhost:1", "https://127.0.0.1", "http://127.0.0.1.evil.example"],
)
def test_other_pages_can_send_nothing(said: str, origin: str) -> None:
    files = {"files": ("a.png", b"x")}
    found = answer(said, "POST", "/gradio_api/upload", {"Host": "127.0.0.1", "Origin": origin}, files=files)
    assert found.status_code == 403
    assert "takes requests of its own alone" in found.text


def test_the_page_says_what_the_model_knows(said: str) -> None:
    assert DRAWN_WORLD_ONLY in answer(said, "GET", "/config", {}).text
    assert said.count(DRAWN_WORLD_ONLY) == 1


def test_websockets_are_closed_before_they_are_accepted() -> None:
    sent: list[Any] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        sent.append("passed on")

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    for host in (b"evil.example", b"localhost:1"):
        asyncio.run(LocalOnly(inner)({"type": "websocket", "headers": [(b"host", host)]}, receive, send))
    assert sent == ["websocket.close", "passed on"]
