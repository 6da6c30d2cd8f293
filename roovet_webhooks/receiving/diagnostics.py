"""Why a receiver refused a request: what goes to its log and its hooks, and never into an answer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple, cast

from roovet_webhooks import telemetry
from roovet_webhooks.errors import SignatureMismatch
from roovet_webhooks.signing.secrecy import forget_variables

if TYPE_CHECKING:
    from roovet_webhooks.errors import WebhookError
    from roovet_webhooks.findings import Diagnosis
    from roovet_webhooks.messages import WebhookRequest
    from roovet_webhooks.receiving.bridge import Bridge
    from roovet_webhooks.signing.keys import Keyring


class Diagnostics(NamedTuple):
    """How a receiver looks into its refusals.

    Attributes:
        endpoint: Name of the receiver.
        tolerance: Seconds of clock difference and delay that it accepts, in both directions.
        accept_truncated: Whether it takes a digest of 128 bits.
        debug: Whether it searches for the reason of a digest that does not agree.
    """

    endpoint: str
    tolerance: float
    accept_truncated: bool
    debug: bool

    async def diagnose(  # noqa: PLR0913, PLR0917 - what is known where a request is refused
        self, error: WebhookError, request: WebhookRequest, bridge: Bridge, now: float, raw: bytes, keys: Keyring | None
    ) -> Diagnosis | None:
        """Look into a refusal.

        Args:
            error: What the request was refused with.
            request: The request; its body is not touched.
            bridge: Where a search runs, so that it blocks no event loop.
            now: When the request came, Unix seconds.
            raw: Its body, as far as that was read.
            keys: The secrets it was verified under, as far as it came to that.

        Returns:
            What was found; ``None`` where the signature has nothing to do with it.
        """
        # Not at the top: a receiver that refuses nothing never loads it.
        from roovet_webhooks.explain import explain, explain_refusal  # noqa: PLC0415 - see above

        tolerance, accept_truncated = self.tolerance, self.accept_truncated
        try:
            if self.debug and keys is not None and isinstance(error, SignatureMismatch):
                search = partial(explain, raw, request.headers, keys, now=now, tolerance=tolerance)
                return cast("Diagnosis", await bridge.call(partial(search, accept_truncated=accept_truncated)))
            return explain_refusal(
                error, request.headers, raw, now=now, tolerance=tolerance, accept_truncated=accept_truncated
            )
        except Exception as fault:  # noqa: BLE001 - no explanation may change an answer
            forget_variables(fault)
            telemetry.log_event("receiver.error", fault, endpoint=self.endpoint)
            return None
