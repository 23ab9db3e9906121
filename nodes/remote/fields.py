"""Rows of the widgets that every remote node has: how a job is handled, whatever it asks for."""

from __future__ import annotations

from ..base.fields import Field
from .images import UPLOAD_FORMATS
from .job_request import PRICE_CHECKS, PRICE_OFF
from .results import POLICIES

PROFILE = Field(
    "profile",
    "default",
    "The name of a stored API key or own server (Settings > Kleinod > API keys), never the key itself.",
    optional=True,
    advanced=True,
)
PRICE_CHECK = Field(
    "price_check",
    PRICE_OFF,
    "Tell about what the job costs before it runs, or only that: then nothing is sent and the rest of the "
    "graph waits.",
    choices=PRICE_CHECKS,
    optional=True,
    advanced=True,
)
MODERATION = Field(
    "moderation",
    POLICIES[0],
    "When moderation keeps a picture back: stop with its reason, put a grey picture in its place, or leave "
    "it out. With 'error', pictures that did arrive are still delivered.",
    choices=POLICIES,
    optional=True,
    advanced=True,
)
DEADLINE = Field(
    "deadline",
    600,
    "Seconds to wait. A job that takes longer is not lost: queue again and it is picked up without paying "
    "twice.",
    low=30,
    high=1800,
    optional=True,
    advanced=True,
)
TAKE = Field(
    "take",
    0,
    "The same request is paid for once and then comes from disk. Raise this to really run and pay it again.",
    low=0,
    high=9999,
    optional=True,
    advanced=True,
)
UPLOAD_FORMAT = Field(
    "upload_format",
    UPLOAD_FORMATS[0],
    "How source pictures are sent: PNG keeps every pixel; JPG (quality 95) and WEBP (quality 90) are several "
    "times smaller, for a slow line.",
    choices=UPLOAD_FORMATS,
    optional=True,
    advanced=True,
)
