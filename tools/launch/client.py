"""Talks to a running ComfyUI: HTTP for questions, the websocket for progress. One prompt at a time."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from . import LaunchError
from .websocket import WebSocket

# Numbers of ComfyUI's binary events (protocol.py) that bring a preview, without and with what it belongs to.
_PREVIEWS = (1, 4)


class WorkflowError(LaunchError):
    """ComfyUI refused a prompt or a node failed: `node_id` and `node_type` tell where."""

    def __init__(
        self, message: str, node_id: str = "", node_type: str = "", exception_type: str = ""
    ) -> None:
        super().__init__(message)
        self.node_id = node_id
        self.node_type = node_type
        self.exception_type = exception_type


class WorkflowInterrupted(LaunchError):
    """Somebody pressed Cancel."""


@dataclass(frozen=True)
class StepProgress:
    """Where the node at work is: `value` of `total` steps."""

    node_id: str
    value: float
    total: float


@dataclass
class RunResult:
    """What one prompt gave: `outputs` by node id, as in ComfyUI's history, and how many previews came."""

    prompt_id: str
    seconds: float = 0.0
    outputs: dict[str, dict] = field(default_factory=dict)
    previews: int = 0
    cached: list[str] = field(default_factory=list)

    def images(self) -> list[dict]:
        """Every image saved or previewed: `{"filename", "subfolder", "type"}` in node order."""
        return [image for output in self.outputs.values() for image in output.get("images", [])]


class ComfyClient:
    """A user of one server; several clients of the same server do not see each other's progress."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.client_id = uuid.uuid4().hex
        self.extra_data: dict[str, object] = {}  # what the page sends beside a prompt, its settings for one

    def get(self, path: str, timeout: float = 60.0) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=timeout) as answer:
            return answer.read()

    def get_json(self, path: str, timeout: float = 60.0) -> dict:
        return json.loads(self.get(path, timeout))

    def post_json(self, path: str, data: dict, timeout: float = 60.0) -> dict:
        request = urllib.request.Request(
            self.url + path, json.dumps(data).encode("utf-8"), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            body = answer.read()
        return json.loads(body) if body else {}

    def queue(self, prompt: dict) -> str:
        """Hand in an API-format prompt and return its id; WorkflowError when validation refuses it."""
        try:
            return self.post_json(
                "/prompt", {"prompt": prompt, "client_id": self.client_id, "extra_data": self.extra_data}
            )["prompt_id"]
        except urllib.error.HTTPError as error:
            raise _refusal(json.loads(error.read())) from None

    def run(
        self,
        prompt: dict,
        on_progress: Callable[[StepProgress], None] | None = None,
        silence: float = 300.0,
    ) -> RunResult:
        """Queue a prompt and wait for its end; TimeoutError after `silence` seconds without a message."""
        url = self.url.replace("http", "ws", 1)
        with WebSocket(f"{url}/ws?clientId={self.client_id}") as events:
            # Asks for previews as the web page does; without it the server would still send progress.
            events.send(json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}}))
            started = time.monotonic()
            result = RunResult(self.queue(prompt))
            failure = self._follow(events, result, on_progress, silence)
            result.seconds = time.monotonic() - started
        if failure is not None:
            raise failure
        result.outputs = self.get_json(f"/history/{result.prompt_id}")[result.prompt_id]["outputs"]
        return result

    def interrupt(self) -> None:
        self.post_json("/interrupt", {})

    def fetch_image(self, image: dict) -> bytes:
        """The file of one entry of `RunResult.images()`."""
        return self.get("/view?" + urllib.parse.urlencode(image, quote_via=urllib.parse.quote))

    def _follow(
        self,
        events: WebSocket,
        result: RunResult,
        on_progress: Callable[[StepProgress], None] | None,
        silence: float,
    ) -> LaunchError | None:
        """Read events until the server says that this prompt is over; return what went wrong, if any."""
        failure = None
        while True:
            message = events.receive(silence)
            if isinstance(message, bytes):
                result.previews += int.from_bytes(message[:4], "big") in _PREVIEWS
                continue
            event = json.loads(message)
            kind, data = event["type"], event["data"]
            if data.get("prompt_id") != result.prompt_id:
                continue
            if kind == "progress" and on_progress is not None:
                on_progress(StepProgress(data["node"], data["value"], data["max"]))
            elif kind == "execution_cached":
                result.cached = data["nodes"]
            elif kind == "execution_error":
                failure = WorkflowError(
                    data["exception_message"].strip(),
                    data["node_id"],
                    data["node_type"],
                    data["exception_type"],
                )
            elif kind == "execution_interrupted":
                failure = WorkflowInterrupted("The run was interrupted.")
            elif kind == "executing" and data["node"] is None:  # sent last, after the history was written
                return failure


def load_prompt(file: Path) -> dict:
    """Read an API-format workflow."""
    return json.loads(file.read_text(encoding="utf-8"))


def _refusal(answer: dict) -> WorkflowError:
    """Make one sentence of ComfyUI's answer to a prompt it will not run."""
    for node_id, node in answer.get("node_errors", {}).items():
        for error in node["errors"]:
            text = error["message"] + (f": {error['details']}" if error.get("details") else "")
            return WorkflowError(text, node_id, node["class_type"], error["type"])
    error = answer.get("error", {})
    if not isinstance(error, dict):
        return WorkflowError(str(error))
    details = f": {error['details']}" if error.get("details") else ""
    return WorkflowError(
        error.get("message", "ComfyUI refused the workflow") + details, "", "", error.get("type", "")
    )
