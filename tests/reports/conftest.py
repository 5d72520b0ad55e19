"""Answers with scores, and a real browser that opens pages and tells what they did."""

import dataclasses
import json
import os
import select
import shutil
import subprocess
import time
from typing import Any

import pytest

from lmirl_jax.rewards.scored import ScoredAnswer

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-pipe",
]
# The browser's own errands come to nothing, and so would whatever a page asked for.
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND"
SECONDS = 60


@pytest.fixture
def scored_answer():
    """Makes a `ScoredAnswer` of a text, a byte a token, whose rewards are given or 1 for each token."""

    def make(
        targets: str = "ab",
        *,
        example: int = 0,
        candidate: int = 0,
        total: float | None = None,
        v_0: float = 0.0,
        rest: float = 0.0,
        metrics: dict[str, float] | None = None,
        reward: list[float | None] | None = None,
        truncated: bool = False,
        inputs: str | None = None,
    ) -> ScoredAnswer:
        data = targets.encode()
        ends = [len(data[: i + 1].decode(errors="ignore")) for i in range(len(data))]
        offsets = [(begin, end) for begin, end in zip([0, *ends], ends, strict=False)]
        offsets += [] if truncated else [(len(targets), len(targets))]
        count = len(offsets)
        reward = reward or [1.0] * (count - truncated) + [None] * truncated
        known = [value for value in reward if value is not None]
        total = sum(known) if total is None else total
        zeros = (0.0,) * count
        return ScoredAnswer(
            example, candidate, inputs or f"prompt {example}", targets, "reference", None, truncated,
            tuple(range(count)), tuple(targets[begin:end] for begin, end in offsets), tuple(offsets), zeros, zeros,
            tuple(reward), zeros, zeros, None, total, total / max(len(known), 1), None, v_0, total - v_0 - rest,
            metrics or {},
        )  # fmt: skip

    return make


@dataclasses.dataclass
class Visit:
    """What a page did in the browser."""

    console: list[str]  # Messages and what the browser logs of the page: errors, warnings, refused requests.
    requests: list[str]  # The addresses that it asked for, but its own.
    values: list[Any]  # Of the expressions that were evaluated in it.


@pytest.fixture(scope="session")
def browser() -> str:
    """The path of a browser; skips where there is none."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser on PATH (looked for {', '.join(BROWSERS)}): pages are not opened")
    return found


@pytest.fixture
def visit(browser, tmp_path):
    """Opens a page in a fresh headless browser: `visit(path, *expressions, width=1280) -> Visit`."""

    def open_page(path, *expressions: str, width: int = 1280) -> Visit:
        with _Browser(browser, tmp_path / f"profile-{width}") as page:
            page.call("Log.enable")
            page.call("Network.enable")
            page.call("Runtime.enable")
            page.call("Page.enable")
            metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
            page.call("Emulation.setDeviceMetricsOverride", **metrics)
            address = path.as_uri()
            page.call("Page.navigate", url=address)
            page.wait("Page.loadEventFired")
            values = [
                page.call("Runtime.evaluate", expression=text, returnByValue=True)["result"].get("value")
                for text in expressions
            ]
            page.call("Page.captureScreenshot")  # Everything has been laid out and painted by then.
            events = page.events
        asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        said = [
            json.dumps(e["params"])
            for e in events
            if e["method"] in ("Log.entryAdded", "Runtime.consoleAPICalled")
        ]
        said += [json.dumps(e["params"]) for e in events if e["method"] == "Runtime.exceptionThrown"]
        return Visit(said, [url for url in asked if url != address], values)

    return open_page


class _Browser:
    """A browser process that is spoken to by pipes (the DevTools protocol: JSON, a 0 byte after each message)."""

    def __init__(self, path: str, profile):
        self.events: list[dict[str, Any]] = []
        self._number, self._rest = 0, b""
        their_in, self._out = os.pipe()
        self._in, their_out = os.pipe()
        command = ["bash", "-c", f'exec "$@" 3<&{their_in} 4>&{their_out}', "browser", path]
        self._process = subprocess.Popen(
            [*command, *FLAGS, OFFLINE, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(their_in, their_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(their_in)
        os.close(their_out)
        self._session: dict[str, str] = {}

    def __enter__(self) -> "_Browser":
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._session = {"sessionId": session}
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(SECONDS)
        os.close(self._in)
        os.close(self._out)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params, **self._session}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        return self._until(lambda answer: answer.get("id") == self._number)["result"]

    def wait(self, method: str) -> None:
        if all(event["method"] != method for event in self.events):
            self._until(lambda answer: answer.get("method") == method)

    def _until(self, wanted) -> dict[str, Any]:
        """The first message that is wanted; events are kept."""
        limit = time.monotonic() + SECONDS
        while True:
            while b"\0" not in self._rest:
                ready, _, _ = select.select([self._in], [], [], max(0.0, limit - time.monotonic()))
                data = os.read(self._in, 2**20) if ready else b""
                assert data, "the browser does not answer"
                self._rest += data
            line, self._rest = self._rest.split(b"\0", 1)
            message = json.loads(line)
            if "method" in message:
                self.events.append(message)
            if wanted(message):
                return message
