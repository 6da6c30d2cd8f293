"""Chaos on demand: what goes wrong between Roovet and you, drawn by a seed so that a failure repeats.

A fault of a webhook is drawn for each attempt from the seed, the message and the number of the attempt, so that the
same events meet the same faults whatever the machine's timing is. Faults of the API are drawn for each request in turn.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Annotated

import msgspec

from roovet_webhooks.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=3600)]


class Chaos(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How often what goes wrong: probabilities from 0 to 1 of each fault, and the seed that they are drawn by.

    Attributes:
        seed: Equal seeds draw equal faults.
        duplicate: The endpoint gets the same bytes twice.
        delay: It waits up to ``delay_seconds``, so that others overtake it.
        burst: It waits until the next ``delay_seconds`` are over, and arrives with all others that wait.
        stale: It is signed as of ten minutes ago.
        future: It is signed as of ten minutes from now.
        altered: A digit of the body is changed after it was signed.
        wrong_secret: It is signed under another secret.
        truncated: The digest is cut to its first 32 digits, as in the vendor's sample.
        slow: The body is sent in small pieces over ``delay_seconds``.
        cut: The connection is closed before the end of the body.
        lost_answer: It arrives, and its answer is not seen: it counts as failed and is sent again.
        api_rate_limited: The API answers 429 with a ``Retry-After`` of one second.
        api_error: The API answers 500 and does nothing.
        api_lost_answer: The API does what was asked, and answers 500.
        api_timeout: The API waits ``timeout_seconds``, then answers 500 and does nothing.
        api_slow: The API waits up to ``delay_seconds`` before it acts.
        delay_seconds: The longest of the waits.
        timeout_seconds: How long ``api_timeout`` waits.
        spoils: At most so many attempts of one message are spoiled, so that in the end each can arrive.
    """

    seed: int = 0
    duplicate: Probability = 0
    delay: Probability = 0
    burst: Probability = 0
    stale: Probability = 0
    future: Probability = 0
    altered: Probability = 0
    wrong_secret: Probability = 0
    truncated: Probability = 0
    slow: Probability = 0
    cut: Probability = 0
    lost_answer: Probability = 0
    api_rate_limited: Probability = 0
    api_error: Probability = 0
    api_lost_answer: Probability = 0
    api_timeout: Probability = 0
    api_slow: Probability = 0
    delay_seconds: Seconds = 2.0
    timeout_seconds: Seconds = 30.0
    spoils: Annotated[int, msgspec.Meta(ge=0)] = 3

    def webhook_fault(self, message: int, attempt: int) -> str | None:
        """Return the fault of one attempt to deliver a message, if any.

        Args:
            message: The message's number.
            attempt: The attempt's number, from 1.
        """
        # In the end each message can arrive: later attempts are delayed or repeated, and not spoiled.
        names = WEBHOOK_FAULTS if attempt <= self.spoils else WEBHOOK_NUISANCES
        return self._pick(names, self._draw(f"webhook {message} {attempt}"))

    def api_fault(self, request: int) -> str | None:
        """Return the fault of one request to the API, if any.

        Args:
            request: How many came before it.
        """
        return self._pick(API_FAULTS, self._draw(f"api {request}"))

    def wait(self, message: int, attempt: int) -> float:
        """Return for how many seconds an attempt waits, where its fault is to wait."""
        return self.delay_seconds * self._draw(f"wait {message} {attempt}").random()

    def _draw(self, what: str) -> random.Random:
        return random.Random(f"{self.seed} {what}")  # noqa: S311 - it must repeat, not surprise

    def _pick(self, names: tuple[str, ...], draw: random.Random) -> str | None:
        # Each is drawn by itself; of several only one befalls it, any of them.
        drawn = [name for name in names if draw.random() < getattr(self, name)]
        return draw.choice(drawn) if drawn else None


WEBHOOK_NUISANCES = ("duplicate", "delay", "burst", "slow")
WEBHOOK_FAULTS = (
    "stale",
    "future",
    "altered",
    "wrong_secret",
    "truncated",
    "cut",
    "lost_answer",
    *WEBHOOK_NUISANCES,
)
API_FAULTS = ("api_rate_limited", "api_error", "api_lost_answer", "api_timeout", "api_slow")
FAULTS = (*WEBHOOK_FAULTS, *API_FAULTS)

CALM = Chaos()


def make_chaos(settings: Mapping[str, object]) -> Chaos:
    """Return chaos from settings, such as those of a command line or a request.

    Args:
        settings: Fields of `Chaos`; ``all`` is the probability of every fault that is not named.

    Raises:
        ConfigurationError: A name is unknown, or a value is no probability.
    """
    fields = dict(settings)
    if (everything := fields.pop("all", None)) is not None:
        fields = {**dict.fromkeys(FAULTS, everything), **fields}
    try:
        return msgspec.convert(fields, Chaos, strict=False)
    except msgspec.ValidationError as error:
        message = f"no such chaos: {error}; the faults are {', '.join(FAULTS)}, each from 0 to 1, or all"
        raise ConfigurationError(message) from None
