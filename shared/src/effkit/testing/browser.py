"""A web page as a browser shows it: headless Chromium, driven by its DevTools protocol over a pair of pipes.

Widths are those of the page itself (a window has a least width, an emulated device has none), and what is evaluated is
not subject to the page's own security policy.
"""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["Browser", "find_chromium"]

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless",
    "--remote-debugging-pipe",
    "--hide-scrollbars",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)
# Chromium reads from descriptor 3 and writes to 4; a process has other things there until it starts another program.
_BEGIN = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execvp(sys.argv[3], sys.argv[3:])"
)


def find_chromium() -> str | None:
    """The command of an installed Chromium or Chrome: the one that CHROME names, else the first on the path."""
    return os.environ.get("CHROME") or next(filter(None, map(shutil.which, _NAMES)), None)


class Browser:
    """A Chromium with one page.

    Args:
        command: What starts it, see `find_chromium`.
        profile: An empty folder for it.
        timeout: Seconds that an answer may take.

    Example:
        >>> with Browser("chromium", tmp_path) as browser:  # doctest: +SKIP
        ...     browser.open(Path("index.html"), width=390, dark=True)
        ...     browser.evaluate("document.title")
    """

    def __init__(self, command: str, profile: Path, timeout: float = 60) -> None:
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # Out of the way of 3 and 4.
        given = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs_in, theirs_out)]
        os.close(theirs_in)
        os.close(theirs_out)
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        words = [command, *_FLAGS, *sandbox, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", _BEGIN, *map(str, given), *words],
            pass_fds=given, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in given:
            os.close(end)
        self._timeout, self._numbers, self._read = timeout, itertools.count(1), b""
        self._session: str | None = None
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._send("Page.enable")

    def open(self, page: Path, width: int, height: int = 900, dark: bool = False) -> None:
        """Load a file and wait until it is complete.

        Args:
            page: The file.
            width: Of the page, in CSS pixels.
            height: The same.
            dark: The reader prefers dark colours.
        """
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._send("Emulation.setDeviceMetricsOverride", **size)
        self._send("Emulation.setEmulatedMedia", features=[scheme])
        self._send("Page.navigate", url=page.resolve().as_uri())
        self.evaluate(
            "new Promise(done => document.readyState == 'complete' ? done() : addEventListener('load', done))"
        )

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page, as JSON carries it; of a promise, what it comes to.

        Raises:
            RuntimeError: If the script raises.
        """
        answer = self._send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"in the page: {json.dumps(answer['exceptionDetails'])[:2000]}")
        return answer["result"].get("value")

    def screenshot(self, path: Path, whole: bool = True) -> Path:
        """Write what is seen, or the whole page, as PNG."""
        answer = self._send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))
        return path

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self._out)  # it ends when nobody can tell it anything any more
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)

    def _send(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        left = json.dumps(message).encode() + b"\0"
        while left:
            left = left[os.write(self._out, left) :]
        ends = time.monotonic() + self._timeout
        while True:
            while b"\0" not in self._read:
                if not select.select([self._in], [], [], max(0.0, ends - time.monotonic()))[0]:
                    raise TimeoutError(f"no answer to {method} in {self._timeout:g} s")
                read = os.read(self._in, 1 << 16)
                if not read:
                    raise RuntimeError(f"the browser ended before it answered {method}")
                self._read += read
            line, _, self._read = self._read.partition(b"\0")
            answer = json.loads(line)
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return dict(answer["result"])
