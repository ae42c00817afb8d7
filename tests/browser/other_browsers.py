"""Firefox and WebKit as the system packages them, with the few methods of Playwright's ``Page`` that a tab needs.

Playwright drives only its own builds of these two. Firefox speaks WebDriver BiDi by itself, WebKitGTK brings a program
that speaks WebDriver; both protocols are JSON.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Error
from websockets.sync.client import ClientConnection, connect

from tests.eventually import eventually
from tests.ports import free_port

FIREFOX = ("firefox-esr", "firefox")
MINI_BROWSER = "/usr/lib/*/webkit2gtk-4.*/MiniBrowser"
TIMEOUT = 60.0


class RemotePage(ABC):
    """A page in another browser than Chromium."""

    @abstractmethod
    def goto(self, url: str) -> None: ...

    @abstractmethod
    def _run(self, body: str) -> str:
        """What the body of an asynchronous function returns, a string."""

    def evaluate(self, expression: str, argument: object = None) -> Any:
        """The value of an expression, or what a function returns that is given the argument."""
        body = (
            f"const value = ({expression}); const given = {json.dumps(argument)};"
            "return JSON.stringify({ value: await (typeof value === 'function' ? value(given) : value) });"
        )
        return json.loads(self._run(body)).get("value")

    def wait_for_function(self, expression: str, *, arg: object, polling: int, timeout: float) -> None:
        """``polling`` and ``timeout``: milliseconds. Raises Playwright's Error."""
        deadline = time.monotonic() + timeout / 1000
        while not self.evaluate(expression, arg):
            if time.monotonic() > deadline:
                raise Error("timeout")
            time.sleep(polling / 1000)


# --- Firefox: WebDriver BiDi (W3C) ---


class FirefoxPage(RemotePage):
    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._call("session.new", capabilities={})
        user = self._call("browser.createUserContext")["userContext"]
        self._context = self._call("browsingContext.create", type="tab", userContext=user)["context"]

    def _call(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            answer = json.loads(self._socket.recv(timeout=TIMEOUT))
            if answer.get("id") == number:
                if answer["type"] == "error":
                    raise Error(answer["message"])
                return answer["result"]

    def goto(self, url: str) -> None:
        self._call("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def _run(self, body: str) -> str:
        expression = f"(async () => {{ {body} }})()"
        target = {"context": self._context}
        answer = self._call("script.evaluate", expression=expression, target=target, awaitPromise=True)
        if answer["type"] == "exception":
            raise Error(answer["exceptionDetails"]["text"])
        value: str = answer["result"]["value"]
        return value


@contextlib.contextmanager
def firefox(home: Path) -> Iterator[RemotePage]:
    """A page in a Firefox of its own."""
    program = next(path for name in FIREFOX if (path := shutil.which(name)))
    arguments = [program, "--headless", "--no-remote", "--profile", str(home), "--remote-debugging-port", "0"]
    log = home / "log"
    with log.open("w") as output, _running(arguments, output, dict(os.environ)):
        address = eventually(lambda: re.findall(r"WebDriver BiDi listening on (ws://\S+)", log.read_text()), TIMEOUT)[0]
        with connect(f"{address}/session", max_size=None) as socket:
            yield FirefoxPage(socket)


# --- WebKit: WebDriver (W3C) ---


class WebKitPage(RemotePage):
    def __init__(self, driver: str, program: str) -> None:
        options = {"binary": program, "args": ["--automation"]}
        self._driver = driver
        wanted = {"capabilities": {"alwaysMatch": {"webkitgtk:browserOptions": options}}}
        self._session = f"/session/{self._call('POST', '/session', wanted)['sessionId']}"

    def _call(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._driver + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            with error:
                raise Error(error.read().decode()) from None

    def goto(self, url: str) -> None:
        self._call("POST", f"{self._session}/url", {"url": url})

    def _run(self, body: str) -> str:
        script = f"const done = arguments[0]; (async () => {{ {body} }})().then(done, (e) => done(`!${{e}}`));"
        value: str = self._call("POST", f"{self._session}/execute/async", {"script": script, "args": []})
        if value.startswith("!"):
            raise Error(value[1:])
        return value

    def close(self) -> None:
        self._call("DELETE", self._session)


@contextlib.contextmanager
def webkit(home: Path) -> Iterator[RemotePage]:
    """A page in a WebKitGTK of its own, on a screen that nobody sees."""
    port, screen = free_port(), free_port() % 10_000 + 100
    environ = {
        **os.environ,
        "DISPLAY": f":{screen}",
        "HOME": str(home),
        "LIBGL_ALWAYS_SOFTWARE": "1",
        "WEBKIT_DISABLE_COMPOSITING_MODE": "1",
        "WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS": "1",  # its sandbox does not work for root, nor in most containers
    }
    log = home / "log"
    with (
        log.open("w") as output,
        _running(["Xvfb", f":{screen}", "-screen", "0", "1000x800x24", "-nolisten", "tcp"], output, environ),
    ):
        eventually(lambda: Path(f"/tmp/.X11-unix/X{screen}").exists(), TIMEOUT)
        with _running(["WebKitWebDriver", f"--port={port}"], output, environ):
            driver = f"http://127.0.0.1:{port}"

            def is_up() -> bool:
                with contextlib.suppress(OSError), urllib.request.urlopen(f"{driver}/status", timeout=5):
                    return True
                return False

            eventually(is_up, TIMEOUT)
            page = WebKitPage(driver, glob.glob(MINI_BROWSER)[0])
            try:
                yield page
            finally:
                page.close()


@contextlib.contextmanager
def _running(arguments: list[str], output: Any, environ: dict[str, str]) -> Iterator[None]:
    """A program, and all that it has started."""
    process = subprocess.Popen(arguments, stdout=output, stderr=output, env=environ, start_new_session=True)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()


BROWSERS = {"firefox": firefox, "webkit": webkit}


def missing(browser: str) -> str | None:
    """What is not installed of a browser; ``None`` where it can be used."""
    if browser == "firefox":
        return None if any(map(shutil.which, FIREFOX)) else "firefox-esr"
    if not shutil.which("WebKitWebDriver") or not glob.glob(MINI_BROWSER):
        return "webkit2gtk-driver"
    return None if shutil.which("Xvfb") else "xvfb"
