"""BFL's klein endpoints: from the node's settings to the request, and from answers to a `Report`.

Follows BFL's document of /v1/flux-2-klein-4b. That model is the distilled klein, so there are no steps, no
guidance and no negative prompt here; and there is no batch: each picture is one paid call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..base.errors import InputError
from ..base.flux2 import MAX_SEED
from .report import FAILURE, MODERATION, Failure, Report, Result

ENDPOINTS = ("flux-2-klein-4b", "flux-2-klein-9b", "flux-2-klein-9b-preview")
OUTPUT_FORMATS = ("png", "jpeg")
MOST_IMAGES = 4
MOST_PIXELS = 4 * 2**20
# USD for the first output megapixel, and for each further one and each input image.
_PRICES = {
    "flux-2-klein-4b": (0.014, 0.001),
    "flux-2-klein-9b": (0.015, 0.002),
    "flux-2-klein-9b-preview": (0.015, 0.002),
}


@dataclass(frozen=True)
class BflRequest:
    """One submit. width, height 0: not sent, BFL decides. images: base64, in order, at most four."""

    prompt: str
    width: int = 0
    height: int = 0
    seed: int = 0
    endpoint: str = ENDPOINTS[0]
    safety_tolerance: int = 2
    output_format: str = "png"
    images: Sequence[str] = ()
    webhook_url: str = ""

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise InputError("prompt is empty, and BFL needs one. Write what the picture shows.")
        for name in ("width", "height"):
            value = getattr(self, name)
            if value and (value < 64 or value % 16):
                raise InputError(
                    f"{name} must be 0 (BFL decides) or a multiple of 16 from 64 on; got {value}."
                )
        if self.width * self.height > MOST_PIXELS:
            raise InputError(
                f"width x height is {self.width}x{self.height}, more than the 4 megapixels BFL makes."
            )
        if not 0 <= self.seed <= MAX_SEED:
            raise InputError(f"seed must be from 0 to {MAX_SEED}; got {self.seed}.")
        if not 0 <= self.safety_tolerance <= 5:
            raise InputError(f"safety_tolerance must be from 0 (strict) to 5; got {self.safety_tolerance}.")
        if self.endpoint not in ENDPOINTS:
            raise InputError(f"endpoint must be one of {', '.join(ENDPOINTS)}; got '{self.endpoint}'.")
        if self.output_format not in OUTPUT_FORMATS:
            raise InputError(f"output_format must be png or jpeg; got '{self.output_format}'.")
        if self.webhook_url and not self.webhook_url.startswith("https://"):
            raise InputError(f"webhook_url must start with https://, or be empty; got '{self.webhook_url}'.")
        if len(self.images) > MOST_IMAGES:
            raise InputError(
                f"There are {len(self.images)} input images, and BFL takes at most {MOST_IMAGES}. Connect "
                f"fewer; each "
                "frame of a batch counts as one."
            )

    def to_body(self) -> dict[str, Any]:
        """The JSON body; only what is set."""
        body: dict[str, Any] = {
            "prompt": self.prompt,
            "seed": self.seed,
            "output_format": self.output_format,
            "safety_tolerance": self.safety_tolerance,
        }
        for name in ("width", "height"):
            if getattr(self, name):
                body[name] = getattr(self, name)
        for index, image in enumerate(self.images):
            body["input_image" if index == 0 else f"input_image_{index + 1}"] = image
        return body | ({"webhook_url": self.webhook_url} if self.webhook_url else {})

    def estimate_usd(self) -> float:
        """BFL's list price, counting a megapixel for each input image."""
        first, further = _PRICES[self.endpoint]
        megapixels = (self.width or 1024) * (self.height or 1024) / 1e6
        return round(first + further * (max(0.0, megapixels - 1) + len(self.images)), 6)


def read_submit(body: Any) -> tuple[str, str, float | None] | None:
    """(id, polling address or "", cost in USD or None) of an accepted submit; None if it is no such
    answer.
    """
    if not isinstance(body, Mapping) or not isinstance(body.get("id"), str) or not body["id"]:
        return None
    cost = body.get("cost")
    usd = cost / 100 if isinstance(cost, (int, float)) and cost > 0 else None
    return body["id"], str(body.get("polling_url") or ""), usd


def read_report(body: Any) -> Report:
    """One answer to a poll. A status nobody has heard of means: still working."""
    if not isinstance(body, Mapping):
        return Report()
    status = str(body.get("status", "")).strip().lower()
    if status == "task not found":
        return Report(words="Task not found")
    progress = body.get("progress")
    progress = float(progress) if isinstance(progress, (int, float)) else None
    if "moderated" in status:
        which = "your prompt or image" if status.startswith("request") else "the finished picture"
        reasons = _read_reasons(body.get("details"))
        return Report(
            failures=(Failure(MODERATION, f"BFL's moderation stopped {which}{reasons}"),),
            known=True,
            final=True,
        )
    if status in ("error", "failed"):
        return Report(
            failures=(Failure(FAILURE, f"BFL reports an error{_read_reasons(body.get('details'))}"),),
            known=True,
            final=True,
        )
    result = body.get("result")
    if status == "ready" and isinstance(result, Mapping) and result.get("sample"):
        seed = result.get("seed")
        found = Result(
            str(body.get("id", "")), seed if isinstance(seed, int) else None, str(result["sample"])
        )
        return Report((found,), (), True, False, True, 1.0)
    return Report(known=bool(status), working=True, progress=progress, words=str(body.get("status", "")))


def read_error(body: Any, text: str) -> str:
    """BFL's reason in any of the shapes it comes in."""
    if isinstance(body, Mapping):
        detail = body.get("detail", body.get("message", body.get("error", body.get("details"))))
        if isinstance(detail, list):
            return "; ".join(
                f"{'.'.join(map(str, d.get('loc', ())[1:]))}: {d.get('msg', '')}"
                for d in detail
                if isinstance(d, Mapping)
            )
        if detail:
            return str(detail)
    return text or "no reason given"


def _read_reasons(details: Any) -> str:
    if isinstance(details, Mapping):
        reasons = details.get("Moderation Reasons") or details.get("error") or details.get("message")
        if isinstance(reasons, list):
            reasons = ", ".join(map(str, reasons))
        if reasons:
            return f": {reasons}"
    return f": {details}" if isinstance(details, str) and details else ""
