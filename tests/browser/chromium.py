"""A headless Chromium that opens a local page with the network off and tells what went on in it.

Driven over the DevTools protocol (https://chromedevtools.github.io/devtools-protocol/) by aiohttp's
websocket client. One call, one page: `visit`.
"""

import asyncio
import base64
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
PATIENCE_S = 60.0
# Looks once a frame; two frames later what the page has made is on the screen.
SETTLED = """new Promise(done => {
  const look = () => (%s) ? requestAnimationFrame(() => requestAnimationFrame(done)) : requestAnimationFrame(look);
  look();
})"""


@dataclass(frozen=True)
class Wish:
    """What to open and how."""

    page: Path
    size: tuple[int, int]
    dark: bool
    until: str
    ask: Sequence[str]
    screenshot: Path | None
    whole: bool


@dataclass
class Visit:
    """What a page did: console errors and uncaught exceptions, requests beyond itself, values asked for."""

    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)


def executable() -> str:
    """Chromium's path; AssertionError where there is none (tests/browser/run installs it)."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    assert found is not None, "no Chromium here: run `make test-browser`, which installs it"
    return found


def visit(
    page: Path,
    *,
    width: int = 1280,
    height: int = 900,
    dark: bool = False,
    until: str = "true",
    ask: Sequence[str] = (),
    screenshot: Path | None = None,
    whole: bool = True,
) -> Visit:
    """Open `page` from disk, offline.

    Args:
        page: an HTML file.
        width, height: of the window, in CSS pixels.
        dark: the colour scheme the page is told the person prefers.
        until: JavaScript expression that is true once the page has drawn what it draws later.
        ask: JavaScript expressions (promises are awaited), answered in `Visit.values`.
        screenshot: PNG to write.
        whole: of the whole page, not only of what the window shows.
    """
    return asyncio.run(_visit(Wish(page.resolve(), (width, height), dark, until, ask, screenshot, whole)))


async def _visit(wish: Wish) -> Visit:
    with tempfile.TemporaryDirectory(prefix="tailgate-chromium-", ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            executable(),
            *FLAGS,
            f"--user-data-dir={profile}",
            "about:blank",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(PATIENCE_S):
                port = await _port(process)
                return await _look(port, wish)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _port(process: asyncio.subprocess.Process) -> int:
    """The DevTools port, which Chromium prints when it listens."""
    assert process.stderr is not None
    said = b""
    while line := await process.stderr.readline():
        said += line
        if b"DevTools listening on ws://" in line:
            return int(line.split(b"ws://")[1].split(b"/")[0].rpartition(b":")[2])
    raise AssertionError(f"Chromium ended: {said.decode(errors='replace')[-2000:]}")


async def _look(port: int, wish: Wish) -> Visit:
    url = f"http://127.0.0.1:{port}"
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{url}/json/list") as response:
            tabs = await response.json()
        socket_url = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        async with http.ws_connect(socket_url, max_msg_size=0) as socket:
            tab = _Tab(socket)
            for domain in ("Page", "Runtime", "Log", "Network"):
                await tab.call(f"{domain}.enable")
            await tab.call(
                "Network.emulateNetworkConditions",
                offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1,
            )  # fmt: skip
            width, height = wish.size
            await tab.call(
                "Emulation.setDeviceMetricsOverride",
                width=width, height=height, deviceScaleFactor=1, mobile=False,
            )  # fmt: skip
            scheme = {"name": "prefers-color-scheme", "value": "dark" if wish.dark else "light"}
            await tab.call("Emulation.setEmulatedMedia", features=[scheme])
            tab.visit.errors.clear()
            tab.visit.requests.clear()
            await tab.call("Page.navigate", url=wish.page.as_uri())
            await tab.loaded()
            await tab.evaluate(SETTLED % wish.until)
            for expression in wish.ask:
                tab.visit.values.append(await tab.evaluate(expression))
            if wish.screenshot is not None:
                shot = await tab.call("Page.captureScreenshot", format="png", captureBeyondViewport=wish.whole)
                wish.screenshot.parent.mkdir(parents=True, exist_ok=True)
                wish.screenshot.write_bytes(base64.b64decode(shot["data"]))
            tab.visit.requests = [r for r in tab.visit.requests if r.partition("#")[0] != wish.page.as_uri()]
            return tab.visit


class _Tab:
    """One page's DevTools session; events are booked while an answer is awaited."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._calls = 0
        self._loaded = False
        self.visit = Visit()

    async def call(self, method: str, **params: Any) -> Any:
        """Send a command; its result."""
        self._calls += 1
        number = self._calls
        await self._socket.send_str(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = await self._next()
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, f"{expression}: {answer['exceptionDetails']}"
        return answer["result"].get("value")

    async def loaded(self) -> None:
        """Wait for the page's load event."""
        while not self._loaded:
            await self._next()

    async def _next(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await self._socket.receive_str())
        params = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Runtime.exceptionThrown":
                detail = params["exceptionDetails"]
                self.visit.errors.append(detail.get("exception", {}).get("description", detail["text"]))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "assert"):
                texts = [str(a.get("value", a.get("description"))) for a in params["args"]]
                self.visit.errors.append(" ".join(texts))
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.visit.errors.append(params["entry"]["text"])
            case "Network.requestWillBeSent":
                url = params["request"]["url"]
                if not url.startswith(("data:", "blob:")):
                    self.visit.requests.append(url)
        return message
