"""What an explanation costs: `explain` where nothing is found, which takes longest, and a refusal by a receiver.

Median, minimum and maximum of the rounds, in milliseconds, and how many verifications of the same body the minimum is.
Run: ``python tests/benchmarks/explanations.py``.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import statistics
import sys
import time
import warnings
from typing import TYPE_CHECKING

from deliveries import PATH, SECRET, roovet_body, roovet_headers

from roovet_webhooks import VerificationError, WebhookReceiver, WebhookRequest, verify
from roovet_webhooks.explain import explain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MIB = 1_048_576
OTHER_SECRET = "whsec_00000000000000000000000000000000"


def rows(size: int, note: str) -> bytes:
    """Return an event of many small objects, of exactly ``size`` bytes."""
    count = size // (len(note.encode()) + 90)
    content: dict[str, object] = {"event": "orders.exported", "id": "exp_1", "ts": int(time.time())}
    content["rows"] = [
        {"id": f"ord_{n:08}", "url": "https://example.org/o", "note": note, "cents": n} for n in range(count)
    ]
    content["padding"] = ""
    length = len(json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode())
    content["padding"] = "x" * (size - length)
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()


BODIES: Mapping[str, Callable[[], bytes]] = {
    "300 B": lambda: roovet_body(300),
    "16 KiB, objects": lambda: rows(16_384, "plain"),
    "64 KiB, objects": lambda: rows(65_536, "plain"),
    "1 MiB, one text": lambda: roovet_body(MIB),
    "1 MiB, objects": lambda: rows(MIB, "plain"),
    "1 MiB, objects, not ASCII": lambda: rows(MIB, "Grüße"),
    "1 MiB, no JSON": lambda: random.Random(1).randbytes(MIB),  # noqa: S311 - any bytes do
}


def write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def timed(call: Callable[[], object], rounds: int) -> list[float]:
    taken: list[float] = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return taken


def shown(label: str, taken: list[float]) -> str:
    figures = f"{statistics.median(taken) * 1e3:8.3f} ({min(taken) * 1e3:.3f} to {max(taken) * 1e3:.3f})"
    return f"{label:28} {figures:34}"


def refused(body: bytes, signature: str) -> None:
    try:
        verify(body, signature, OTHER_SECRET)
    except VerificationError:
        return
    sys.exit("a wrong secret was accepted")


def measure_search(rounds: int) -> None:
    write("explain, under a wrong secret")
    for label, make in BODIES.items():
        body = make()
        headers = roovet_headers(body)
        signature = headers["X-Roovet-Signature"]
        if explain(body, headers, OTHER_SECRET).codes != ("wrong_secret_or_altered_body",):
            sys.exit(f"{label}: something was found")
        taken, verified = [], []
        for _ in range(rounds):
            taken += timed(lambda: explain(body, headers, OTHER_SECRET), 1)  # noqa: B023 - called at once
            verified += timed(lambda: refused(body, signature), 1)  # noqa: B023 - called at once
        write(f"{shown(label, taken)} {min(taken) / min(verified):6.0f} verifications")


def measure_refusals(rounds: int) -> None:
    logging.disable(logging.WARNING)  # every refusal would be told of
    write("\nA receiver that refuses 300 B")
    body = roovet_body(300)
    good = dict(roovet_headers(body))
    for label, headers, debug in (
        ("accepted: a duplicate", good, False),
        ("malformed signature", {**good, "X-Roovet-Signature": "x"}, False),
        ("other body", roovet_headers(body + b" "), False),
        ("other body, debug=True", roovet_headers(b"{}"), True),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            receiver = WebhookReceiver(SECRET, debug=debug)
        receiver.fallback(lambda event: None)  # noqa: ARG005 - a handler that does nothing
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        request = WebhookRequest("POST", PATH, pairs, body)
        status = 200 if label.startswith("accepted") else 400
        if receiver.receive(request).status != status:
            sys.exit(f"{label}: not answered {status}")
        write(shown(label, timed(lambda: receiver.receive(request), rounds * 10)))  # noqa: B023 - called at once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    measure_search(options.rounds)
    measure_refusals(options.rounds)


if __name__ == "__main__":
    main()
