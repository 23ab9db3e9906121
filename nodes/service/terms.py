"""How a job is delivered, whatever dialect asked: what the dispatcher and the errands need to know of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Terms:
    """form: PNG, JPG or WEBP; quality: of the last two. kind: URL, base64Data or dataURI. ttl: seconds that
    a result is kept, 0 for the owner's own number. webhook, secret, upload: addresses, "" for none. cost:
    whether it is told. base: the address of the service that the client used. prompt: where its dialect says
    it back. model: as it was asked for. check: whether a classifier looks at the picture.
    """

    form: str = "JPG"
    quality: int = 95
    kind: str = "URL"
    ttl: int = 0
    webhook: str = ""
    secret: str = ""
    upload: str = ""
    cost: bool = False
    base: str = ""
    prompt: str = ""
    model: str = ""
    stand_in: bool = False
    input_megapixels: float = 0.0
    check: bool = False

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Terms:
        return cls(**json.loads(text))
