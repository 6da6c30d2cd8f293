"""The history of a delivery's attempts: a column beside it, written by the statement that settles a claim.

It so costs no round trip, is there exactly when what it tells of was committed, and goes with the body. Only the holder
of a claim and the reaper write it, and both compare the fence. Where bodies are encrypted, it is too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import msgspec

from roovet_webhooks.errors import ConfigurationError, PayloadError
from roovet_webhooks.inbox.records import AttemptOutcome, RecordedAttempt
from roovet_webhooks.tracebacks import shortened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from roovet_webhooks.inbox.codec import Bodies
    from roovet_webhooks.inbox.protocol import Claim
    from roovet_webhooks.inbox.records import RecordedRun

RecordErrors: TypeAlias = Literal["full", "class"]
"""What is kept of errors: ``"full"`` is class, message and a short traceback; ``"class"`` is the class alone."""

MOST_ATTEMPTS = 20
MOST_BYTES = 32_768
_MOST_RUNS = 20

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(tuple[RecordedAttempt, ...])


def check_record_errors(value: object) -> RecordErrors:
    """Return the option ``record_errors`` of an inbox.

    Raises:
        ConfigurationError: It is neither ``"full"`` nor ``"class"``.
    """
    if value not in {"full", "class"}:
        message = f"record_errors must be 'full' or 'class', not {value!r}"
        raise ConfigurationError(message)
    return value  # pyright: ignore[reportReturnType] - it is one of the two


def summary(what: str, runs: Sequence[RecordedRun], *, messages: bool) -> str:
    """Return what went wrong as one sentence, such as ``failed: book (ValueError: no such account)``.

    Args:
        what: What became of the attempt.
        runs: Runs of its handlers; those that did what they should are left out.
        messages: Whether the messages of errors are given, or their classes alone.
    """
    parts = [
        f"{run.handler} ({run.error}: {run.message})"
        if messages and run.message and run.outcome != "retry_later"
        else f"{run.handler} ({run.message if messages and run.message else run.error})"
        for run in runs
        if run.outcome in {"failed", "retry_later"}
    ]
    return f"{what}: {', '.join(parts)}" if parts else what


class History(NamedTuple):
    """How an inbox keeps what its attempts came to.

    Attributes:
        bodies: Encrypts it as it encrypts bodies.
        record_errors: What is kept of errors.
        owner: Name of the process.
    """

    bodies: Bodies
    record_errors: RecordErrors
    owner: str

    def error(self, error: str, attempt: RecordedAttempt | None) -> str:
        """Return what stands as the last error beside the delivery, in clear.

        Args:
            error: What became of the attempt, without messages.
            attempt: What is known of it.
        """
        if attempt is None:
            return error
        # What is encrypted with the body must not stand beside it in clear.
        messages = self.record_errors == "full" and not self.bodies.encrypts
        return summary(error, attempt.runs, messages=messages)

    def settled(  # noqa: PLR0913 - what is known of the end of an attempt
        self,
        claim: Claim,
        attempt: RecordedAttempt | None,
        outcome: AttemptOutcome,
        *,
        now: int,
        dead: bool = False,
        reason: str | None = None,
    ) -> bytes:
        """Return the history of a claimed delivery with the attempt that has just ended.

        Args:
            claim: The claim.
            attempt: What is known of the attempt.
            outcome: How it ended, where nothing more is known.
            now: When it ended, milliseconds by the store's clock.
            dead: Whether it was the last.
            reason: Why it ended so, where nothing more is known.
        """
        if attempt is None:
            reason = None if reason is None else shortened(reason)
            attempt = RecordedAttempt(number=claim.attempt, outcome=outcome, reason=reason)
        attempt = msgspec.structs.replace(attempt, ended_at=now / 1000, dead=dead, owner=self.owner)
        return self._appended(claim.history, attempt)

    def crashed(self, row: Any, *, now: int, dead: bool) -> bytes:  # noqa: ANN401 - a row
        """Return the history of a delivery whose lease ran out; arguments as `settled`."""
        attempt = RecordedAttempt(
            number=row.fence, outcome=AttemptOutcome.CRASHED, ended_at=now / 1000, owner=row.owner, dead=dead
        )
        return self._appended(row.history, attempt)

    def read(self, stored: Any) -> tuple[RecordedAttempt, ...]:  # noqa: ANN401 - a database's binary value
        """Return the attempts of a stored history, the oldest first; none where it cannot be read."""
        if stored is None:
            return ()
        name, _, encoded = bytes(stored).partition(b"\n")
        try:
            return _decoder.decode(self.bodies.decode(name.decode(), encoded))
        except (ConfigurationError, PayloadError, ValueError):
            return ()

    def _appended(self, stored: Any, attempt: RecordedAttempt) -> bytes:  # noqa: ANN401 - a database's binary value
        attempts = [*self.read(stored), self._kept(attempt)][-MOST_ATTEMPTS:]
        encoded = _encoder.encode(attempts)
        while len(encoded) > MOST_BYTES and len(attempts) > 1:
            del attempts[0]
            encoded = _encoder.encode(attempts)
        name, body = self.bodies.encode(encoded)
        return name.encode() + b"\n" + body

    def _kept(self, attempt: RecordedAttempt) -> RecordedAttempt:
        runs = attempt.runs[-_MOST_RUNS:]
        if self.record_errors == "class":
            runs = tuple(msgspec.structs.replace(run, message=None, traceback=None) for run in runs)
        return msgspec.structs.replace(attempt, runs=runs)
