"""The error for a request that cannot be answered: a status, and an error in OpenAI's form.

Owns: `ApiError`, and the status of each of the project's errors. Refuses to know: HTTP.
Specs: API-01 to API-03. Source: OpenAI's API reference, "Error codes". Next: `ferrum.api.strict_json`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from ferrum.errors import (
    Cancelled,
    FerrumError,
    InvalidParameter,
    NotFound,
    RequestValidation,
    ResourceExhausted,
    Timeout,
    Unsupported,
)

logger = logging.getLogger(__name__)

INVALID = "invalid_request_error"


@dataclass(eq=False)
class ApiError(Exception):
    """An error with its status. `param` names the field, `code` is for programs."""

    status: int
    message: str
    kind: str = INVALID
    param: str | None = None
    code: str | None = None
    more: dict[str, Any] | None = None  # further fields of the error

    def __str__(self) -> str:
        return self.message

    def body(self) -> dict[str, Any]:
        """The body of the answer."""
        fields = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": {**fields, **(self.more or {})}}


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """An error for a request that the client must change."""
    return ApiError(400, message, INVALID, param, code)


def as_api_error(error: BaseException) -> ApiError:
    """The ApiError for any error. A bug is logged, and its details are not sent."""
    match error:
        case ApiError():
            return error
        case InvalidParameter():
            return invalid(str(error), error.field, "invalid_value")
        case NotFound():
            return ApiError(404, str(error), "not_found_error", None, "not_found")
        case RequestValidation() | Unsupported():
            return invalid(str(error))
        case ResourceExhausted():
            return ApiError(429, str(error), "rate_limit_error", None, "queue_full")
        case Timeout() | TimeoutError():
            return ApiError(408, str(error) or "the time for this request is over", "timeout_error", None, "timeout")
        case Cancelled():
            return ApiError(503, str(error), "server_error", None, "shutting_down")
        case FerrumError() if error.is_client_error:
            return invalid(str(error))
        case RecursionError():
            return invalid("the request nests too deep")
    logger.error("a request failed", exc_info=error)
    message = str(error) if isinstance(error, FerrumError) else "the server failed at this request: see its log"
    return ApiError(500, message, "server_error", None, "internal_error")
