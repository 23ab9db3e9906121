"""Environment variables of the remote nodes. Nothing is ever written to them.

Each service names its own: the key's, `<KEY VARIABLE>_<PROFILE>` for any profile but "default", and the one
that puts an emulator of this machine in the service's place.
`KLEINOD_ALLOW_REMOTE_SETTINGS`   "1" lets a browser on another machine change the keys
"""

from __future__ import annotations

import os
import re


def read_variable(name: str) -> str | None:
    """The value of a variable, or None where it is unset or blank."""
    return os.environ.get(name, "").strip() or None


def name_key_variable(variable: str, profile: str) -> str:
    """The variable that holds the key of a profile."""
    return variable if profile == "default" else f"{variable}_{re.sub(r'[^A-Z0-9]', '_', profile.upper())}"


def read_address(variable: str) -> str | None:
    """The address that replaces a service's own, or None."""
    address = read_variable(variable)
    return address.rstrip("/") if address else None


def allows_remote_settings() -> bool:
    return read_variable("KLEINOD_ALLOW_REMOTE_SETTINGS") == "1"
