"""The services that can be paid for a picture, one file each. Adding one is writing its file and naming it
here; everything else asks this registry.
"""

from __future__ import annotations

from ...base.errors import InputError
from .base import Service
from .bfl import Bfl
from .runware import Runware

_SERVICES: dict[str, Service] = {}


def register(service: Service) -> Service:
    """Make a service known under its name."""
    _SERVICES[service.name] = service
    return service


def unregister(name: str) -> None:
    _SERVICES.pop(name, None)


def list_services() -> tuple[Service, ...]:
    """Every service, in the order in which they were registered."""
    return tuple(_SERVICES.values())


def find_service(name: object) -> Service:
    """The service of this name. Raises InputError for a name that none has."""
    if not isinstance(name, str) or name not in _SERVICES:
        raise InputError(f"There is no service {name!r}; there are {', '.join(_SERVICES)}.")
    return _SERVICES[name]


def name_service(name: str) -> str:
    """What sentences call a service, also one that is no longer known."""
    return _SERVICES[name].title if name in _SERVICES else name


for _service in (Runware(), Bfl()):
    register(_service)
