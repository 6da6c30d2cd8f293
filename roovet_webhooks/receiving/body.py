"""A body as it comes in: counted against the cap, fed to the MAC, and kept; never more of it than the cap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roovet_webhooks.errors import BodyAlreadyRead, IncompleteBody, PayloadTooLarge

if TYPE_CHECKING:
    from roovet_webhooks.messages import WebhookRequest
    from roovet_webhooks.signing.verifier import Verification


class BodyReader:
    """Takes a body chunk by chunk.

    Args:
        verification: What the chunks are fed to.
        limit: The cap, in bytes.
    """

    __slots__ = ("_first", "_limit", "_rest", "verification")

    def __init__(self, verification: Verification, limit: int) -> None:
        self.verification: Verification = verification
        self._limit = limit
        self._first = b""
        self._rest: bytearray | None = None

    def take(self, chunk: bytes) -> None:
        """Take the next chunk.

        Raises:
            PayloadTooLarge: The body is over the cap.
        """
        if type(chunk) is not bytes:
            # A buffer that is filled again would change after the MAC has seen it.
            chunk = bytes(memoryview(chunk))
        if len(self) + len(chunk) > self._limit:
            message = f"the body exceeds {self._limit} bytes"
            raise PayloadTooLarge(message, limit=self._limit)
        self.verification.update(chunk)
        if not self._first:
            self._first = chunk
        elif self._rest is None:
            # A bytearray, not a list: a body of one-byte chunks costs its own size, not fifty times it.
            self._rest = bytearray(chunk)
        else:
            self._rest += chunk

    def __len__(self) -> int:
        """Count the bytes taken."""
        return len(self._first) + (len(self._rest) if self._rest is not None else 0)

    def body(self, request: WebhookRequest, declared: int | None) -> bytes:
        """Return the whole body, after its last chunk.

        Args:
            request: The request it came with.
            declared: Its declared length in bytes, if there was one.

        Raises:
            BodyAlreadyRead: None of it was left, and only the application can have consumed it.
            IncompleteBody: It is shorter than declared.
        """
        received = len(self)
        if declared is not None and received < declared:
            if received == 0 and _length_is_kept(request):
                message = (
                    f"{declared} bytes were declared and none are left to read: a middleware or a view has "
                    "consumed the body; let the receiver read it first, or keep a raw copy (get_data, body())"
                )
                raise BodyAlreadyRead(message)
            message = (
                f"the body ended after {received} of {declared} bytes: the sender stopped, or a middleware consumed it"
            )
            raise IncompleteBody(message, received=received, declared=declared)
        return self._first if self._rest is None else self._first + self._rest


def _length_is_kept(request: WebhookRequest) -> bool:
    """Say whether a server that passes on less than the declared length must have had the whole.

    Over HTTP/2 some servers do not check the length, and a request that asks to upgrade has no body for some. A
    stranger must not make them say that the application is at fault.
    """
    return request.http_version.startswith("1") and all(name.lower() != b"upgrade" for name, _ in request.headers)
