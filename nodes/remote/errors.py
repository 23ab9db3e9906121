"""What can go wrong with a paid job.

ArtistError
+-- RemoteError          every text is a sentence for the artist and says whether money moved
    +-- NoKey            no API key is stored for the profile
    +-- Refused          turned down before it was accepted, or never sent: nothing was billed
    |   +-- NotReached   never sent, for the service could not be reached
    +-- Abandoned        interrupted before the request was sent
    +-- SpendLimit       the job would pass a limit the user set: it was not sent
    +-- MaybeBilled      the service may have accepted the request, and asking again could bill it twice
    +-- StillRunning     accepted, but not finished in time; it waits in the ledger
    +-- JobFailed        the service accepted the job and then failed it, or lost it
    +-- Moderated        the service's moderation kept the result back
    +-- Unsafe           an answer broke a safety rule: host, size or picture format
    |   +-- UnknownHost  a picture lies on a host that the user has not allowed
    +-- StorageError     the folder of keys, ledger and results cannot be used

TransportError           between transport and submission only: never shown
+-- NotSent              the request provably did not reach the service whole; the text names the cause
+-- Unclear              the request went out, and no answer came back
+-- Expired              a picture's address is no longer valid
"""

from __future__ import annotations

from ..base.errors import ArtistError


class RemoteError(ArtistError):
    """A remote job did not give what was asked for."""


class NoKey(RemoteError):
    """No API key is stored for the profile."""


class Refused(RemoteError):
    """The request was turned down before it was accepted, or never sent: nothing was billed."""


class NotReached(Refused):
    """The service could not be reached, so it has refused nothing: the request was never sent."""


class Abandoned(RemoteError):
    """The user interrupted before the request was sent."""


class SpendLimit(RemoteError):
    """The job would pass a limit the user set: it was not sent."""


class MaybeBilled(RemoteError):
    """The service may have accepted the request, and asking again could bill it twice."""


class StillRunning(RemoteError):
    """The job is accepted but not finished in time; it waits in the ledger."""


class JobFailed(RemoteError):
    """The service accepted the job and then failed it, or no longer knows it."""


class Moderated(RemoteError):
    """The service's moderation kept the result back."""


class Unsafe(RemoteError):
    """An answer broke a safety rule: host, size or picture format."""


class UnknownHost(Unsafe):
    """A picture lies on a host that the user has not allowed."""


class StorageError(RemoteError):
    """The folder of keys, ledger and results cannot be used."""


class TransportError(Exception):
    """What the transport knows about a request without a usable answer."""


class NotSent(TransportError):
    """The request provably did not reach the service whole. The text names the cause, fit for a sentence."""


class Unclear(TransportError):
    """The request went out and no usable answer came back."""


class Expired(TransportError):
    """A picture's address is no longer valid: ask the service for a fresh one."""
