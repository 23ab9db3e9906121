"""Runware: its `imageInference` request from a node's settings, and what its answers mean.

Follows Runware's document of runware:400@5 (FLUX.2 [klein] 4B Base): names, ranges and defaults are its own.
Only what is set is sent, because an unknown or superfluous field is an error on the server. The job's id
(`taskUUID`) is ours, so a repeated request is recognised as a conflict and costs nothing. Errors may come
inside HTTP 200, beside results, and about the poll instead of the job.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ...base.errors import InputError
from ...base.fields import Field
from ...base.flux2 import (
    CELL,
    DEFAULT_STEPS,
    MAX_GUIDANCE,
    MAX_RESULTS,
    MAX_SEED,
    MAX_SIZE,
    MAX_STEPS,
    MIN_GUIDANCE,
    MIN_SIZE,
    MIN_STEPS,
)
from ...base.schedulers import SCHEDULER_NAMES
from ...base.sentences import say
from ...base.values import API_LEVELS, FACE_FIELDS, LORA_STAGES, LORA_WEIGHT
from ..fields import PRICE_CHECK, PROFILE, UPLOAD_FORMAT
from ..images import collect_frames, encode, to_data_uri
from ..job_request import JobRequest, RunContext, make_job_request
from ..profiles import check_profile
from ..retry import PollPace
from ..status import FAILURE, MODERATION, Failure, JobStatus, RemoteImage
from .base import (
    ACCEPTED,
    ANSWER_BYTES,
    ANSWER_BYTES_WITH_PICTURES,
    BALANCE,
    BUSY,
    CONFLICT,
    GONE,
    INVALID,
    KEY,
    MAX_ADDRESS,
    MODERATED,
    PERMISSION,
    REDIRECT,
    UNCLEAR,
    Answer,
    HttpCall,
    Service,
    SubmitAnswer,
    check_webhook,
    describe_status,
    read_cost,
    read_number,
    read_seed,
)

if TYPE_CHECKING:
    from ..ledger import Job

MODEL = "runware:400@5"
OUTPUT_TYPES = ("URL", "base64Data", "dataURI")
OUTPUT_FORMATS = ("PNG", "JPG", "WEBP")
DELIVERIES = ("async", "sync")
SAFETY_MODES = ("none", "fast")
# The list the local sampler offers too, so a graph keeps its choice when it moves to the API.
SCHEDULERS = tuple(SCHEDULER_NAMES)
# The document writes one name with a space; Runware's own client, and with it the server, does not.
_SPELLING = {"Euler DiscreteScheduler": "EulerDiscreteScheduler"}
MAX_REFERENCES = 4
# The document's own number, which no 64-bit integer holds.
MAX_LARGE_SEED = 9223372036854776000
PICTURE_MARK = "picture "
MAX_PROMPT = 10000
MAX_WORKER = 100
MAX_REFERENCE_SIDE = 2048
MIN_TTL = 60
_AIR = re.compile(r"[A-Za-z0-9_.-]+:[A-Za-z0-9_.-]+@[A-Za-z0-9_.-]+")
_ARCHIVE_EVERY = 8
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

FIELDS = (
    Field(
        "positive_prompt", None, "What the picture shows. 1 to 10000 characters.", kind=str, multiline=True,
        api="positivePrompt",
    ),
    Field(
        "negative_prompt", "", "What to keep out. Empty is not sent; without effect while cfg_scale is 1.",
        multiline=True, api="negativePrompt",
    ),
    Field(
        "width", 1024, "Width in pixels, in steps of 16.", api="width", low=MIN_SIZE, high=MAX_SIZE,
        multiple=CELL,
    ),
    Field(
        "height", 1024, "Height in pixels, in steps of 16.", api="height", low=MIN_SIZE, high=MAX_SIZE,
        multiple=CELL,
    ),
    Field(
        "steps", DEFAULT_STEPS, "Denoising steps. More cost more.", api="steps", low=MIN_STEPS, high=MAX_STEPS
    ),
    Field(
        "cfg_scale", 3.5, "CFGScale: how closely to follow the prompt. 1 switches guidance off.",
        api="CFGScale", low=MIN_GUIDANCE, high=MAX_GUIDANCE, step=0.01,
    ),
    Field(
        "seed", 0, "The same seed and settings give the same picture, and are paid for once.", api="seed",
        low=0, high=MAX_SEED,
    ),
    Field(
        "number_results", 1, "numberResults: pictures in one job, each with a seed of its own, each paid.",
        api="numberResults", low=1, high=MAX_RESULTS,
    ),
)  # fmt: skip
ADVANCED_FIELDS = (
    Field(
        "model", MODEL, "Runware's model id. runware:400@5 is klein 4B Base; others may refuse some fields.",
        api="model", optional=True, advanced=True,
    ),
    Field(
        "scheduler", "Default", "Sampling method by Runware's name. Default is not sent.", api="scheduler",
        choices=SCHEDULERS, optional=True, advanced=True,
    ),
    Field(
        "acceleration_level", "high",
        "Runware's own caching. 'none' computes every step: slower, best quality. A connected acceleration "
        "decides instead.",
        api="acceleration", choices=API_LEVELS, optional=True, advanced=True,
    ),
    Field(
        "true_cfg_scale", 0.0, "settings.trueCFGScale, as in Runware's examples (4). 0 is not sent.",
        api="settings.trueCFGScale", low=0, high=MAX_GUIDANCE, step=0.01, optional=True, advanced=True,
    ),
    Field(
        "output_format", "PNG", "outputFormat: PNG keeps every pixel; JPG and WEBP are smaller.",
        api="outputFormat", choices=OUTPUT_FORMATS, optional=True, advanced=True,
    ),
    Field(
        "output_quality", 95, "outputQuality of JPG and WEBP; not sent for PNG.", api="outputQuality",
        low=20, high=99, optional=True, advanced=True,
    ),
    Field(
        "check_content", False, "safety.checkContent: let Runware check the picture and flag it in info.",
        api="safety.checkContent", optional=True, advanced=True,
    ),
    Field(
        "safety_mode", "none", "safety.mode: how it is checked. none is not sent.", choices=SAFETY_MODES,
        api="safety.mode", optional=True, advanced=True,
    ),
    Field(
        "ttl", 0,
        "Seconds Runware keeps the picture, at least 60. 0 is not sent. Only for output_type URL.",
        api="ttl", low=0, high=31536000, optional=True, advanced=True,
    ),
    Field(
        "include_cost", True, "includeCost: have the true cost reported. Off leaves only an estimate.",
        api="includeCost", optional=True, advanced=True,
    ),
    Field(
        "delivery_method", "async",
        "deliveryMethod: async polls and shows progress; sync waits on one long answer.",
        api="deliveryMethod", choices=DELIVERIES, optional=True, advanced=True,
    ),
)  # fmt: skip
# Added after the first release, so they stand at the end of the node.
LATER_FIELDS = (
    Field(
        "large_seed", "",
        f"A seed above {MAX_SEED}, up to {MAX_LARGE_SEED}: Runware takes more than a widget holds. Empty: "
        "seed counts.",
        optional=True, advanced=True,
    ),
    Field(
        "reference_addresses", "",
        "References that are on the network already, one a line: an https address or a Runware UUID. They "
        "come after the connected pictures; a line such as 'picture 1' puts that picture in between.",
        optional=True, advanced=True, multiline=True,
    ),
)  # fmt: skip
OPTION_FIELDS = (
    PROFILE,
    PRICE_CHECK,
    Field(
        "output_type", "URL",
        "outputType: fetch pictures from Runware's server (URL), or inside the answer.",
        api="outputType", choices=OUTPUT_TYPES,
    ),
    Field(
        "webhook_url", "",
        "webhookURL: an https address Runware calls when a picture is done. Empty is not sent.",
        api="webhookURL", optional=True, advanced=True,
    ),
    Field(
        "upload_endpoint", "",
        "uploadEndpoint: an https address Runware puts the picture to. Empty is not sent.",
        api="uploadEndpoint", optional=True, advanced=True,
    ),
)  # fmt: skip


_REQUEST_FIELDS = (*FIELDS, *ADVANCED_FIELDS, LATER_FIELDS[0])


@dataclass(frozen=True)
class RunwareOptions:
    """The rarely used part of a Runware request, and how the job is handled. Empty means: not sent.

    price_check: one of job_request.PRICE_CHECKS.
    """

    output_type: str = "URL"
    webhook_url: str = ""
    upload_endpoint: str = ""
    profile: str = "default"
    price_check: str = "off"

    def __post_init__(self) -> None:
        check_profile(self.profile)
        for row in OPTION_FIELDS:
            row.check(getattr(self, row.name), row.name)
        for name in ("webhook_url", "upload_endpoint"):
            check_webhook(name, getattr(self, name))


@dataclass(frozen=True)
class RunwareRequest:
    """One `imageInference` task without its taskUUID. Every rule is checked before money is spent."""

    positive_prompt: str
    negative_prompt: str = ""
    width: int = 1024
    height: int = 1024
    steps: int = DEFAULT_STEPS
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
    large_seed: str = ""
    accelerator: Mapping[str, Any] | None = None
    loras: Sequence[Mapping[str, Any]] = ()
    references: Sequence[str] = ()
    ultralytics: Mapping[str, Any] | None = None
    options: RunwareOptions = field(default_factory=RunwareOptions)

    def __post_init__(self) -> None:
        for row in _REQUEST_FIELDS:
            row.check(getattr(self, row.name), row.name)
        self._check_texts()
        if 0 < self.true_cfg_scale < MIN_GUIDANCE:
            raise InputError(
                say("true_cfg_scale is %1, but must be 0 (not sent) or from 1 to 20.", self.true_cfg_scale)
            )
        if 0 < self.ttl < MIN_TTL:
            raise InputError(
                say("ttl is %1, but must be 0 (not sent) or at least %2 seconds.", self.ttl, MIN_TTL)
            )
        if self.ttl and self.options.output_type != "URL":
            raise InputError(
                say("ttl only applies when output_type is URL: set ttl to 0, or output_type to URL.")
            )
        if not _AIR.fullmatch(self.model):
            raise InputError(
                say("model is '%1', but must be a Runware model id such as %2.", self.model, MODEL)
            )
        if len(self.references) > MAX_REFERENCES:
            raise InputError(
                say(
                    "references holds %1 images, and Runware takes at most %2 "
                    "for this model. Connect fewer; each frame of a batch counts as one.",
                    len(self.references),
                    MAX_REFERENCES,
                )
            )
        if self.large_seed and not (self.large_seed.isdecimal() and self.sent_seed <= MAX_LARGE_SEED):
            raise InputError(
                say(
                    "large_seed is '%1', but must be a whole number from 0 to %2, or empty.",
                    self.large_seed[:40],
                    MAX_LARGE_SEED,
                )
            )
        self._check_loras()
        self._check_accelerator()
        self._check_steps()

    @property
    def sent_seed(self) -> int:
        return int(self.large_seed) if self.large_seed else self.seed

    def _check_texts(self) -> None:
        if not self.positive_prompt.strip():
            raise InputError(
                say(
                    "positive_prompt is empty, and Runware needs at least one character. "
                    "Write what the picture shows."
                )
            )
        for name in ("positive_prompt", "negative_prompt"):
            length = len(getattr(self, name))
            if length > MAX_PROMPT:
                raise InputError(
                    say(
                        "%1 has %2 characters, and Runware takes at most %3. Shorten it.",
                        name,
                        length,
                        MAX_PROMPT,
                    )
                )

    def _check_loras(self) -> None:
        for row in self.loras:
            if not row.get("model"):
                raise InputError(
                    say(
                        "loras holds a LoRA without an AIR id: Runware cannot see files of this computer. "
                        "Write the id of the LoRA at Runware into its row of Klein LoRA Stack, "
                        "or switch the row off."
                    )
                )
            LORA_WEIGHT.check(row.get("weight", 1.0), f"The weight of LoRA '{row['model']}'")
            LORA_WEIGHT.check_step(row.get("weight", 1.0), f"The weight of LoRA '{row['model']}'")
            stage = row.get("transformer", "both")
            if stage not in LORA_STAGES:
                raise InputError(
                    say(
                        "The stage of LoRA '%1' is '%2', but must be one of: %3.",
                        row["model"],
                        stage,
                        ", ".join(LORA_STAGES),
                    )
                )

    def _check_accelerator(self) -> None:
        options = (self.accelerator or {}).get("acceleratorOptions", {})
        end = options.get("cacheEndStep")
        if end is not None and end > self.steps:
            raise InputError(
                say(
                    "acceleration ends its cache at step %1 (cacheEndStep), but steps is %2: lower "
                    "cacheEndStep, raise steps, or give the window in percent.",
                    end,
                    self.steps,
                )
            )
        start, start_words = self._read_edge(options, "cacheStartStep", 0)
        end, end_words = self._read_edge(options, "cacheEndStep", self.steps)
        if start >= end:
            raise InputError(
                say(
                    "acceleration starts its cache at %1, which must come before its end, %2.",
                    start_words or "the first step",
                    end_words or f"the last step ({self.steps})",
                )
            )

    def _read_edge(self, options: Mapping[str, Any], name: str, open_edge: float) -> tuple[float, str]:
        """A side of the cache's window in steps, and how it was said; the two sides may differ in unit."""
        percent = options.get(f"{name}Percentage")
        if options.get(name) is not None:
            return options[name], f"step {options[name]} ({name})"
        if percent is not None:
            return self.steps * percent / 100, f"{percent}% of {self.steps} steps ({name}Percentage)"
        return open_edge, ""

    def _check_steps(self) -> None:
        """Runware counts some numbers in steps; between two of them it refuses."""
        for row in (*FIELDS, *ADVANCED_FIELDS):
            row.check_step(getattr(self, row.name), row.name)
        for row in FACE_FIELDS:
            row.check_step((self.ultralytics or {}).get(row.api), f"face_refinement: {row.api}")

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
            "seed": self.sent_seed,
            "outputFormat": self.output_format,
            "deliveryMethod": self.delivery_method,
        }
        has_scheduler = self.scheduler != "Default"
        optional = {
            "negativePrompt": self.negative_prompt if self.negative_prompt.strip() else None,
            "numberResults": self.number_results if self.number_results > 1 else None,
            "scheduler": _SPELLING.get(self.scheduler, self.scheduler) if has_scheduler else None,
            "settings": {"trueCFGScale": self.true_cfg_scale} if self.true_cfg_scale else None,
            "outputType": self.options.output_type if self.options.output_type != "URL" else None,
            "outputQuality": self.output_quality if self.output_format != "PNG" else None,
            "safety": self._make_safety(),
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
        return task | (dict(self.accelerator or {}) or {"acceleration": self.acceleration_level})

    def _make_safety(self) -> dict[str, Any]:
        safety: dict[str, Any] = {"checkContent": True} if self.check_content else {}
        return safety | ({"mode": self.safety_mode} if self.safety_mode != "none" else {})

    def estimate_usd(self) -> float:
        """About what the job will cost, fitted to the prices in Runware's examples (1024x1024: $0.0019)."""
        megapixels = max(0.25, self.width * self.height / 2**20)
        one = 0.0019 * megapixels * self.steps / 28 * (1 + 1.5 * len(self.references))
        return math.ceil(one * 10000) / 10000 * self.number_results


def is_address(text: str) -> bool:
    """Whether Runware finds a picture by it: an address on the network, or the UUID of a picture there."""
    if _UUID.fullmatch(text):
        return True
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    plain = text.isprintable() and " " not in text and len(text) <= MAX_ADDRESS
    return plain and parts.scheme in ("https", "http") and bool(parts.hostname) and "@" not in parts.netloc


def order_references(pictures: Sequence[str], addresses: str, check: bool = True) -> list[str]:
    """All references in order: pictures that no line of `addresses` names, then its lines. Raises InputError
    for a line that is neither an address, a UUID nor 'picture N'.
    """
    lines = [line.strip() for line in addresses.splitlines() if line.strip()]
    named: dict[int, int] = {}
    for place, line in enumerate(lines):
        number = line[len(PICTURE_MARK) :] if line.startswith(PICTURE_MARK) else ""
        if number.isdecimal() and 1 <= int(number) <= len(pictures) and int(number) not in named:
            named[int(number)] = place
        elif check and not is_address(line):
            raise InputError(
                say(
                    "reference_addresses, line %1, is '%2', but must be an https address, a "
                    "Runware UUID, or 'picture N' for one of the %3 connected pictures, each once.",
                    place + 1,
                    line[:80],
                    len(pictures),
                )
            )
    placed = {place: pictures[number - 1] for number, place in named.items()}
    first = [picture for number, picture in enumerate(pictures, 1) if number not in named]
    return first + [placed.get(place, line) for place, line in enumerate(lines)]


def read_scheduler(name: Any) -> Any:
    """A scheduler of a request by the name the widget has for it."""
    return next((own for own, sent in _SPELLING.items() if sent == name), name)


class Runware(Service):
    """Runware over REST."""

    name = "runware"
    title = "Runware"
    company = "Runware"
    node_id = "KleinodRunware"
    key_variable = "RUNWARE_API_KEY"
    address_variable = "KLEINOD_RUNWARE_URL"
    key_page = "https://my.runware.ai"
    regions = {"global": "https://api.runware.ai"}
    key_hosts = re.compile(r"api\.runware\.ai")
    picture_hosts = re.compile(r"(im|vm)\.runware\.ai")
    private = frozenset(
        {"positivePrompt", "negativePrompt", "inputs", "taskUUID", "webhookURL", "uploadEndpoint"}
    )
    repeats_safely = True
    poll_pace = PollPace(1.0, 1.5, 8.0)
    fields = (*FIELDS, *ADVANCED_FIELDS, *LATER_FIELDS)

    def make_key_header(self, key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"}

    def make_request(self, context: RunContext, inputs: Mapping[str, Any]) -> JobRequest:
        """The job of a Klein Runware with these inputs; values on its wires speak through `to_runware`."""
        options = inputs.get("options") or RunwareOptions()
        frames = collect_frames(inputs.get("references"), inputs.get("images"), MAX_REFERENCES, self.title)
        form = inputs.get("upload_format", UPLOAD_FORMAT.default)
        UPLOAD_FORMAT.check(form)
        acceleration, loras, faces = (
            inputs.get(name) for name in ("acceleration", "loras", "face_refinement")
        )
        given = {row.name: inputs[row.name] for row in _REQUEST_FIELDS if row.name in inputs}
        pictures = [to_data_uri(encode(frame, form, longest_side=MAX_REFERENCE_SIDE)) for frame in frames]
        references = order_references(pictures, inputs.get("reference_addresses", ""))
        request = RunwareRequest(
            **given,
            accelerator=None if acceleration is None else acceleration.to_runware(),
            loras=() if loras is None else tuple(loras.to_runware()),
            references=references,
            ultralytics=None if faces is None else faces.to_runware(),
            options=options,
        )
        summary = {
            "model": request.model,
            "width": request.width,
            "height": request.height,
            "steps": request.steps,
            "seed": request.sent_seed,
            "references": len(references),
        }
        return make_job_request(
            self, context, request.to_task(), "imageInference", request.positive_prompt, summary,
            {**inputs, "profile": options.profile, "price_check": options.price_check},
            wanted=request.number_results, estimate_usd=request.estimate_usd(),
        )  # fmt: skip

    def estimate_usd(self, widgets: Mapping[str, Any], references: int) -> float:
        names = ("width", "height", "steps", "number_results")
        given = {name: widgets[name] for name in names if name in widgets}
        there = len(order_references([], str(widgets.get("reference_addresses", "")), check=False))
        return RunwareRequest("price", references=["picture"] * (references + there), **given).estimate_usd()

    def make_submit(self, base: str, job: Job, body: Mapping[str, Any]) -> HttpCall:
        pictures = body.get("outputType", "URL") != "URL"
        return HttpCall(
            "POST",
            base + "/v1",
            [{**body, "taskUUID": job.id}],
            ANSWER_BYTES_WITH_PICTURES if pictures else ANSWER_BYTES,
            slow=body.get("deliveryMethod") != "async",
        )

    def read_submit(self, answer: Answer, job: Job) -> SubmitAnswer:
        errors = read_errors(answer.body, job.id)
        status = read_status(answer.body, job.id)
        codes = [str(error.get("code", "")) for error in errors]
        kinds = {classify(answer.status, code) for code in codes}
        if CONFLICT in kinds:
            return SubmitAnswer(CONFLICT)
        # Even a well-formed 5xx may follow an acceptance, but only one with our task in it says so.
        if answer.status < 300 and status.known and (_has_data(answer.body, job.id) or kinds == {MODERATED}):
            return SubmitAnswer(ACCEPTED, vendor_id=job.id, status=status)
        if errors:
            words = "; ".join(describe_error(error) for error in errors) + _hint(errors)
            return SubmitAnswer(classify(answer.status, codes[0]), words)
        words = describe_status(answer.status)
        if 300 <= answer.status < 400:
            return SubmitAnswer(REDIRECT, words)
        if answer.status == 429:
            return SubmitAnswer(BUSY, words)
        if 400 <= answer.status < 500 and answer.status not in (408, 409):
            return SubmitAnswer(classify(answer.status, ""), words)
        return SubmitAnswer(UNCLEAR, words)

    def make_poll(self, base: str, job: Job, count: int) -> HttpCall:
        """`getResponse`; now and then the archive, which keeps jobs for longer."""
        kind = "getTaskDetails" if count % _ARCHIVE_EVERY == _ARCHIVE_EVERY - 1 else "getResponse"
        return HttpCall(
            "POST", base + "/v1", [{"taskType": kind, "taskUUID": job.id}], ANSWER_BYTES_WITH_PICTURES
        )

    def read_poll(self, answer: Answer, job: Job) -> JobStatus:
        if _is_archive(answer.body):
            return read_archive(answer.body, job.id)
        status = read_status(answer.body, job.id)
        if status.known or status.refused or answer.status == 200:
            return status
        return JobStatus(refused=answer.status in (401, 402, 403), complaint=f"HTTP {answer.status}")

    def make_balance(self, base: str, question_id: str) -> HttpCall:
        task = {"taskType": "accountManagement", "operation": "getDetails", "taskUUID": question_id}
        return HttpCall("POST", base + "/v1", [task])

    def read_balance(self, answer: Answer) -> float | None:
        errors = _list_errors(answer.body)
        if answer.status in (401, 403) or any(classify(200, str(e.get("code", ""))) == KEY for e in errors):
            raise PermissionError
        data = answer.body.get("data") if isinstance(answer.body, dict) else None
        first = data[0] if isinstance(data, list) and data and isinstance(data[0], dict) else {}
        return read_number(first.get("balance"))


# --- Errors

_FAMILIES = (
    (MODERATED, ("content", "nsfw", "moderat", "unsafe", "sensitive", "promptblocked", "imageblocked")),
    (BALANCE, ("credit", "balance", "quota", "payment")),
    (KEY, ("apikey", "unauthor", "authentication", "token", "credential")),
    (PERMISSION, ("forbidden", "permission", "suspended", "disabled")),
    (
        BUSY,
        (
            "ratelimit", "toomany", "throttl", "overload", "capacity", "timeout", "timedout", "unavailable",
            "server", "internal", "provider", "inference", "processingfailed", "taskfailed", "unknownerror",
        ),
    ),
)  # fmt: skip
# A code that begins so is about a field of the request, also where a word of another family follows, as in
# "mismatchedInferenceParameters" or "invalidContentType".
_WRONG = re.compile(r"invalid|missing|mismatch|unsupported|malformed|incompatible|duplicate")
_NO_FAMILY = re.compile(r"content(type|length|encoding|size)|tokens|token(count|length|limit)")
_BY_STATUS = {402: BALANCE, 401: KEY, 403: PERMISSION, 429: BUSY}
# Errors of these families are about the moment, not about the job, also where they name it.
_PASSING = (
    "ratelimit", "toomany", "throttl", "overload", "capacity", "timeout", "timedout", "unavailable",
    "noavailable", "internal", "busy",
)  # fmt: skip


def classify(status: int, code: str) -> str:
    """conflict | balance | key | permission | moderated | busy | gone | invalid, by HTTP status and family of
    the code.

    Runware says its codes are being standardised, so nothing relies on an exact list.
    """
    low = code.lower()
    if "conflict" in low and "uuid" in low:
        return CONFLICT
    family = _NO_FAMILY.sub("", low)
    for kind, words in _FAMILIES:
        said = any(word in family for word in words) and not (kind == BUSY and _WRONG.match(low))
        if said or _BY_STATUS.get(status) == kind:
            return kind
    if status >= 500:
        return BUSY
    return GONE if status == 404 or "notfound" in low else INVALID


def _list_errors(body: Any) -> list[dict[str, Any]]:
    errors = (body.get("errors") or body.get("error")) if isinstance(body, dict) else None
    errors = errors if isinstance(errors, list) else [errors] if isinstance(errors, dict) else []
    return [error for error in errors if isinstance(error, dict)]


def read_errors(body: Any, task_uuid: str) -> list[dict[str, Any]]:
    """The error items of an answer that concern this task, or no task at all."""
    return [error for error in _list_errors(body) if error.get("taskUUID") in (task_uuid, None, "")]


def describe_error(error: Mapping[str, Any]) -> str:
    """Runware's own words about one error, with the field it names."""
    parameter = error.get("parameter")
    named = ", ".join(map(str, parameter)) if isinstance(parameter, list) else parameter
    message = str(
        error.get("message") or error.get("responseContent") or error.get("code") or "no reason given"
    )
    return f"{message} (field: {named})" if named else message


def _hint(errors: list[dict[str, Any]]) -> str:
    named = " ".join(str(error.get("parameter")) for error in errors)
    names_setting = "trueCFGScale" in named or "settings" in named
    return " - set true_cfg_scale to 0 to leave it out" if names_setting else ""


# --- Status of a job


def _list_data(body: Any, task_uuid: str) -> list[dict[str, Any]]:
    data = body.get("data") if isinstance(body, dict) else None
    data = data if isinstance(data, list) else [data]
    return [item for item in data if isinstance(item, dict) and item.get("taskUUID") == task_uuid]


def _has_data(body: Any, task_uuid: str) -> bool:
    return bool(_list_data(body, task_uuid))


def read_status(body: Any, task_uuid: str) -> JobStatus:
    """One answer to `getResponse`, or the answer of a sync submit. Repeated items are counted once.

    Only an error that names this task, is not about asking for it, and is not of the passing kind counts as a
    failure; any other is a complaint.
    """
    images: dict[str, RemoteImage] = {}
    failures: list[Failure] = []
    complaints: list[str] = []
    working, progress, known, refused = False, None, False, False
    for item in _list_data(body, task_uuid):
        known = True
        status = str(item.get("status", "")).lower()
        image = _read_image(item)
        if image is not None:
            images.setdefault(image.item_id, image)
        elif status in ("error", "failed") or item.get("error"):
            _sort_error(item.get("error") or item, failures, complaints)
        elif status:
            working = working or status != "success"
            percent = read_number(item.get("progress"))
            progress = progress if percent is None else min(1.0, max(0.0, percent / 100))
    listed: list[Failure] = []
    for error in read_errors(body, task_uuid):
        code = str(error.get("code", ""))
        refused = refused or classify(200, code) in (KEY, BALANCE, PERMISSION)
        if error.get("taskUUID") == task_uuid and error.get("taskType") in ("imageInference", None):
            known = True
            _sort_error(error, listed, complaints)
        else:
            complaints.append(describe_error(error))
    # One failure may stand in both lists; counted twice it would end a job whose pictures are still coming.
    failures = max(failures, listed, key=len)
    return JobStatus(
        tuple(images.values()), tuple(failures), known, working, refused=refused, progress=progress,
        complaint="; ".join(dict.fromkeys(complaints)),
    )  # fmt: skip


def _is_archive(body: Any) -> bool:
    data = body.get("data") if isinstance(body, dict) else None
    return isinstance(data, list) and any(
        isinstance(item, dict) and item.get("taskType") == "getTaskDetails" for item in data
    )


def read_archive(body: Any, task_uuid: str) -> JobStatus:
    """The archived answer inside `getTaskDetails`; an empty one means nothing yet, not failure."""
    for item in _list_data(body, task_uuid):
        response = item.get("response")
        response = {"data": response} if isinstance(response, list) else response
        if isinstance(response, dict):
            inner = response if "data" in response or "errors" in response else {"data": [response]}
            return read_status(inner, task_uuid)
        return JobStatus(known=True, working=True)
    return JobStatus()


def _read_image(item: Mapping[str, Any]) -> RemoteImage | None:
    """A finished picture. One without an address or data is not there yet."""
    url = str(item.get("imageURL") or "")
    data = str(item.get("imageBase64Data") or item.get("imageDataURI") or "")
    if not item.get("imageUUID") or not (url or data):
        return None
    return RemoteImage(
        item_id=str(item["imageUUID"]),
        seed=read_seed(item.get("seed")),
        url=url,
        data=data,
        cost_usd=read_cost(item.get("cost")),
        nsfw=bool(item.get("NSFWContent")),
        worker=read_worker(item.get("worker")),
    )


def read_worker(name: Any) -> str:
    """What a cluster of the user's own (cluster/README.md) says of who drew a picture; the paid service says
    nothing.
    """
    return name if isinstance(name, str) and len(name) <= MAX_WORKER and name.isprintable() else ""


def _sort_error(error: Any, failures: list[Failure], complaints: list[str]) -> None:
    error = error if isinstance(error, Mapping) else {"message": str(error)}
    code = str(error.get("code", ""))
    kind = classify(200, code)
    if kind in (KEY, BALANCE, PERMISSION) or any(word in code.lower() for word in _PASSING):
        complaints.append(describe_error(error))
    else:
        failures.append(Failure(MODERATION if kind == MODERATED else FAILURE, describe_error(error)))
