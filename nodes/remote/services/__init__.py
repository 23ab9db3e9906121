"""The services that can be paid for a picture, one file each. Adding one is writing its file and naming it
here; everything else asks this registry.
"""

from __future__ import annotations

from ...base.errors import InputError
from ...base.sentences import say
from .base import Service
from .bfl import Bfl
from .own_server import OwnBfl, OwnRunware
from .runware import Runware

_SERVICES: dict[str, Service] = {}
# In their places, at an address of the user's own: never offered, only found.
_OWN: dict[str, Service] = {}


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
    known = {**_SERVICES, **{own.name: own for own in _OWN.values()}}
    if not isinstance(name, str) or name not in known:
        raise InputError(say("There is no service '%1'; there are %2.", name, ", ".join(_SERVICES)))
    return known[name]


def find_own(name: str) -> Service | None:
    """What speaks like the service of this name and is the user's own server; None where nothing does."""
    return _OWN.get(name)


def is_own(name: str) -> bool:
    """Whether jobs under this service's name were drawn by a server of the user's own."""
    return any(own.name == name for own in _OWN.values())


def name_service(name: str) -> str:
    """What sentences call a service, also one that is no longer known."""
    try:
        return find_service(name).title
    except InputError:
        return name


for _service, _own in ((Runware(), OwnRunware()), (Bfl(), OwnBfl())):
    register(_service)
    _OWN[_service.name] = _own
