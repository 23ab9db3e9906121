"""Progress on the terminal: one line that rewrites itself, or plain lines into a file or CI."""

from __future__ import annotations

import shutil
import sys
import time

_QUIET_SECONDS = 10.0  # between two lines about the same step where a line cannot be rewritten


class Progress:
    """One step the reader waits for: `with Progress("PyTorch") as step: step.update("downloading")`."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.started = time.monotonic()
        self._live = sys.stdout.isatty()
        self._printed = 0.0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def update(self, detail: str) -> None:
        """Show what is happening now, with the time since the step began."""
        line = f"{self.title}: {detail} ({format_seconds(self.seconds)})"
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            sys.stdout.write("\r" + line[:width].ljust(width))
            sys.stdout.flush()
        elif time.monotonic() - self._printed > _QUIET_SECONDS:
            self._printed = time.monotonic()
            print(line, flush=True)

    def finish(self, result: str) -> None:
        """Replace the moving line by the lasting one."""
        self._wipe()
        print(f"{self.title}: {result}", flush=True)

    def _wipe(self) -> None:
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            sys.stdout.write("\r" + " " * width + "\r")
            sys.stdout.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self._wipe()


def format_bar(done: float, total: float, width: int = 24) -> str:
    """`[######......] 14/28`"""
    filled = int(width * done / total) if total else 0
    return f"[{'#' * filled}{'.' * (width - filled)}] {done:g}/{total:g}"


def format_seconds(seconds: float) -> str:
    """`4.2 s` below a minute, `3:07 min` above."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"
