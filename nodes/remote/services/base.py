"""The contract of a service: what the engine, the ledger, the settings and the page need to know of it.

A service says what to send and what an answer means. When to send, whether to send again, how long to wait
and what to write down is the engine's, once for all of them (`submission.py`, `engine.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from ...base.errors import InputError
from ...base.fields import Field
from ...base.sentences import say
from ..retry import PollPace
from ..status import JobStatus

if TYPE_CHECKING:
    from ..job_request import JobRequest, RunContext
    from ..ledger import Job

ACCEPTED, CONFLICT, MODERATED = "accepted", "conflict", "moderated"
BUSY, UNCLEAR = "busy", "unclear"
BALANCE, KEY, PERMISSION, GONE, REDIRECT, INVALID = (
    "balance",
    "key",
    "permission",
    "gone",
    "redirect",
    "invalid",
)

ANSWER_BYTES = 8 << 20
MAX_ADDRESS = 2083
ANSWER_BYTES_WITH_PICTURES = 256 << 20


@dataclass(frozen=True)
class HttpCall:
    """One HTTP request to the service. body: JSON, or None for none. slow: the answer may take minutes.
    headers: beside the key's.
    """

    method: str
    url: str
    body: Any = None
    answer_bytes: int = ANSWER_BYTES
    slow: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """One HTTP answer. `body`: parsed JSON, None where there was none. `text`: what came, as text, cut short.

    whole: False where it broke off. sent: False where it came before the request had left completely.
    """

    status: int
    body: Any
    text: str = ""
    retry_after: str | None = None
    whole: bool = True
    sent: bool = True


@dataclass(frozen=True)
class SubmitAnswer:
    """What the answer to a submit means. kind: one of the words above; words: the service's own.

    accepted: `vendor_id`, perhaps `polling_url`, `cost_usd` and a `status` that came along. sent: whether the
    request that was accepted is known to have been sent now (by `submission.py`).
    """

    kind: str
    words: str = ""
    vendor_id: str = ""
    polling_url: str = ""
    cost_usd: float | None = None
    status: JobStatus | None = None
    sent: bool = True


class Service(Protocol):
    """One paid service. Implementations have no state: one object serves every job.

    name: in the ledger and in keys.json, for ever. title: in sentences. company: in the settings.
    node_id: the node that sends to it. regions: name -> address without a path, the first is the default.
    key_hosts: hosts that may see the key. picture_hosts: hosts its pictures come from. key_page: where a user
    finds keys and balance. private: fields of a request that the ledger must not keep. repeats_safely:
    whether a request under the same id is recognised, so that it may be sent again without being billed
    again. fields: rows of the request's own widgets. own_path: for a server of the user's own, where below
    its address this wire is spoken; "" for a paid service.
    """

    name: str
    title: str
    company: str
    node_id: str
    key_variable: str
    address_variable: str
    key_page: str
    regions: Mapping[str, str]
    key_hosts: re.Pattern[str]
    picture_hosts: re.Pattern[str]
    private: frozenset[str]
    repeats_safely: bool
    poll_pace: PollPace
    fields: tuple[Field, ...]
    own_path: str = ""

    def make_key_header(self, key: str) -> dict[str, str]:
        """The header that says who pays."""
        ...

    def make_request(self, context: RunContext, inputs: Mapping[str, Any]) -> JobRequest:
        """The request of a node with these inputs, every rule of the service checked. Raises InputError."""
        ...

    def estimate_usd(self, widgets: Mapping[str, Any], references: int) -> float:
        """The list price of a request with these widgets. Raises InputError for what would be refused."""
        ...

    def make_submit(self, base: str, job: Job, body: Mapping[str, Any]) -> HttpCall:
        """The request that is billed."""
        ...

    def read_submit(self, answer: Answer, job: Job) -> SubmitAnswer:
        """Whether it was accepted, and why not."""
        ...

    def make_poll(self, base: str, job: Job, count: int) -> HttpCall:
        """Poll number `count`: free, and may be repeated. Its address may be one that the service named."""
        ...

    def read_poll(self, answer: Answer, job: Job) -> JobStatus:
        """What the answer says about the job; an answer that says nothing about it gives `JobStatus()`."""
        ...

    def make_balance(self, base: str, question_id: str) -> HttpCall:
        """A free question that also tests the key."""
        ...

    def read_balance(self, answer: Answer) -> float | None:
        """USD; None where the service does not say. Raises PermissionError for a key it does not know."""
        ...


def describe_status(status: int) -> str:
    """Words for an answer that says nothing a person can read, such as a proxy's page of HTML."""
    if status == 413:
        return (
            "the request is too large (HTTP 413): send fewer or smaller source pictures, or set "
            "upload_format to JPG or WEBP"
        )
    return f"HTTP {status}"


def is_readable(text: str) -> bool:
    """Whether a text is a reason in words, not a page of HTML or XML."""
    return bool(text.strip()) and not re.search(r"<\s*[!?/a-zA-Z]", text)


def check_webhook(name: str, address: str) -> None:
    """Raises InputError unless an address that a service is to call can be one; an empty one is not sent."""
    if not address:
        return
    try:
        parts = urlsplit(address)
        sound = parts.scheme == "https" and bool(parts.hostname) and "@" not in parts.netloc
        _ = parts.port
    except ValueError:
        sound = False
    if not sound or len(address) > MAX_ADDRESS or not address.isprintable() or " " in address:
        shown = address if len(address) <= 80 else f"{address[:80]}..."
        raise InputError(
            say(
                "%1 is '%2', but must be an address such as https://example.com/hook, with a host, "
                "without a password, at most %3 characters, or empty.",
                name,
                shown,
                MAX_ADDRESS,
            )
        )


def read_number(value: Any) -> float | None:
    """A finite number, or None: answers hold anything."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if number == number and abs(number) != float("inf") else None


def read_cost(value: Any, unit_usd: float = 1.0) -> float | None:
    """USD of a cost field; None for a missing one, and for 0, which services use for "not known"."""
    number = read_number(value)
    return number * unit_usd if number is not None and number > 0 else None


def read_seed(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
