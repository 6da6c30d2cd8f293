"""A refusal of the API, in the vendor's one shape of an error."""

from __future__ import annotations

import msgspec

from roovet_webhooks.api.assumed import ERROR_TYPES
from roovet_webhooks.api.documented import ErrorBody, ErrorDetail


class Refusal(Exception):
    """The request is refused; nothing was done.

    Args:
        status: One of the documented HTTP statuses.
        message: What is wrong, for a developer.
        param: The field, query parameter or header that is at fault.
    """

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param

    def body(self) -> bytes:
        """Return the body of the answer (vendor document, "Errors")."""
        return error_body(self.status, str(self), self.param)


def error_body(status: int, message: str, param: str | None = None) -> bytes:
    """Return the body of an error of the API."""
    detail = ErrorDetail(type=ERROR_TYPES[status], code=str(status), message=message, param=param)
    return msgspec.json.encode(ErrorBody(error=detail))
