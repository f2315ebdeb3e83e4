"""The error tree: every failure that a caller can meet, one class a kind.

Each class has a stable ``code`` (clients match on it, texts may change) and the HTTP status that the API gives it. A
message names the offending value; ``remedy`` says what to do. Errors of third-party libraries are translated into
these once, where the library is called, ``from`` their cause. Workers send errors across the process border as (code,
message, remedy); `from_code` makes the class again on the other side.

    OutpostError
    +-- ConfigError             the configuration cannot be used
    +-- InvalidRequest          the caller's input is wrong (400)
    |   +-- ContextOverflow     prompt and answer do not fit the model's context
    |   +-- InputTooLarge       over a stated limit (413)
    |   +-- InvalidDocument     a document that cannot be read (422)
    |   +-- UnknownModel        no such model (404)
    |   +-- NotFound            no such collection, document, event ... (404)
    |   +-- Conflict            the state does not allow it now (409)
    +-- Unauthorized            no token, or a wrong one (401)
    +-- Forbidden               the role does not allow it (403)
    +-- Overloaded              the queue is full; come back later (429)
    +-- Unavailable             cannot be served now (503)
    |   +-- ModelDoesNotFit     the memory budget does not hold it
    |   +-- ModelQuarantined    it crashed too often while loading
    |   +-- WorkerCrashed       its process ended under the request
    |   +-- DeadlineExceeded    it took longer than it may
    |   +-- ShuttingDown        the daemon is stopping
    |   +-- UnfitBuild          the native library was not built for this CPU
    |   +-- CloudUnavailable    no line, or the cloud does not answer now; worth trying again
    +-- CloudRefused            the cloud answered that it will not; trying again would not help (502)
    +-- PrivacyFailed           personal data could not be kept back, so nothing left the device
    +-- BudgetExhausted         the day's budget for the cloud is used up (429)
    +-- BadModel                a model file that cannot be loaded
    |   +-- HashMismatch        bytes are not the ones that were promised
    +-- DownloadFailed          a transfer did not complete
    +-- StorageFull             the disk is full (507)
    +-- StorageFailed           the database or a file cannot be read or written
    +-- Cancelled               the caller withdrew the request
"""

from __future__ import annotations

from typing import ClassVar


class OutpostError(Exception):
    """Root of the tree; ``str(error)`` is the message with its remedy."""

    code: ClassVar[str] = "internal_error"
    http_status: ClassVar[int] = 500

    def __init__(
        self, message: str, *, remedy: str = "", param: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.param = param
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        if not self.remedy:
            return self.message
        end = "" if self.message.endswith((".", "!", "?", ":")) else "."
        return f"{self.message}{end} {self.remedy}"


class ConfigError(OutpostError):
    code = "config_invalid"


class InvalidRequest(OutpostError):
    code = "invalid_request"
    http_status = 400


class ContextOverflow(InvalidRequest):
    code = "context_length_exceeded"


class InputTooLarge(InvalidRequest):
    code = "input_too_large"
    http_status = 413


class InvalidDocument(InvalidRequest):
    code = "invalid_document"
    http_status = 422


class UnknownModel(InvalidRequest):
    code = "model_not_found"
    http_status = 404


class NotFound(InvalidRequest):
    code = "not_found"
    http_status = 404


class Conflict(InvalidRequest):
    code = "conflict"
    http_status = 409


class Unauthorized(OutpostError):
    code = "unauthorized"
    http_status = 401


class Forbidden(OutpostError):
    code = "forbidden"
    http_status = 403


class Overloaded(OutpostError):
    code = "overloaded"
    http_status = 429


class Unavailable(OutpostError):
    code = "unavailable"
    http_status = 503


class ModelDoesNotFit(Unavailable):
    code = "model_does_not_fit"


class ModelQuarantined(Unavailable):
    code = "model_quarantined"


class WorkerCrashed(Unavailable):
    code = "worker_crashed"


class DeadlineExceeded(Unavailable):
    code = "deadline_exceeded"


class ShuttingDown(Unavailable):
    code = "shutting_down"


class UnfitBuild(Unavailable):
    code = "unfit_build"


class CloudUnavailable(Unavailable):
    """``lost``: tries that were sent, were not refused, and brought no usage; the cloud may have billed them."""

    code = "cloud_unavailable"
    lost = 0


class CloudRefused(OutpostError):
    """``lost`` as CloudUnavailable's."""

    code = "cloud_refused"
    http_status = 502
    lost = 0


class PrivacyFailed(OutpostError):
    code = "privacy_failed"


class BudgetExhausted(OutpostError):
    code = "budget_exhausted"
    http_status = 429


class BadModel(OutpostError):
    code = "bad_model"
    http_status = 503


class HashMismatch(BadModel):
    code = "hash_mismatch"


class DownloadFailed(OutpostError):
    code = "download_failed"
    http_status = 502


class StorageFull(OutpostError):
    code = "storage_full"
    http_status = 507


class StorageFailed(OutpostError):
    code = "storage_failed"


class Cancelled(OutpostError):
    code = "cancelled"
    http_status = 499


def _subclasses(cls: type[OutpostError]) -> list[type[OutpostError]]:
    return [cls, *(sub for direct in cls.__subclasses__() for sub in _subclasses(direct))]


_BY_CODE = {cls.code: cls for cls in _subclasses(OutpostError)}


def from_code(code: str, message: str, remedy: str = "", param: str | None = None) -> OutpostError:
    """The error that a worker or a server named by ``code``; an unknown code gives the root class."""
    return _BY_CODE.get(code, OutpostError)(message, remedy=remedy, param=param)
