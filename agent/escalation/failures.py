"""What it means when an endpoint does not answer: whether another try may mend it, what it may have cost, what people
can do about it. Pure; httpx's errors and the statuses of HTTP become ours here.
"""

from __future__ import annotations

import email.utils
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from typing import TYPE_CHECKING

from agent.config import Escalation
from agent.escalation import completions
from agent.escalation.endpoints import Target

if TYPE_CHECKING:
    import httpx  # at run time with the first connection: a device that never asks does without it

_RETRY_AFTER_MAX_S = 3600.0
"""A server that names a later moment is asked again after an hour."""
_RETRYABLE = frozenset({408, 409, 425, 429})
_UNTOUCHED = frozenset({501, 503, 505})
"""Of the server's own errors those that say that it did no work; behind the others (a proxy's 502 and 504) it may."""


class Failed(Exception):
    """This try came to nothing; another may not. ``lost``: it was sent and not refused, so it may be billed."""

    def __init__(self, reason: str, *, after_s: float | None = None, remedy: str = "", lost: bool = False) -> None:
        super().__init__(reason)
        self.after_s = after_s
        self.remedy = remedy
        self.lost = lost


class Empty(Failed):
    """The endpoint is at work, and had nothing to say to this request."""


class Refused(Exception):
    """This endpoint will not answer this request. ``lost`` as Failed's: it worked on it all the same."""

    def __init__(self, reason: str, remedy: str, *, lost: bool = False) -> None:
        super().__init__(reason)
        self.remedy = remedy
        self.lost = lost


@contextmanager
def translated(target: Target, settings: Escalation) -> Iterator[None]:
    """httpx's errors, and those of a deadline, as ours."""
    import httpx

    try:
        yield
    except TimeoutError as error:
        raise Failed("did not answer in time") from error
    except httpx.ConnectTimeout as error:
        raise Failed(f"no connection within {settings.connect_s:g} s") from error
    except httpx.PoolTimeout as error:
        raise Failed("all connections to it are in use") from error
    except httpx.TimeoutException as error:
        raise Failed(f"silent for {settings.read_s:g} s") from error
    except httpx.ProxyError as error:
        raise Failed(f"the proxy refused: {error}", remedy=f"Check {target.field('proxy')}.") from error
    except httpx.TransportError as error:
        raise _broken(target, error) from error


def content_kind(target: Target, response: httpx.Response) -> str:
    """The content type of a completion. Raises Failed for any other: it is not the endpoint that speaks."""
    kind = str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()
    if kind not in ("text/event-stream", "application/json"):
        raise Failed(
            f"answered with {kind[:60] or 'no content type'} instead of a completion",
            remedy=f"Check {target.field('url')}, and that no network's sign-in page lies in between.",
        )
    return kind


def declined(target: Target, response: httpx.Response, data: bytes, wall: float) -> Failed | Refused:
    """What a status other than 200 means."""
    status, said = response.status_code, completions.refusal(data)
    if target.key:
        said = said.replace(target.key, "***")
    reason = f"HTTP {status}" + (f" ({said})" if said else "")
    if status == 429 and "insufficient_quota" in said:
        return Refused(reason, f"The account of {target.key_from} has no money left.")
    if status in _RETRYABLE or status >= 500:
        after_s = retry_after_s(response.headers.get("retry-after", ""), wall)
        return Failed(reason, after_s=after_s, lost=status >= 500 and status not in _UNTOUCHED)
    if status in (301, 308):
        to = response.headers.get("location", "")[:200]
        return Refused(f"{reason}: it moved to {to!r}", f"Set {target.field('url')} to where it is now.")
    if status < 400:
        return Failed(
            reason, remedy=f"Check {target.field('url')}, and that no network's sign-in page lies in between."
        )
    remedies = {
        401: f"Check the key in {target.key_from}."
        if target.key
        else f"Set {target.field('key_file')} or OPENAI_API_KEY.",
        403: f"Check what the key in {target.key_from} may do, and {target.field('model')} ({target.model!r}).",
        404: f"Check {target.field('url')} ({target.url}) and {target.field('model')} ({target.model!r}).",
        413: "Lower escalation.passages or escalation.history.",
    }
    fallback = f"Check {target.field('model')} ({target.model!r}) and escalation.max_tokens."
    return Refused(reason, remedies.get(status, fallback))


def _broken(target: Target, error: httpx.TransportError) -> Failed:
    """What a connection that failed means. A server that wants another client certificate says so in an alert that may
    be lost behind the broken connection (TLS 1.3 ends the handshake before), so there it is only a hint."""
    import httpx

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Failed(
                f"its certificate is not trusted ({cause.verify_message})",
                remedy=f"Check {target.field('ca_file')}, {target.field('url')} and the device's clock.",
            )
        cause = cause.__cause__ or cause.__context__
    secure = target.url.startswith("https:")
    shaken = isinstance(error, httpx.ReadError | httpx.WriteError | httpx.RemoteProtocolError)
    remedy = f"If it wants a client certificate, check {target.field('client_cert')}." if shaken and secure else ""
    return Failed(f"the connection failed ({type(error).__name__}: {error}".rstrip(": ") + ")", remedy=remedy)


def empty(finish: str | None) -> Failed | Refused:
    if finish == "length":
        return Refused("spent all its tokens without an answer", "Raise escalation.max_tokens.", lost=True)
    if finish == "content_filter":
        return Refused("its content filter keeps the answer back", "A person has to answer this one.", lost=True)
    return Empty("gave an empty answer", lost=True)


def retry_after_s(header: str, wall: float) -> float | None:
    """Seconds from now, of seconds or an HTTP date (RFC 9110, 10.2.3), at most an hour; None for neither."""
    given = header.strip()
    if given.isascii() and given.isdigit():
        return min(_RETRY_AFTER_MAX_S, float(given[:12]))
    try:
        date = email.utils.parsedate_to_datetime(given)
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - wall
    except (ValueError, OverflowError):
        return None
    return min(_RETRY_AFTER_MAX_S, max(0.0, seconds))
