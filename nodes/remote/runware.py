"""Runware's `imageInference`: from the node's settings to the request, and from answers to a `Report`.

Follows Runware's document of runware:400@5 (FLUX.2 [klein] 4B Base): names, ranges and defaults are its own.
Only what is set is sent, because an unknown or superfluous field is an error on the server.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ..base.errors import InputError
from ..base.flux2 import MAX_SEED
from ..base.schedulers import SCHEDULER_NAMES
from .report import FAILURE, MODERATION, Failure, Report, Result

MODEL = "runware:400@5"
LEVELS = ("none", "low", "medium", "high")
OUTPUT_TYPES = ("URL", "base64Data", "dataURI")
OUTPUT_FORMATS = ("PNG", "JPG", "WEBP")
DELIVERIES = ("async", "sync")
SAFETY_MODES = ("none", "fast")
# The list the local sampler offers too, so a graph keeps its choice when it moves to the API.
SCHEDULERS = tuple(SCHEDULER_NAMES)
# The document writes one name with a space; Runware's own client, and with it the server, does not.
_SPELLING = {"Euler DiscreteScheduler": "EulerDiscreteScheduler"}
PRICE_CHECKS = ("off", "show before the run", "only show the price")
MOST_REFERENCES = 4
_AIR = re.compile(r"[A-Za-z0-9_.-]+:[A-Za-z0-9_.-]+@[A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class RunwareOptions:
    """The rarely used part of a Runware request, and how the job is handled. Empty means: not sent.

    price_check: one of PRICE_CHECKS.
    """

    output_type: str = "URL"
    webhook_url: str = ""
    upload_endpoint: str = ""
    profile: str = "default"
    price_check: str = "off"

    def __post_init__(self) -> None:
        _check_choice("output_type", self.output_type, OUTPUT_TYPES)
        _check_choice("price_check", self.price_check, PRICE_CHECKS)
        for name in ("webhook_url", "upload_endpoint"):
            value = getattr(self, name)
            parts = urlsplit(value)
            if value and not (parts.scheme == "https" and parts.hostname and not parts.password):
                raise InputError(
                    f"{name} must be an address that starts with https://, or empty; got '{value}'."
                )


@dataclass(frozen=True)
class RunwareRequest:
    """One `imageInference` task without its taskUUID. `to_task` checks everything before money is spent."""

    positive_prompt: str
    negative_prompt: str = ""
    width: int = 1024
    height: int = 1024
    steps: int = 28
    cfg_scale: float = 3.5
    seed: int = 0
    number_results: int = 1
    model: str = MODEL
    scheduler: str = "Default"
    acceleration_level: str = "high"
    true_cfg_scale: float = 0.0
    output_format: str = "PNG"
    output_quality: int = 95
    check_content: bool = False
    safety_mode: str = "none"
    ttl: int = 0
    include_cost: bool = True
    delivery_method: str = "async"
    accelerator: Mapping[str, Any] | None = None
    loras: Sequence[Mapping[str, Any]] = ()
    references: Sequence[str] = ()
    ultralytics: Mapping[str, Any] | None = None
    options: RunwareOptions = field(default_factory=RunwareOptions)

    def __post_init__(self) -> None:
        _check_text("positive_prompt", self.positive_prompt, required=True)
        _check_text("negative_prompt", self.negative_prompt, required=False)
        for name in ("width", "height"):
            _check_range(name, getattr(self, name), 128, 2048)
            if getattr(self, name) % 16:
                value = getattr(self, name)
                raise InputError(
                    f"{name} must be a multiple of 16; {value} is not, {round(value / 16) * 16} is."
                )
        _check_range("steps", self.steps, 1, 50)
        _check_range("cfg_scale", self.cfg_scale, 1, 20)
        _check_range("seed", self.seed, 0, MAX_SEED)
        _check_range("number_results", self.number_results, 1, 20)
        _check_range("output_quality", self.output_quality, 20, 99)
        if self.true_cfg_scale:
            _check_range("true_cfg_scale", self.true_cfg_scale, 1, 20)
        if self.ttl:
            _check_range("ttl", self.ttl, 60, None)
            if self.options.output_type != "URL":
                raise InputError(
                    "ttl only applies when output_type is URL: set ttl to 0, or output_type to URL."
                )
        _check_choice("scheduler", self.scheduler, SCHEDULERS)
        _check_choice("acceleration_level", self.acceleration_level, LEVELS)
        _check_choice("output_format", self.output_format, OUTPUT_FORMATS)
        _check_choice("safety_mode", self.safety_mode, SAFETY_MODES)
        _check_choice("delivery_method", self.delivery_method, DELIVERIES)
        if not _AIR.fullmatch(self.model):
            raise InputError(f"model must be a Runware model id such as {MODEL}; got '{self.model}'.")
        if len(self.references) > MOST_REFERENCES:
            raise InputError(
                f"references holds {len(self.references)} images, and Runware takes at most "
                f"{MOST_REFERENCES} for "
                "this model. Connect fewer; each frame of a batch counts as one."
            )
        self._check_loras()
        self._check_accelerator()

    def _check_loras(self) -> None:
        for row in self.loras:
            if not row.get("model"):
                raise InputError(
                    "loras holds a LoRA without an AIR id: Runware cannot see files of this computer. Write "
                    "the id "
                    "of the LoRA at Runware into its row of Klein LoRA Stack, or switch the row off."
                )
            _check_range(f"The weight of LoRA '{row['model']}'", row.get("weight", 1.0), -4, 4)
            _check_choice(
                f"The stage of LoRA '{row['model']}'", row.get("transformer", "both"), ("high", "low", "both")
            )

    def _check_accelerator(self) -> None:
        options = (self.accelerator or {}).get("acceleratorOptions", {})
        start, end = options.get("cacheStartStep"), options.get("cacheEndStep")
        if end is not None and end > self.steps:
            raise InputError(
                f"acceleration ends its cache at step {end} (cacheEndStep), but steps is {self.steps}: lower "
                "cacheEndStep, raise steps, or give the window in percent."
            )
        if start is not None and start >= (end if end is not None else self.steps):
            raise InputError(
                f"acceleration starts its cache at step {start} (cacheStartStep), which must come before "
                f"{'cacheEndStep' if end is not None else 'the last step'} "
                f"({end if end is not None else self.steps})."
            )

    def to_task(self) -> dict[str, Any]:
        """The task as Runware spells it, without `taskUUID`."""
        task: dict[str, Any] = {
            "taskType": "imageInference",
            "model": self.model,
            "positivePrompt": self.positive_prompt,
            "width": self.width,
            "height": self.height,
            "steps": self.steps,
            "CFGScale": self.cfg_scale,
            "seed": self.seed,
            "outputFormat": self.output_format,
            "deliveryMethod": self.delivery_method,
        }
        optional = {
            "negativePrompt": self.negative_prompt,
            "numberResults": self.number_results if self.number_results > 1 else None,
            "scheduler": _SPELLING.get(self.scheduler, self.scheduler)
            if self.scheduler != "Default"
            else None,
            "settings": {"trueCFGScale": self.true_cfg_scale} if self.true_cfg_scale else None,
            "outputType": self.options.output_type if self.options.output_type != "URL" else None,
            "outputQuality": self.output_quality if self.output_format != "PNG" else None,
            "safety": self._safety(),
            "ttl": self.ttl,
            "includeCost": self.include_cost,
            "lora": [dict(row) for row in self.loras],
            "inputs": {"referenceImages": list(self.references)} if self.references else None,
            "advancedFeatures": {"ultralytics": dict(self.ultralytics)} if self.ultralytics else None,
            "webhookURL": self.options.webhook_url,
            "uploadEndpoint": self.options.upload_endpoint,
        }
        task |= {name: value for name, value in optional.items() if value}
        # A connected Acceleration decides for itself; without one the level is always said, never left to a
        # guess.
        return task | (
            dict(self.accelerator) if self.accelerator else {"acceleration": self.acceleration_level}
        )

    def _safety(self) -> dict[str, Any]:
        safety: dict[str, Any] = {"checkContent": True} if self.check_content else {}
        return safety | ({"mode": self.safety_mode} if self.safety_mode != "none" else {})

    def estimate_usd(self) -> float:
        """About what the job will cost, fitted to the prices in Runware's examples (1024x1024: $0.0019)."""
        megapixels = max(0.25, self.width * self.height / 2**20)
        one = 0.0019 * megapixels * self.steps / 28 * (1 + 1.5 * len(self.references))
        return math.ceil(one * 10000) / 10000 * self.number_results


def read_ultralytics(value: Any) -> dict[str, Any] | None:
    """The `ultralytics` object of a FaceRefinement, however deep its `to_runware` nests it."""
    if value is None:
        return None
    found = value.to_runware()
    for name in ("advancedFeatures", "ultralytics"):
        found = found.get(name, found)
    return dict(found)


def classify(status: int, code: str) -> str:
    """conflict | balance | key | permission | moderated | busy | gone | invalid, by HTTP status and family of
    the code.

    Runware says its codes are being standardised, so nothing relies on an exact list.
    """
    low = code.lower()
    if "conflict" in low and "uuid" in low:
        return "conflict"
    if any(
        word in low
        for word in ("content", "nsfw", "moderat", "unsafe", "sensitive", "promptblocked", "imageblocked")
    ):
        return "moderated"
    if status == 402 or any(word in low for word in ("credit", "balance", "quota", "payment")):
        return "balance"
    if status == 401 or any(word in low for word in ("apikey", "unauthor", "authentication", "token")):
        return "key"
    if status == 403 or any(word in low for word in ("forbidden", "permission", "suspended", "disabled")):
        return "permission"
    if (
        status == 429
        or status >= 500
        or any(
            word in low
            for word in (
                "ratelimit",
                "timeout",
                "unavailable",
                "server",
                "internal",
                "provider",
                "inference",
                "processingfailed",
                "taskfailed",
                "unknownerror",
            )
        )
    ):
        return "busy"
    return "gone" if status == 404 or "notfound" in low else "invalid"


def read_errors(body: Any, task_uuid: str) -> list[dict[str, Any]]:
    """The error items of an answer that concern this task (or no task at all)."""
    errors = body.get("errors") or body.get("error") if isinstance(body, dict) else None
    errors = errors if isinstance(errors, list) else [errors] if isinstance(errors, dict) else []
    return [e for e in errors if isinstance(e, dict) and e.get("taskUUID") in (task_uuid, None, "")]


def describe_error(error: Mapping[str, Any]) -> str:
    """Runware's own words about one error, with the field it names."""
    parameter = error.get("parameter")
    named = ", ".join(parameter) if isinstance(parameter, list) else parameter
    message = str(
        error.get("message") or error.get("responseContent") or error.get("code") or "no reason given"
    )
    return f"{message} (field: {named})" if named else message


def read_report(body: Any, task_uuid: str) -> Report:
    """One answer to `getResponse`, or the answer of a sync submit. Repeated items are counted once."""
    data = body.get("data") if isinstance(body, dict) else None
    items = [i for i in data or [] if isinstance(i, dict) and i.get("taskUUID") == task_uuid]
    results: dict[str, Result] = {}
    failures: list[Failure] = []
    working, progress = False, None
    for item in items:
        status = str(item.get("status", "")).lower()
        if item.get("imageUUID"):
            results.setdefault(item["imageUUID"], _read_result(item))
        elif status == "error" or item.get("error"):
            failures.append(_read_failure(item.get("error") or item))
        elif status:
            working = working or status != "success"
            progress = item["progress"] / 100 if isinstance(item.get("progress"), (int, float)) else progress
    failures += [_read_failure(error) for error in read_errors(body, task_uuid)]
    return Report(tuple(results.values()), tuple(failures), bool(items or failures), working, False, progress)


def read_details(body: Any, task_uuid: str) -> Report:
    """The archived answer inside `getTaskDetails`; an empty one means nothing yet, not failure."""
    data = body.get("data") if isinstance(body, dict) else None
    for item in data or []:
        if isinstance(item, dict) and item.get("taskUUID") == task_uuid:
            response = item.get("response")
            response = {"data": response} if isinstance(response, list) else response
            if isinstance(response, dict):
                inner = response if "data" in response or "errors" in response else {"data": [response]}
                return read_report(inner, task_uuid)
            return Report(known=True)
    return Report()


def _read_result(item: Mapping[str, Any]) -> Result:
    cost, seed = item.get("cost"), item.get("seed")
    return Result(
        item_id=str(item["imageUUID"]),
        seed=seed if isinstance(seed, int) else None,
        url=str(item.get("imageURL") or ""),
        data=str(item.get("imageBase64Data") or item.get("imageDataURI") or ""),
        cost_usd=float(cost) if isinstance(cost, (int, float)) and cost > 0 else None,
        nsfw=bool(item.get("NSFWContent")),
    )


def _read_failure(error: Any) -> Failure:
    error = error if isinstance(error, Mapping) else {"message": str(error)}
    kind = MODERATION if classify(200, str(error.get("code", ""))) == "moderated" else FAILURE
    return Failure(kind, describe_error(error))


def read_cost(body: Any) -> float | None:
    """The price in a dry run's answer, wherever it stands; None if there is none."""
    if isinstance(body, dict):
        for name in ("cost", "totalCost", "estimatedCost"):
            if isinstance(body.get(name), (int, float)) and body[name] > 0:
                return float(body[name])
        body = list(body.values())
    if isinstance(body, list):
        found = [cost for cost in map(read_cost, body) if cost is not None]
        return sum(found) if found else None
    return None


def _check_text(name: str, text: str, required: bool) -> None:
    if required and not text.strip():
        raise InputError(
            f"{name} is empty, and Runware needs at least one character. Write what the picture shows."
        )
    if len(text) > 10000:
        raise InputError(f"{name} has {len(text)} characters, and Runware takes at most 10000. Shorten it.")


def _check_range(name: str, value: float, low: float, high: float | None) -> None:
    if not low <= value <= (math.inf if high is None else high):
        span = f"at least {low}" if high is None else f"from {low} to {high}"
        raise InputError(f"{name} must be {span}; got {value}.")


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}; got '{value}'.")
