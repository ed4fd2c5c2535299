"""Chromium without a window, driven over its DevTools protocol on a pair of pipes: that needs no library and no port."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import tempfile
import time
from pathlib import Path

import psutil

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server"),
    "--remote-debugging-pipe",  # commands are read from descriptor 3, answers written to 4; each ends with a zero byte
)
SECONDS = 60  # for an answer, or for a condition to come true


class Browser:
    """One page in one process of the browser, both gone at the end of `with`. `requested` has the URLs that were asked for."""

    def __init__(self, width: int = 1200, height: int = 800):
        self.size = (width, height)
        self.requested: list[str] = []
        self._number, self._received = 0, b""

    def __enter__(self) -> Browser:
        self._folder = tempfile.mkdtemp(prefix="browser-")
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={self._folder}", f"--window-size={self.size[0]},{self.size[1]}"]
        # Away from 3 and 4, onto which the browser gets its ends.
        commands, self._commands, self._answers, answers = (
            fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for pipe in (os.pipe(), os.pipe()) for end in pipe
        )
        nowhere = os.open(os.devnull, os.O_RDWR)
        ends = [
            (os.POSIX_SPAWN_DUP2, *pair) for pair in ((nowhere, 0), (nowhere, 1), (nowhere, 2), (commands, 3), (answers, 4))
        ]
        environment = os.environ | {"TMPDIR": self._folder}  # it leaves a socket there
        self._process = psutil.Process(os.posix_spawn(CHROMIUM, command, environment, file_actions=ends))
        for end in (commands, answers, nowhere):
            os.close(end)
        self._session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "DOM"):
            self.call(f"{domain}.enable")
        self.resize(*self.size)
        return self

    def __exit__(self, *_) -> None:
        processes = [self._process, *self._process.children(recursive=True)]
        for process in processes:
            process.kill()
        psutil.wait_procs(processes)
        for end in (self._commands, self._answers):
            os.close(end)
        shutil.rmtree(self._folder)

    def call(self, method: str, **parameters) -> dict:
        """One command of the protocol and its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def resize(self, width: int, height: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def evaluate(self, expression: str):
        """The value of a JavaScript expression in the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"]["exception"]["description"])
        return result["result"].get("value")

    def wait(self, expression: str):
        """The value of an expression as soon as it is true."""
        deadline = time.monotonic() + SECONDS
        while not (value := self.evaluate(expression)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{expression} stayed {value!r}; the page says {self.evaluate('document.body.innerText')!r}")
            time.sleep(0.1)
        return value

    def choose_file(self, selector: str, file: Path) -> None:
        """Gives a file to an <input type=file>, as its dialog does."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def screenshot(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def _next(self) -> dict:
        """The next answer or event."""
        while b"\0" not in self._received:
            if not select.select([self._answers], [], [], SECONDS)[0]:
                raise TimeoutError("the browser does not answer")
            read = os.read(self._answers, 1 << 16)
            if not read:
                raise RuntimeError("the browser has ended")
            self._received += read
        message, _, self._received = self._received.partition(b"\0")
        answer = json.loads(message)
        if answer.get("method") == "Network.requestWillBeSent":
            self.requested.append(answer["params"]["request"]["url"])
        return answer
