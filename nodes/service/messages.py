"""What comes in and what goes out, free of any web framework: method, path, headers and body; an answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Request:
    """One HTTP request below the service's own address.

    path: without that address, such as "/runware/v1". headers: names in lower case. base: the address the
    client used, such as "http://127.0.0.1:8188/kleinod/api".
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    base: str = ""


@dataclass(frozen=True)
class Answer:
    """One HTTP answer."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """A request that is not accepted, in words that every dialect can put into its own shape.

    status: HTTP. code: of Runware's spelling, from which the other dialects choose theirs. parameter: the
    field by the request's own name, "" where there is none.
    """

    def __init__(self, status: int, code: str, message: str, parameter: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.parameter = status, code, message, parameter


def read_secret(headers: Mapping[str, str]) -> str:
    """The key that a request shows, in any of the headers that its dialects have for it."""
    return (
        headers.get("x-key", "")
        or headers.get("x-api-key", "")
        or headers.get("authorization", "").partition(" ")[2].strip()
    )


def answer_json(status: int, value: Any, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, json.dumps(value).encode(), headers=headers or {})


def read_json(body: bytes) -> Any:
    """The JSON value of a body. Raises Refusal, also for numbers that JSON does not know, and for halves of
    characters, which no file and no database takes.
    """

    def refuse_constant(name: str) -> Any:
        raise ValueError(name)

    try:
        value = json.loads(body, parse_constant=refuse_constant)
        if b"\\ud" in body or b"\\uD" in body:
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, RecursionError):
        raise Refusal(400, "invalidJSON", "The body of the request is not JSON.") from None
