"""Runware's task API as the seed document and Runware's own client describe it (model runware:400@5)."""

from __future__ import annotations

import base64
import math
import re
import time
import uuid
from typing import Any

from .book import Book, Job
from .faults import Faults
from .schedulers import SCHEDULERS

UUID4 = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")
TOP = {
    "taskType",
    "taskUUID",
    "outputType",
    "outputFormat",
    "outputQuality",
    "webhookURL",
    "deliveryMethod",
    "uploadEndpoint",
    "safety",
    "ttl",
    "includeCost",
    "numberResults",
    "acceleration",
    "acceleratorOptions",
    "inputs",
    "model",
    "positivePrompt",
    "negativePrompt",
    "width",
    "height",
    "seed",
    "steps",
    "scheduler",
    "CFGScale",
    "lora",
    "advancedFeatures",
    "settings",
    "routing",
}
CHOICES = {
    "outputType": ("URL", "base64Data", "dataURI"),
    "outputFormat": ("JPG", "PNG", "WEBP"),
    "deliveryMethod": ("sync", "async"),
    "acceleration": ("none", "low", "medium", "high"),
    "scheduler": SCHEDULERS,
}
RANGES = {
    "outputQuality": (20, 99, int),
    "ttl": (60, None, int),
    "numberResults": (1, 20, int),
    "width": (128, 2048, int),
    "height": (128, 2048, int),
    "seed": (0, 9223372036854776000, int),
    "steps": (1, 50, int),
    "CFGScale": (1, 20, float),
}
ACCELERATOR = {
    "cacheEndStep": (1, None, int),
    "cacheEndStepPercentage": (1, 100, int),
    "cacheMaxConsecutiveSteps": (1, 5, int),
    "cacheStartStep": (0, None, int),
    "cacheStartStepPercentage": (0, 99, int),
    "fbCacheThreshold": (0, 1, float),
    "teaCacheDistance": (0, 1, float),
    "dbCacheThreshold": (0, 1, float),
    "dbCacheSkipInterval": (1, None, int),
    "fbCache": bool,
    "teaCache": bool,
    "dbCache": bool,
}
ULTRALYTICS = {
    "CFGScale": (0, 50, float),
    "confidence": (0, 1, float),
    "maskBlur": (0, 100, int),
    "maskPadding": (0, 20, int),
    "steps": (1, 100, int),
    "strength": (0, 1, float),
    "negativePrompt": str,
    "positivePrompt": str,
}


class Refusal(Exception):
    """A request that was not accepted: HTTP status, Runware's code, message and parameter."""

    def __init__(self, status: int, code: str, message: str, parameter: Any = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.parameter = status, code, message, parameter


def price(task: dict) -> float:
    """USD for the whole task, after the four examples and the price line of the seed."""
    megapixels = task["width"] * task["height"] / 2**20
    references = len(task.get("inputs", {}).get("referenceImages", ()))
    one = 0.0019 * max(megapixels, 0.25) * task.get("steps", 28) / 28 * (1 + 1.5 * references)
    return math.ceil(one * 10000) / 10000 * task.get("numberResults", 1)


def _check_number(name: str, value: Any, rule: Any) -> None:
    kinds = {int: int, float: (int, float), bool: bool, str: str}
    kind = rule if isinstance(rule, type) else rule[2]
    if not isinstance(value, kinds[kind]) or (kind in (int, float) and isinstance(value, bool)):
        raise Refusal(400, "invalidParameterType", f"'{name}' must be of type {kind.__name__}.", name)
    if isinstance(rule, tuple):
        low, high, _ = rule
        if value < low or (high is not None and value > high):
            raise Refusal(
                400, "invalid" + name[0].upper() + name[1:], f"'{name}' must be {low}..{high}.", name
            )


def check(task: dict) -> None:
    """Everything the seed says about a request of 400@5; raises `Refusal`."""
    for name in task:
        if name not in TOP:
            raise Refusal(400, "unsupportedParameter", f"Unsupported use of '{name}' parameter.", name)
    if not UUID4.match(str(task.get("taskUUID", ""))):
        raise Refusal(400, "invalidTaskUUID", "'taskUUID' must be a UUID v4.", "taskUUID")
    for name in ("model", "positivePrompt", "width", "height"):
        if name not in task:
            raise Refusal(400, "missing" + name[0].upper() + name[1:], f"'{name}' is required.", name)
    if task["model"] not in ("runware:400@5", "runware:400@4"):
        raise Refusal(400, "invalidModel", "This emulator knows runware:400@5 and runware:400@4.", "model")
    for name in ("positivePrompt", "negativePrompt"):
        if name in task and not (isinstance(task[name], str) and 1 <= len(task[name]) <= 10000):
            raise Refusal(
                400, "invalid" + name[0].upper() + name[1:], f"'{name}': 1 to 10000 characters.", name
            )
    for name, allowed in CHOICES.items():
        if name in task and task[name] not in allowed:
            raise Refusal(
                400, "invalid" + name[0].upper() + name[1:], f"'{name}' must be in {allowed}.", name
            )
    for name, rule in RANGES.items():
        if name in task:
            _check_number(name, task[name], rule)
    for name in ("width", "height"):
        if task[name] % 16:
            raise Refusal(400, "invalid" + name.title(), f"'{name}' must be a multiple of 16.", name)
    _check_object(task.get("acceleratorOptions", {}), ACCELERATOR, "acceleratorOptions")
    _check_window(task)
    features = task.get("advancedFeatures", {})
    for name in features:
        if name != "ultralytics":
            raise Refusal(
                400, "unsupportedParameter", f"Unsupported use of '{name}'.", "advancedFeatures." + name
            )
    _check_object(features.get("ultralytics", {}), ULTRALYTICS, "advancedFeatures.ultralytics")
    safety = task.get("safety", {})
    _check_object({k: v for k, v in safety.items() if k != "mode"}, {"checkContent": bool}, "safety")
    if safety.get("mode", "none") not in ("none", "fast"):
        raise Refusal(400, "invalidSafetyMode", "'safety.mode' must be none or fast.", "safety.mode")
    for index, lora in enumerate(task.get("lora", ())):
        _check_object(
            {k: v for k, v in lora.items() if k != "transformer"},
            {"model": str, "weight": (-4, 4, float)},
            f"lora[{index}]",
        )
        if "model" not in lora or lora.get("transformer", "both") not in ("high", "low", "both"):
            raise Refusal(
                400, "invalidLora", "A LoRA needs a model and transformer high, low or both.", "lora"
            )
    references = task.get("inputs", {}).get("referenceImages", [])
    if set(task.get("inputs", {})) - {"referenceImages"} or not all(
        isinstance(r, str) and r for r in references
    ):
        raise Refusal(
            400, "invalidInputs", "'inputs' holds referenceImages only, an array of strings.", "inputs"
        )
    if len(references) > 4:
        raise Refusal(400, "invalidReferenceImages", "At most 4 reference images.", "inputs.referenceImages")
    for reference in references:
        if reference.startswith("data:") and not base64.b64decode(reference.partition(",")[2], validate=True):
            raise Refusal(400, "invalidReferenceImages", "Empty reference image.", "inputs.referenceImages")


def _check_object(value: dict, rules: dict, where: str) -> None:
    for name, entry in value.items():
        if name not in rules:
            raise Refusal(
                400, "unsupportedParameter", f"Unsupported use of '{where}.{name}'.", f"{where}.{name}"
            )
        _check_number(f"{where}.{name}", entry, rules[name])


def _check_window(task: dict) -> None:
    options = task.get("acceleratorOptions", {})
    steps = task.get("steps", 28)
    if sum(bool(options.get(name)) for name in ("fbCache", "teaCache", "dbCache")) > 1:
        raise Refusal(
            400, "conflictAcceleratorOptions", "One cache at a time.", ["fbCache", "teaCache", "dbCache"]
        )
    end = options.get("cacheEndStep")
    if end is not None and end > steps:
        raise Refusal(
            400, "invalidCacheEndStep", "'cacheEndStep' must be <= steps.", ["cacheEndStep", "steps"]
        )
    if options.get("cacheStartStep", 0) >= (end if end is not None else steps):
        raise Refusal(
            400, "invalidCacheStartStep", "'cacheStartStep' must be less than the end.", "cacheStartStep"
        )


class Runware:
    """Answers tasks. `address` is where pictures are fetched; `render(job, item)` gives image bytes."""

    def __init__(self, book: Book, faults: Faults, address: str, render) -> None:
        self.book, self.faults, self.address, self.render = book, faults, address, render

    def answer(self, tasks: list[dict], dry_run: bool = False) -> tuple[int, dict]:
        """(HTTP status, body) for an authenticated array of tasks; sync tasks block until they are done."""
        data: list[dict] = []
        errors: list[dict] = []
        status = 200
        for task in tasks:
            try:
                data += self._one(task, errors, dry_run)
            except Refusal as refusal:
                status = refusal.status
                errors.append(self.error(task, refusal.code, refusal.message, refusal.parameter))
        body: dict = {}
        if data or not errors:
            body["data"] = data
        if errors:
            body["errors"] = errors
        return (200 if data else status), body

    @staticmethod
    def error(task: dict, code: str, message: str, parameter: Any = None) -> dict:
        return {
            "code": code,
            "message": message,
            "parameter": parameter,
            "taskType": task.get("taskType"),
            "taskUUID": task.get("taskUUID"),
            "documentation": "https://emulator.invalid/docs",
        }

    def _one(self, task: dict, errors: list[dict], dry_run: bool) -> list[dict]:
        kind = task.get("taskType")
        identity = {"taskType": kind, "taskUUID": task.get("taskUUID")}
        if kind == "authentication":
            return [
                {
                    "taskType": kind,
                    "connectionSessionUUID": task.get("connectionSessionUUID") or str(uuid.uuid4()),
                }
            ]
        if kind == "ping":
            return [{"taskType": "ping", "pong": True}]
        if kind == "accountManagement":
            return [
                identity
                | {
                    "operation": "getDetails",
                    "balance": round(self.book.balance_usd, 4),
                    "organizationName": "EMULATOR (not Runware)",
                }
            ]
        if kind == "getResponse":
            return self._poll(task, errors)
        if kind == "getTaskDetails":
            return self._details(task)
        if kind in ("imageUpload", "mediaStorage"):
            name = "image" if kind == "imageUpload" else "media"
            stored = str(uuid.uuid4())
            return [identity | {f"{name}UUID": stored, f"{name}URL": f"{self.address}/picture/{stored}.png"}]
        if kind != "imageInference":
            raise Refusal(400, "invalidTaskType", f"'{kind}' is not known to the emulator.", "taskType")
        return self._inference(task, errors, dry_run)

    def _inference(self, task: dict, errors: list[dict], dry_run: bool) -> list[dict]:
        identity = {"taskType": "imageInference", "taskUUID": task.get("taskUUID")}
        check(task)
        if dry_run:
            return [identity | {"cost": price(task)}]
        self.book.submissions += 1
        cost = price(task)
        if self.faults.take("error_in_200"):
            errors.append(self.error(task, "noAvailableServer", "No server is free right now."))
            return []
        if self.book.balance_usd < cost:
            raise Refusal(402, "insufficientCredits", "Insufficient credits on the account.")
        first = task.get("seed", int.from_bytes(uuid.uuid4().bytes[:4], "big"))
        seeds = [first + index for index in range(task.get("numberResults", 1))]
        try:
            job = self.book.accept("runware", task["taskUUID"], task, cost, seeds)
        except KeyError:
            self.book.conflicts += 1
            raise Refusal(
                400, "conflictTaskUUID", "A task with this taskUUID already exists.", "taskUUID"
            ) from None
        self._mark(job)
        if task.get("deliveryMethod", "sync") == "async":
            return [identity]
        while not job.is_done(time.monotonic()):
            time.sleep(0.002)
        return self._finished(job, errors, status=False)

    def _mark(self, job: Job) -> None:
        for outcome in ("status_error", "safety_error", "never_finish", "forget"):
            if self.faults.take(outcome):
                job.outcome = outcome
        if self.faults.take("item_error"):
            job.items[-1].failed = "inferenceError"
        if self.faults.take("item_nsfw"):
            job.items[0].nsfw = True
        if job.outcome == "never_finish":
            for item in job.items:
                item.ready_at = float("inf")

    def _poll(self, task: dict, errors: list[dict]) -> list[dict]:
        job = self.book.jobs.get(task.get("taskUUID", ""))
        if job is None or job.outcome == "forget" or self.faults.take("poll_empty"):
            return []
        job.polls += 1
        if self.faults.take("poll_top_level_error"):
            raise Refusal(500, "internalServerError", "Something broke while reading the task.")
        return self._finished(job, errors, status=True)

    def _finished(self, job: Job, errors: list[dict], status: bool) -> list[dict]:
        now = time.monotonic()
        done = [item for item in job.items if now >= item.ready_at]
        if job.outcome in ("status_error", "safety_error") and job.is_done(now):
            code, text = {
                "status_error": ("inferenceError", "The inference failed."),
                "safety_error": ("contentPolicyViolation", "The content was flagged by the safety check."),
            }[job.outcome]
            if status and job.outcome == "status_error":
                return [
                    {
                        "taskType": "imageInference",
                        "taskUUID": job.id,
                        "status": "error",
                        "error": {"code": code, "message": text},
                    }
                ]
            errors.append(self.error(job.request, code, text) | {"status": "error"})
            return []
        data = []
        for item in done:
            if item.failed:
                errors.append(self.error(job.request, item.failed, "One image of the batch failed."))
            else:
                data.append(self._result(job, item) | ({"status": "success"} if status else {}))
        if status and len(done) < len(job.items):
            data.append(
                {
                    "taskType": "imageInference",
                    "taskUUID": job.id,
                    "status": "processing",
                    "progress": int(100 * job.progress(now)),
                }
            )
        if data and self.faults.take("duplicate_items"):
            data += data
        return data

    def _result(self, job: Job, item) -> dict:
        task = job.request
        result = {"taskType": "imageInference", "taskUUID": job.id, "imageUUID": item.id, "seed": item.seed}
        kind = task.get("outputType", "URL")
        if kind == "URL":
            ending = task.get("outputFormat", "JPG").lower()
            result["imageURL"] = f"{self.address}/picture/{item.id}.{ending}?fresh={job.fresh}"
            job.fresh += 1
        else:
            content = base64.b64encode(self.render(job, item)).decode()
            mime = {"JPG": "jpeg", "PNG": "png", "WEBP": "webp"}[task.get("outputFormat", "JPG")]
            name = "imageBase64Data" if kind == "base64Data" else "imageDataURI"
            result[name] = content if kind == "base64Data" else f"data:image/{mime};base64,{content}"
        if task.get("includeCost"):
            result["cost"] = round(job.cost_usd / len(job.items), 6)
        if task.get("safety", {}).get("checkContent") or item.nsfw:
            result["NSFWContent"] = item.nsfw
        return result

    def _details(self, task: dict) -> list[dict]:
        job = self.book.jobs.get(task.get("taskUUID", ""))
        if job is None:
            raise Refusal(404, "taskFailedOrNotFound", "No such task.", "taskUUID")
        answer = None
        if job.is_done(time.monotonic()):
            failures: list[dict] = []
            answer = {"data": self._finished(job, failures, status=False)}
            if failures:
                answer["errors"] = failures
        return [
            {"taskType": "getTaskDetails", "taskUUID": job.id, "request": job.request, "response": answer}
        ]
