"""An installed Chromium, driven by Playwright, on the page of a running ComfyUI: for tests and makers."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tools.launch.chromium import find_chromium, use_wheel_node

if TYPE_CHECKING:
    from playwright.sync_api import ConsoleMessage, Page

    from tools.launch.client import ComfyClient

# Without them a headless Chromium calls home at every start, which a closed network refuses many times over.
_ARGUMENTS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# What the page would otherwise greet a new user with, on top of everything else.
_SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.InstalledVersion": "1.47.12",
    "Comfy.Release.Status": "what's new seen",
    "Comfy.Queue.QPOV2": False,
}

# ComfyUI draws nodes on a canvas, or as elements of the page ("Nodes 2.0"): the argument of `Studio.open`.
RENDERERS = {"classic": False, "nodes2": True}


# From here on the page's deprecated calls are kept, each time with the way to it, instead of written to the
# console once: whose script was first would else decide who is seen.
_KEEP_DEPRECATIONS = """
() => {
  window.kleinodDeprecations = [];
  Error.stackTraceLimit = 50;
  LiteGraph.alwaysRepeatWarnings = true;
  LiteGraph.onDeprecationWarning = [
    (text) => window.kleinodDeprecations.push({ text, stack: new Error().stack }),
  ];
}
"""


_BE_STILL = """
async (source) => {
  const look = eval(`(${source})`);
  let [last, same] = [null, 0];
  for (const ends = performance.now() + 60000; same < 5 && performance.now() < ends; ) {
    await new Promise((then) => setTimeout(() => requestAnimationFrame(then), 60));
    const now = look();
    same = now !== null && now === last ? same + 1 : 0;
    last = now;
  }
  if (same < 5) throw new Error("The page goes on changing.");
}
"""


class Studio:
    """ComfyUI's page in a browser: what a user sees, and what the browser's console said meanwhile."""

    def __init__(self, page: Page, client: ComfyClient) -> None:
        self.page = page
        self.client = client
        self.complaints: list[str] = []
        page.set_default_timeout(60_000)  # as below: half of that was too short on a busy machine
        page.on("console", self._note)
        # With the stack, which tells whose it is: a script's address is in it.
        page.on("pageerror", lambda error: self.complaints.append(f"page error: {error.stack or error}"))

    def wait_until_still(self, look: str) -> None:
        """Until a function of the page, given as text, has returned the same string five times in a row;
        what it returns while it is not yet time to look is null.
        """
        self.page.evaluate(_BE_STILL, look)

    def open(self, vue_nodes: bool = False) -> None:
        """Load the page with an empty graph, in classic or in Nodes 2.0 rendering."""
        for name, value in {**_SETTINGS, "Comfy.VueNodes.Enabled": vue_nodes}.items():
            self.client.post_json(f"/settings/{name}", value)
        self.page.goto(self.client.url, wait_until="domcontentloaded")
        # On two busy cores the page's own scripts alone have taken more than Playwright's 30 seconds.
        ready = "window.app?.graph !== undefined && window.app.canvas !== undefined"
        self.page.wait_for_function(ready, timeout=120_000)
        self.page.wait_for_function("window.app.extensionManager?.spinner === false", timeout=60_000)
        # Until the server has given the page its number, nothing of a run would reach it.
        self.page.wait_for_function("Boolean(window.app.api.clientId)")
        self.page.evaluate(_KEEP_DEPRECATIONS)
        self.page.evaluate("() => window.app.graph.clear()")

    def open_template(self, name: str, extension: str = "kleinod") -> None:
        """Go the way a new user goes: Templates, the extension's own shelf, a click on the card."""
        self.page.get_by_role("button", name="Templates").first.click()
        self.page.get_by_text(extension, exact=True).last.click()
        self.page.get_by_role("heading", name=name, exact=True).click()
        self.page.wait_for_function("window.app.graph.nodes.length > 0")
        self.page.wait_for_timeout(1000)  # the page checks for missing nodes and models after loading

    def open_settings(self, label: str) -> None:
        """Kleinod's part of the settings, once what has this label is there."""
        self.open()
        self.page.evaluate("() => window.app.extensionManager.command.execute('Comfy.ShowSettingsDialog')")
        self.page.get_by_text("Kleinod", exact=True).first.click()
        self.page.get_by_label(label).wait_for()

    def watch_runs(self) -> None:
        """From now on keep what the server tells the page about runs."""
        self.page.evaluate(
            """() => {
              window.kleinodRuns = [];
              const keep = (event) => window.kleinodRuns.push([event.type, event.detail]);
              for (const kind of ["execution_success", "execution_error", "execution_interrupted"])
                window.app.api.addEventListener(kind, keep);
            }"""
        )

    def press_run(self, timeout: float = 240.0, button: str = "Run") -> None:
        """Click Run and wait for the end; RuntimeError with the server's words if it was none. button: its
        name in the page's language.
        """
        self.watch_runs()
        self.page.get_by_role("button", name=button, exact=True).first.click()
        self.page.wait_for_function("window.kleinodRuns.length > 0", timeout=timeout * 1000)
        kind, detail = self.page.evaluate("window.kleinodRuns[0]")
        if kind != "execution_success":
            raise RuntimeError(f"{kind}: {detail}")

    def visible_dialogs(self) -> list[str]:
        """Texts of every dialog and error message that stands in a user's way."""
        found = self.page.locator("[role=dialog]:visible, .p-dialog:visible, .p-toast-message-error:visible")
        return [text.strip() for text in found.all_inner_texts()]

    def build_prompt(self) -> dict:
        """What the page would send for the graph it shows, without the titles."""
        prompt = self.page.evaluate("async () => (await window.app.graphToPrompt()).output")
        return {
            number: {"class_type": node["class_type"], "inputs": node["inputs"]}
            for number, node in prompt.items()
        }

    def deprecations(self, extension: str = "kleinod") -> set[str]:
        """The page's words about deprecated calls that came, anyhow, out of an extension's scripts."""
        seen = self.page.evaluate("() => window.kleinodDeprecations")
        return {call["text"] for call in seen if f"/extensions/{extension}/" in call["stack"]}

    def complaints_about(self, *words: str) -> list[str]:
        return [text for text in self.complaints if any(word.lower() in text.lower() for word in words)]

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text} ({message.location['url']})")


@contextlib.contextmanager
def open_studio(client: ComfyClient, width: int = 1600, height: int = 900) -> Iterator[Studio]:
    """A fresh browser without history on the server that `client` talks to."""
    from playwright.sync_api import sync_playwright

    use_wheel_node()
    with tempfile.TemporaryDirectory(prefix="kleinod-browser-") as profile, sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            profile,
            executable_path=find_chromium(),
            headless=True,
            # Chromium refuses its sandbox to root, which is what containers and CI machines run as.
            chromium_sandbox=not (hasattr(os, "geteuid") and os.geteuid() == 0),
            args=list(_ARGUMENTS),
            viewport={"width": width, "height": height},
        )
        try:
            yield Studio(context.pages[0] if context.pages else context.new_page(), client)
        finally:
            context.close()


def keep_screenshot(studio: Studio, folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    studio.page.screenshot(path=path)
    return path
