"""Runware as its document for runware:400@5 describes it: an array of tasks in, `data` and `errors` out."""

from __future__ import annotations

import base64
import random
import re
from typing import Any

from .book import Accepted, Book, Item

VERSION_4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.I)
WHOLE, BROKEN, WORDS, YES_NO = "integer", "float", "string", "boolean"
# Name: type, least, most, step; None where the document sets no bound.
NUMBERS = {
    "outputQuality": (WHOLE, 20, 99, None),
    "ttl": (WHOLE, 60, None, None),
    "numberResults": (WHOLE, 1, 20, None),
    "width": (WHOLE, 128, 2048, 16),
    "height": (WHOLE, 128, 2048, 16),
    "seed": (WHOLE, 0, 9223372036854776000, None),
    "steps": (WHOLE, 1, 50, None),
    "CFGScale": (BROKEN, 1, 20, 0.01),
}
LENGTHS = {"positivePrompt": (1, 10000), "negativePrompt": (1, 10000)}
SCHEDULERS = """
DDIM, DDIMScheduler, DDPMScheduler, DEISMultistepScheduler, Default, DPM++, DPM++ 2M, DPM++ 2M Beta,
DPM++ 2M Exponential, DPM++ 2M Karras, DPM++ 2M SDE, DPM++ 2M SDE Beta, DPM++ 2M SDE Exponential,
DPM++ 2M SDE Karras, DPM++ 2M SDE Uniform, DPM++ 2M Uniform, DPM++ 3M, DPM++ 3M Beta, DPM++ 3M
Exponential, DPM++ 3M Karras, DPM++ 3M SDE Uniform, DPM++ 3M Uniform, DPM++ Beta, DPM++ Exponential,
DPM++ Karras, DPM++ SDE, DPM++ SDE Beta, DPM++ SDE Exponential, DPM++ SDE Karras, DPM++ Uniform,
DPM++ Uniform Beta, DPM++ Uniform Exponential, DPM++ Uniform Karras, DPMSolverMultistepInverse,
DPMSolverMultistepScheduler, DPMSolverSinglestepScheduler, EDMDPMSolverMultistepScheduler,
EDMEulerScheduler, Euler, Euler a, Euler Beta, Euler DiscreteScheduler, Euler Exponential, Euler
Karras, EulerAncestralDiscreteScheduler, FlowMatchEulerDiscreteScheduler, Heun,
HeunDiscreteScheduler, Heun Karras, IPNDMScheduler, IPNDM Uniform, IPNDM Uniform Beta, IPNDM Uniform
Exponential, IPNDM Uniform Karras, KDPM2AncestralDiscreteScheduler, KDPM2DiscreteScheduler, LCM,
LCMScheduler, LMS, LMSDiscreteScheduler, LMS Karras, PNDMScheduler, TCDScheduler, UniPC, UniPC 2M,
UniPC 2M Karras, UniPC 2M Uniform, UniPC 3M, UniPC 3M Karras, UniPC 3M Uniform, UniPC Karras, UniPC
Uniform, UniPC Uniform Beta, UniPC Uniform Exponential, UniPC Uniform Karras
"""
LISTS = {
    "outputType": {"URL", "base64Data", "dataURI"},
    "outputFormat": {"JPG", "PNG", "WEBP"},
    "deliveryMethod": {"sync", "async"},
    "acceleration": {"none", "low", "medium", "high"},
    "scheduler": {name.strip() for name in SCHEDULERS.replace("\n", " ").split(",")},
}
OPTIONS = {
    "cacheEndStep": (WHOLE, 1, None, None),
    "cacheEndStepPercentage": (WHOLE, 1, 100, None),
    "cacheMaxConsecutiveSteps": (WHOLE, 1, 5, None),
    "cacheStartStep": (WHOLE, 0, None, None),
    "cacheStartStepPercentage": (WHOLE, 0, 99, None),
    "fbCache": (YES_NO, None, None, None),
    "fbCacheThreshold": (BROKEN, 0, 1, 0.01),
    "teaCache": (YES_NO, None, None, None),
    "teaCacheDistance": (BROKEN, 0, 1, 0.01),
    "dbCache": (YES_NO, None, None, None),
    "dbCacheThreshold": (BROKEN, 0, 1, 0.01),
    "dbCacheSkipInterval": (WHOLE, 1, None, None),
}
FACES = {
    "CFGScale": (BROKEN, 0, 50, 0.1),
    "confidence": (BROKEN, 0, 1, 0.01),
    "maskBlur": (WHOLE, 0, 100, None),
    "maskPadding": (WHOLE, 0, 20, None),
    "negativePrompt": (WORDS, None, None, None),
    "positivePrompt": (WORDS, None, None, None),
    "steps": (WHOLE, 1, 100, None),
    "strength": (BROKEN, 0, 1, 0.01),
}
PLAIN = {"taskType", "taskUUID", "model", "webhookURL", "uploadEndpoint", "includeCost"}
NESTED = {"safety", "acceleratorOptions", "inputs", "lora", "advancedFeatures", "settings"}
TYPES = {WHOLE: int, BROKEN: (int, float), WORDS: str, YES_NO: bool}


class Faulty(Exception):
    """A task that breaks the document: code, message, parameter."""

    def __init__(self, code: str, message: str, parameter: str) -> None:
        super().__init__(message)
        self.code, self.message, self.parameter = code, message, parameter


def error_item(code: str, message: str, **more: Any) -> dict[str, Any]:
    return {"code": code, "message": message} | more


class Runware:
    """What an address ending in /v1 answers."""

    def __init__(self, book: Book, base: str, key: str) -> None:
        self.book, self.base, self.key = book, base, key
        self.picture_base = base

    def answer(self, tasks: Any, bearer: str, work: bool) -> tuple[int, dict[str, Any]]:
        """HTTP status and body. `work` false: look, and do nothing."""
        tasks = tasks if isinstance(tasks, list) else [tasks]
        if not all(isinstance(task, dict) for task in tasks):
            return 400, {"errors": [error_item("invalidRequest", "Send an array of objects.")]}
        for task in tasks:
            bearer = str(task.get("apiKey")) if task.get("taskType") == "authentication" else bearer
        if bearer != self.key:
            return 401, {"errors": [error_item("invalidApiKey", "The API key is invalid.")]}
        data: list[dict[str, Any]] = []
        errors: list[dict[str, Any]] = []
        for task in tasks:
            self._do(task, data, errors, work)
        body = ({"data": data} if data or not errors else {}) | ({"errors": errors} if errors else {})
        return (400 if errors and not data else 200), body

    def _do(self, task: dict, data: list, errors: list, work: bool) -> None:
        kind = task.get("taskType")
        named = {"taskType": kind, "taskUUID": task.get("taskUUID")}
        if kind == "imageInference":
            self._infer(task, named, data, errors, work)
        elif kind == "getResponse":
            job = self.book.poll("runware", str(task.get("taskUUID")))
            if job is not None:
                self._report(job, data, errors)
        elif kind == "accountManagement":
            data.append(named | {"balance": 12.5})
        elif kind == "ping":
            data.append(named | {"pong": True})
        elif kind == "authentication":
            data.append({"taskType": kind, "connectionSessionUUID": "00000000-0000-4000-8000-000000000000"})
        else:
            errors.append(error_item("unsupportedTaskType", f"There is no task type {kind}.", **named))

    def _infer(self, task: dict, named: dict, data: list, errors: list, work: bool) -> None:
        try:
            check_task(task)
        except Faulty as fault:
            errors.append(error_item(fault.code, fault.message, parameter=fault.parameter, **named))
            return
        with self.book.lock:
            if self.book.find("runware", task["taskUUID"]) is not None:
                self.book.conflicts += 1
                errors.append(
                    error_item("conflictTaskUUID", "This taskUUID is taken.", parameter="taskUUID", **named)
                )
                return
            if not work:
                return
            first = task.get("seed", random.randrange(2**32))
            count = task.get("numberResults", 1)
            usd = price_task(task)
            job = self.book.accept(
                "runware", task["taskUUID"], task, usd, [first + index for index in range(count)]
            )
        if task.get("deliveryMethod", "sync") == "async":
            data.append(named)
        else:
            job.polls = 10**6
            self._report(job, data, errors)

    def _report(self, job: Accepted, data: list, errors: list) -> None:
        """Every item so far, earlier ones again: each poll is cumulative."""
        named = {"taskType": "imageInference", "taskUUID": job.id}
        ready = job.ready()
        for item in job.items:
            if item not in ready:
                if not job.plan.whispers:
                    data.append(named | {"status": "processing"})
            elif item.fate == "failure":
                errors.append(
                    error_item("inferenceFailed", "The inference of this picture failed.", **named)
                    | {"status": "error"}
                )
            elif item.fate == "moderation":
                errors.append(error_item("contentModerated", "Kept back by moderation.", **named))
            else:
                data.append(named | {"status": "success"} | self._result(job, item))

    def _result(self, job: Accepted, item: Item) -> dict[str, Any]:
        task = job.request
        result: dict[str, Any] = {"imageUUID": item.id, "seed": item.seed}
        if task.get("includeCost"):
            result["cost"] = round(job.usd / len(job.items), 6)
        if task.get("safety", {}).get("checkContent"):
            result["NSFWContent"] = item.fate == "flagged"
        name = task.get("outputFormat", "JPG")
        if task.get("outputType", "URL") == "URL":
            result["imageURL"] = f"{self.picture_base}/image/os/a1/ws/2/ii/{item.id}.{name.lower()}"
            return result
        from .emulator import draw

        data, kind = draw(job, item)
        text = base64.b64encode(data).decode()
        if task["outputType"] == "base64Data":
            return result | {"imageBase64Data": text}
        return result | {"imageDataURI": f"data:{kind};base64,{text}"}


def price_task(task: dict[str, Any]) -> float:
    """The document's price for a square megapixel, by pixels and pictures."""
    share = task["width"] * task["height"] / 2**20
    return round(0.0019 * share * task.get("numberResults", 1), 6)


def check_task(task: dict[str, Any]) -> None:
    """Everything the document asks of a request. Faulty names the parameter."""
    if not VERSION_4.fullmatch(str(task.get("taskUUID", ""))):
        raise Faulty("invalidTaskUUID", "taskUUID must be a UUID v4.", "taskUUID")
    for name in ("model", "positivePrompt", "width", "height"):
        if name not in task:
            raise Faulty("missingParameter", f"{name} is required.", name)
    if task["model"] != "runware:400@5":
        raise Faulty("invalidModel", "Only runware:400@5 is served here.", "model")
    for name in task:
        if name not in {*PLAIN, *NESTED, *NUMBERS, *LENGTHS, *LISTS}:
            raise Faulty("unsupportedParameter", f"{name} is not a parameter of this model.", name)
    for name, rule in NUMBERS.items():
        if name in task:
            _check(name, task[name], rule)
    for name, (least, most) in LENGTHS.items():
        if name in task and not (isinstance(task[name], str) and least <= len(task[name]) <= most):
            raise Faulty("invalidLength", f"{name} must have {least} to {most} characters.", name)
    for name, allowed in LISTS.items():
        if name in task and task[name] not in allowed:
            raise Faulty("invalidValue", f"{name} must be one of {', '.join(sorted(allowed))}.", name)
    for name in ("webhookURL", "uploadEndpoint"):
        if name in task and not (isinstance(task[name], str) and task[name]):
            raise Faulty("invalidValue", f"{name} must be text.", name)
    for name in NESTED - {"lora"}:
        if not isinstance(task.get(name, {}), dict):
            raise Faulty("invalidType", f"{name} must be an object.", name)
    _check_nested(task)


def _check_nested(task: dict[str, Any]) -> None:
    options = task.get("acceleratorOptions", {})
    _check_all("acceleratorOptions", options, OPTIONS)
    start, end = options.get("cacheStartStep"), options.get("cacheEndStep")
    if end is not None and (end > task.get("steps", 28) or (start is not None and start >= end)):
        raise Faulty("invalidValue", "cacheStartStep < cacheEndStep <= steps.", "acceleratorOptions")
    low, high = options.get("cacheStartStepPercentage"), options.get("cacheEndStepPercentage")
    if low is not None and high is not None and low >= high:
        raise Faulty("invalidValue", "The start must be before the end.", "acceleratorOptions")
    features = task.get("advancedFeatures", {})
    if set(features) - {"ultralytics"}:
        raise Faulty("unsupportedParameter", "Only ultralytics is a feature.", "advancedFeatures")
    _check_all("advancedFeatures.ultralytics", features.get("ultralytics", {}), FACES)
    safety = task.get("safety", {})
    if set(safety) - {"checkContent", "mode"} or safety.get("mode", "none") not in ("none", "fast"):
        raise Faulty("invalidValue", "safety holds checkContent and mode none or fast.", "safety")
    _check_all("settings", task.get("settings", {}), {"trueCFGScale": (BROKEN, 1, 20, None)})
    pictures = task.get("inputs", {}).get("referenceImages", [])
    if set(task.get("inputs", {})) - {"referenceImages"} or not isinstance(pictures, list):
        raise Faulty("unsupportedParameter", "inputs holds an array referenceImages.", "inputs")
    if not all(isinstance(picture, str) and picture for picture in pictures):
        raise Faulty("invalidType", "A reference is a UUID, URL, data URI or base64.", "inputs")
    loras = task.get("lora", [])
    if not isinstance(loras, list) or not all(isinstance(lora, dict) for lora in loras):
        raise Faulty("invalidType", "lora must be an array of objects.", "lora")
    for lora in loras:
        if set(lora) - {"model", "weight", "transformer"} or not isinstance(lora.get("model"), str):
            raise Faulty("invalidValue", "A LoRA has model, weight and transformer.", "lora")
        if lora.get("transformer", "both") not in ("high", "low", "both"):
            raise Faulty("invalidValue", "transformer is high, low or both.", "lora.transformer")
        _check("lora.weight", lora.get("weight", 1), (BROKEN, -4, 4, 0.01))


def _check_all(where: str, values: Any, rules: dict[str, tuple]) -> None:
    if not isinstance(values, dict):
        raise Faulty("invalidType", f"{where} must be an object.", where)
    for name, value in values.items():
        if name not in rules:
            raise Faulty("unsupportedParameter", f"{where}.{name} is not a parameter.", f"{where}.{name}")
        _check(f"{where}.{name}", value, rules[name])


def _check(name: str, value: Any, rule: tuple) -> None:
    kind, least, most, step = rule
    if not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != YES_NO):
        raise Faulty("invalidType", f"{name} must be of type {kind}.", name)
    if least is not None and value < least or most is not None and value > most:
        raise Faulty("outOfRange", f"{name} must be from {least} to {most}.", name)
    if step is not None and abs(value / step - round(value / step)) > 1e-6:
        raise Faulty("invalidStep", f"{name} goes in steps of {step}.", name)
