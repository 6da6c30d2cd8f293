"""Sends what happens in the sandbox to the registered endpoints, as Roovet does, and tries again.

What an attempt sends is decided without I/O (`transmission_of`); a `Sender` sends it over HTTP. The vendor promises no
retries, so these are assumed, and can be switched off.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import anyio
import httpx2

from roovet_webhooks._version import __version__
from roovet_webhooks.sandbox.outbox import Result
from roovet_webhooks.signing.verifier import Signer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from roovet_webhooks.sandbox.chaos import Chaos
    from roovet_webhooks.sandbox.core import Sandbox
    from roovet_webhooks.sandbox.outbox import DueMessage

TIMEOUT = 10.0  # seconds for each step of a request: to connect, to write, to be answered
CONCURRENCY = 16

_SKEW = 600
_PIECES = 8
_WRONG_SECRET = "whsec_of_somebody_else_000000000000"  # noqa: S105 - wrong on purpose
_TRUNCATED_DIGITS = 32
_BUSY, _IDLE = 0.001, 0.05  # seconds until the outbox is looked at again


class Transmission(NamedTuple):
    """What one attempt sends.

    Attributes:
        headers: The headers.
        body: The body.
        copies: How often it is sent.
        wait: Seconds before it is sent.
        pieces: Seconds over which the body is sent in pieces; ``None`` to send it whole.
        cut: Whether the connection is closed before the end of the body.
    """

    headers: dict[str, str]
    body: bytes
    copies: int = 1
    wait: float = 0.0
    pieces: float | None = None
    cut: bool = False


def signed_headers(body: bytes, secrets: tuple[str, ...] | list[str], timestamp: int) -> dict[str, str]:
    """Return the headers of a delivery, signed with each of the secrets: two of them during a rotation."""
    headers = Signer(secrets[0]).headers(body, timestamp=timestamp)
    for secret in secrets[1:]:
        digest = Signer(secret).sign(body, timestamp=timestamp).partition(",")[2]
        headers["X-Roovet-Signature"] += f",{digest}"
    headers["User-Agent"] = f"Roovet-Sandbox/{__version__}"
    return headers


def transmission_of(due: DueMessage, fault: str | None, chaos: Chaos, now: float) -> Transmission:
    """Return what an attempt sends when a fault befalls it.

    Args:
        due: The message.
        fault: A fault of webhooks, as `Chaos` names it.
        chaos: Where its waits come from.
        now: Unix seconds, to be signed.
    """
    secrets = [_WRONG_SECRET] if fault == "wrong_secret" else list(due.secrets)
    timestamp = int(now) + {"stale": -_SKEW, "future": _SKEW}.get(fault or "", 0)
    headers = signed_headers(due.body, secrets, timestamp)
    body = due.body
    if fault == "altered":
        place = max(place for place, byte in enumerate(body) if byte in b"0123456789")
        body = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
    if fault == "truncated":
        timestamp_item, digest = headers["X-Roovet-Signature"].split(",")[:2]
        headers["X-Roovet-Signature"] = f"{timestamp_item},{digest[: len('v1=') + _TRUNCATED_DIGITS]}"
    wait = 0.0
    if fault == "delay":
        wait = chaos.wait(due.id, due.attempt)
    elif fault == "burst":
        # All that wait go when the same span of time is over.
        wait = chaos.delay_seconds - now % chaos.delay_seconds if chaos.delay_seconds else 0.0
    return Transmission(
        headers,
        body,
        copies=2 if fault == "duplicate" else 1,
        wait=wait,
        pieces=chaos.delay_seconds if fault == "slow" else None,
        cut=fault == "cut",
    )


class _ConnectionCut(Exception):
    """The body ends here."""


async def _body_of(transmission: Transmission) -> AsyncIterator[bytes]:
    body = transmission.body
    if transmission.cut:
        yield body[: len(body) // 2]
        raise _ConnectionCut
    size = max(1, -(-len(body) // _PIECES))
    for start in range(0, len(body), size):
        await anyio.sleep((transmission.pieces or 0) / _PIECES)
        yield body[start : start + size]


class Sender:
    """Sends messages as they fall due, until it is cancelled.

    A message is taken off the outbox only after its answer has been written down: what was being sent when the
    sandbox was killed is sent again.

    Args:
        sandbox: The sandbox.
        timeout: Seconds for each step of a request.
        transport: How HTTP is spoken; over the network when ``None``.
    """

    def __init__(
        self, sandbox: Sandbox, *, timeout: float = TIMEOUT, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self._sandbox = sandbox
        self._timeout = timeout
        self._transport = transport
        self._under_way: set[int] = set()
        self._seen = -1
        self._next_due: float = 0.0

    async def run(self) -> None:
        """Send what is due, for ever."""
        limits = httpx2.Limits(max_connections=CONCURRENCY)
        async with (
            # No redirect is followed, as no sender of webhooks follows one; no proxy of the environment is used.
            httpx2.AsyncClient(
                timeout=self._timeout, transport=self._transport, limits=limits, trust_env=False
            ) as client,
            anyio.create_task_group() as attempts,
        ):
            while True:
                due = await self._take(CONCURRENCY - len(self._under_way))
                for message in due:
                    attempts.start_soon(self._attempt, client, message)
                await anyio.sleep(_BUSY if due else _IDLE)

    async def _take(self, room: int) -> list[DueMessage]:
        commits = self._sandbox.database.commits
        unchanged = commits == self._seen and self._sandbox.clock.milliseconds() < self._next_due
        if room <= 0 or unchanged:
            return []
        due = await anyio.to_thread.run_sync(partial(self._sandbox.due, limit=room, without=self._under_way))
        self._under_way.update(message.id for message in due)
        if not due:
            self._next_due = await anyio.to_thread.run_sync(self._sandbox.next_due)
            self._seen = commits
        return due

    async def _attempt(self, client: httpx2.AsyncClient, due: DueMessage) -> None:
        try:
            result = await self.send(client, due)
            await anyio.to_thread.run_sync(self._sandbox.settle, due, result)
        finally:
            self._under_way.discard(due.id)

    async def send(self, client: httpx2.AsyncClient, due: DueMessage) -> Result:
        """Make one attempt, and return what came of it."""
        fault = self._sandbox.chaos.webhook_fault(due.id, due.attempt)
        transmission = transmission_of(due, fault, self._sandbox.chaos, self._sandbox.clock())
        await anyio.sleep(transmission.wait)
        if transmission.wait:  # signed when it leaves, so that a wait alone makes nothing stale
            transmission = transmission_of(due, fault, self._sandbox.chaos, self._sandbox.clock())
        started = time.monotonic()
        status, error = None, None
        try:
            for _ in range(transmission.copies):
                status = await self._post(client, due.url, transmission)
        except _ConnectionCut:
            error = "the connection was cut"
        except httpx2.TimeoutException:
            error = f"no answer within {self._timeout:g} s"
        except (httpx2.HTTPError, httpx2.InvalidURL) as failure:
            error = f"{type(failure).__name__}: {failure}"
        if fault == "lost_answer" and error is None:
            error = "the answer was lost"
        return Result(status, int((time.monotonic() - started) * 1000), fault, error)

    async def _post(self, client: httpx2.AsyncClient, url: str, transmission: Transmission) -> int:
        headers = {**transmission.headers, "Content-Length": str(len(transmission.body))}
        whole = transmission.pieces is None and not transmission.cut
        content = transmission.body if whole else _body_of(transmission)
        response = await client.post(url, content=content, headers=headers)
        return response.status_code
