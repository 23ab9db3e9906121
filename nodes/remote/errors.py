"""What can go wrong with a paid job. Every text is a sentence for the artist and says whether money moved."""

from __future__ import annotations

from ..base.errors import ArtistError


class RemoteError(ArtistError, RuntimeError):
    """A remote job did not give what was asked for."""


class NoKey(RemoteError):
    """No API key is stored for the profile."""


class Refused(RemoteError):
    """The service turned the request down before accepting it: nothing was billed."""


class SpendLimit(RemoteError):
    """The job would pass a limit the user set: it was not sent."""


class MaybeBilled(RemoteError):
    """The service may have accepted the request, and asking again could bill it twice."""


class StillRunning(RemoteError):
    """The job is accepted but not finished in time; it waits in the ledger."""


class JobFailed(RemoteError):
    """The service accepted the job and then failed it."""


class Moderated(RemoteError):
    """The service's moderation kept the result back."""


class Unsafe(RemoteError):
    """An answer broke a safety rule: host, size or picture format."""


class Abandoned(RemoteError):
    """The user interrupted before the request was sent."""
