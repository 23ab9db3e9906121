"""BFL's klein endpoint as the seed document and BFL's OpenAPI text describe it."""

from __future__ import annotations

import base64
import binascii
import time
import uuid
from typing import Any

from .book import Book, Job
from .faults import Faults

ENDPOINTS = (
    "flux-2-klein-4b",
    "flux-2-klein-9b",
    "flux-2-klein-9b-preview",
    "flux-2-pro",
    "flux-pro-1.1",
    "flux-dev",
)
IMAGES = ("input_image", "input_image_2", "input_image_3", "input_image_4")
FIELDS = {
    "prompt",
    "seed",
    "width",
    "height",
    "safety_tolerance",
    "output_format",
    "webhook_url",
    "webhook_secret",
    "prompt_upsampling",
    "steps",
    "guidance",
    "image_prompt",
    "aspect_ratio",
    "raw",
    *IMAGES,
}


def _invalid(field: str, message: str) -> tuple[int, Any]:
    return 422, {"detail": [{"loc": ["body", field], "msg": message, "type": "value_error"}]}


def credits(request: dict) -> float:
    """Price in credits (1 = USD 0.01): first output megapixel 1.4, each further one 0.1, each input one
    0.1.
    """
    width, height = request.get("width") or 1024, request.get("height") or 1024
    megapixels = width * height / 1e6
    inputs = sum(1 for name in IMAGES if request.get(name))
    return round(1.4 + 0.1 * max(0.0, megapixels - 1) + 0.1 * inputs, 4)


class Bfl:
    """Answers BFL's submit, poll and credits. `address` starts the polling and delivery addresses."""

    def __init__(self, book: Book, faults: Faults, address: str, render) -> None:
        self.book, self.faults, self.address, self.render = book, faults, address, render

    def credits(self) -> tuple[int, Any]:
        return 200, {"credits": round(self.book.balance_usd * 100, 2)}

    def submit(self, endpoint: str, request: Any) -> tuple[int, Any]:
        if endpoint not in ENDPOINTS:
            return 404, {"detail": "Not Found"}
        refused = self._check(request)
        if refused:
            return refused
        self.book.submissions += 1
        cost = credits(request)
        if self.book.balance_usd < cost / 100:
            return 402, {"detail": "Insufficient credits"}
        seed = request.get("seed")
        seed = int.from_bytes(uuid.uuid4().bytes[:4], "big") if seed is None else seed
        job = self.book.accept("bfl", str(uuid.uuid4()), request, cost / 100, [seed])
        for outcome in ("request_moderated", "content_moderated", "failed_status", "never_finish"):
            if self.faults.take(outcome):
                job.outcome = outcome
        if job.outcome == "never_finish":
            job.items[0].ready_at = float("inf")
        host = "https://api.evil.example" if self.faults.take("foreign_polling_url") else self.address
        answer = {
            "id": job.id,
            "polling_url": f"{host}/v1/get_result?id={job.id}",
            "cost": cost,
            "input_mp": 0.0,
            "output_mp": round((request.get("width") or 1024) * (request.get("height") or 1024) / 1e6, 2),
        }
        if self.faults.take("no_polling_url"):
            answer.pop("polling_url")
        return 200, answer

    def _check(self, request: Any) -> tuple[int, Any] | None:
        if not isinstance(request, dict) or not isinstance(request.get("prompt"), str):
            return _invalid("prompt", "Field required")
        for name in request:
            if name not in FIELDS:
                return _invalid(name, "Extra inputs are not permitted")
        for name in ("width", "height"):
            value = request.get(name)
            if value is not None and (not isinstance(value, int) or value < 64 or value % 16):
                return _invalid(name, "Input should be a multiple of 16, greater than or equal to 64")
        if (request.get("width") or 0) * (request.get("height") or 0) > 4 * 2**20:
            return _invalid("width", "At most 4 megapixels")
        tolerance = request.get("safety_tolerance", 2)
        if not isinstance(tolerance, int) or not 0 <= tolerance <= 6:
            return _invalid("safety_tolerance", "Input should be between 0 and 5")
        if request.get("output_format", "jpeg") not in ("jpeg", "png", "webp", None):
            return _invalid("output_format", "Input should be 'jpeg' or 'png'")
        for name in IMAGES:
            value = request.get(name)
            if value and not value.startswith("http"):
                try:
                    base64.b64decode(value.rpartition(",")[2], validate=True)
                except binascii.Error:
                    return _invalid(name, "Neither a URL nor base64")
        return None

    def poll(self, job_id: str) -> tuple[int, Any]:
        job = self.book.jobs.get(job_id)
        base = {"id": job_id, "result": None, "progress": None, "details": None, "preview": None}
        if job is None or self.faults.take("poll_not_found"):
            return 200, base | {"status": "Task not found"}
        job.polls += 1
        now = time.monotonic()
        if self.faults.take("unknown_status"):
            return 200, base | {"status": "Reasoning", "progress": round(job.progress(now), 3)}
        if not job.is_done(now):
            return 200, base | {"status": "Pending", "progress": round(job.progress(now), 3)}
        if job.outcome == "request_moderated":
            return 200, base | {
                "status": "Request Moderated",
                "details": {"Moderation Reasons": ["Violence"]},
            }
        if job.outcome == "content_moderated":
            return 200, base | {"status": "Content Moderated", "details": {"Moderation Reasons": ["Nudity"]}}
        if job.outcome == "failed_status":
            return 200, base | {"status": "Error", "details": {"error": "The GPU caught a cold."}}
        if self.faults.take("ready_without_sample"):
            return 200, base | {"status": "Ready", "result": {}}
        return 200, base | {"status": "Ready", "progress": 1.0, "result": self._result(job)}

    def _result(self, job: Job) -> dict:
        item = job.items[0]
        ending = "png" if job.request.get("output_format") == "png" else "jpeg"
        host = "https://delivery.evil.example" if self.faults.take("foreign_sample") else self.address
        job.fresh += 1
        signed = f"se=2030-01-01T00%3A00%3A00Z&sig=a%2Bb%2F{job.fresh}%3D"
        return {
            "sample": f"{host}/picture/{item.id}.{ending}?{signed}",
            "prompt": job.request["prompt"],
            "seed": item.seed,
            "start_time": job.started,
            "duration": 1.0,
        }
