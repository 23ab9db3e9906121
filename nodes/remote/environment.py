"""The one place where the pack reads environment variables. Nothing is ever written to them.

`RUNWARE_API_KEY`, `BFL_API_KEY`            keys; `RUNWARE_API_KEY_<PROFILE>` for any profile but "default"
`BFL_WEBHOOK_SECRET`                        signs BFL's webhook calls, where a webhook is used at all
`KLEINOD_RUNWARE_URL`, `KLEINOD_BFL_URL`    where the service is, for an emulator on this machine
`KLEINOD_ALLOW_REMOTE_SETTINGS`             "1" lets a browser on another machine change the keys
"""

from __future__ import annotations

import os
import re

KEY_VARIABLES = {"runware": "RUNWARE_API_KEY", "bfl": "BFL_API_KEY"}
ADDRESS_VARIABLES = {"runware": "KLEINOD_RUNWARE_URL", "bfl": "KLEINOD_BFL_URL"}


def name_key_variable(service: str, profile: str) -> str:
    """The variable that holds the key of a profile."""
    name = KEY_VARIABLES[service]
    return name if profile == "default" else f"{name}_{re.sub(r'[^A-Z0-9]', '_', profile.upper())}"


def read_key(service: str, profile: str) -> str | None:
    return os.environ.get(name_key_variable(service, profile), "").strip() or None


def read_address(service: str) -> str | None:
    """The address that replaces the service's own, or None."""
    return os.environ.get(ADDRESS_VARIABLES[service], "").strip().rstrip("/") or None


def allows_remote_settings() -> bool:
    return os.environ.get("KLEINOD_ALLOW_REMOTE_SETTINGS", "") == "1"


def read_webhook_secret() -> str | None:
    return os.environ.get("BFL_WEBHOOK_SECRET", "").strip() or None
