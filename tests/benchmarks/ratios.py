"""How many times as fast: `verify` beside others, the import, and the memory a body over the cap takes.

Whatever is compared takes turns in one run, A B A B, so that what else the machine does meets all alike.
Run: ``python tests/benchmarks/ratios.py``.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import statistics
import subprocess
import sys
import time
import tracemalloc
from typing import TYPE_CHECKING

from contenders import SIZES, contenders
from deliveries import PATH, SECRET, roovet_body, roovet_headers

from roovet_webhooks import WebhookReceiver, WebhookRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

OURS = ("Verifier.verify", "verify")
MIB = 1_048_576
TURN = 0.002  # seconds; long enough for the clock, short enough that noise falls on neighbours alike

IMPORTS = {
    "from roovet_webhooks import verify": "roovet_webhooks",
    "import roovet_webhooks": "roovet_webhooks",
    "import stripe": "stripe",
}


def write(line: str = "") -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def in_turn(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of a call for each round, every call having its turn in each."""
    repeats: dict[str, int] = {}
    for name, call in calls.items():
        call()
        began = time.perf_counter()
        call()
        repeats[name] = max(1, int(TURN / (time.perf_counter() - began)))
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            count = range(repeats[name])
            began = time.perf_counter()
            for _ in count:
                call()
            taken[name].append((time.perf_counter() - began) / len(count))
    return taken


def ratios(one: list[float], other: list[float]) -> str:
    """Say how many times as long the other takes: the ratio of the minima, and the median of the rounds' ratios."""
    median = statistics.median(b / a for a, b in zip(one, other, strict=True))
    return f"{min(other) / min(one):6.2f} {median:6.2f}"


def compare_verify(rounds: int) -> None:
    write("How many times as long as ours the others take: ratio of the minima, median of the rounds' ratios")
    for label, size in SIZES.items():
        taken = in_turn(contenders(size), rounds)
        for ours in OURS:
            others = [name for name in taken if name not in {*OURS, "sha256"}]
            beside = "  ".join(f"{name} {ratios(taken[ours], taken[name])}" for name in others)
            bare = ratios(taken["sha256"], taken[ours])
            write(f"{label:>7} {ours:16} {min(taken[ours]) * 1e6:9.2f} us  {beside}  | ours : sha256 {bare}")


def compare_imports(rounds: int) -> None:
    code = "import time; b = time.perf_counter(); {}; print(time.perf_counter() - b)"
    inside: dict[str, list[float]] = {statement: [] for statement in IMPORTS}
    whole: dict[str, list[float]] = {statement: [] for statement in IMPORTS}
    for _ in range(rounds):
        for statement in IMPORTS:
            began = time.perf_counter()
            inside[statement].append(float(_run(code.format(statement))))
            whole[statement].append(time.perf_counter() - began)
    write("\nImport, by the clock of the process itself; whole process; what it brought beside the standard library")
    for statement in IMPORTS:
        brought = _run(
            f"import sys; before = set(sys.modules); {statement}; new = {{m.partition('.')[0] for m in sys.modules}}; "
            "print(*sorted(new - {m.partition('.')[0] for m in before} - sys.stdlib_module_names))"
        )
        times = f"{min(inside[statement]) * 1e3:7.1f} ms {min(whole[statement]) * 1e3:7.1f} ms"
        write(f"{statement:36} {times}  {brought.strip()}")
    ours, theirs = "from roovet_webhooks import verify", "import stripe"
    write(f"ours : stripe, import {ratios(inside[ours], inside[theirs])}, process {ratios(whole[ours], whole[theirs])}")


def _run(code: str) -> str:
    return subprocess.run(  # noqa: S603 - our own code, under our own interpreter
        [sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, timeout=60, text=True
    ).stdout


def measure_memory() -> None:
    receiver = WebhookReceiver(SECRET, max_body_bytes=MIB)
    receiver.fallback(lambda event: None)  # noqa: ARG005 - a handler that does nothing
    whole = roovet_body(MIB)

    def body_of(size: int, chunk: int) -> Iterator[bytes]:
        for start in range(0, size, chunk):
            # A new object each time, as a server makes them.
            yield bytes(chunk) if size > MIB else whole[start : start + chunk]

    logging.disable(logging.WARNING)  # every refusal would be told of
    write("\nPeak memory of a receiver whose cap is 1 MiB, in MiB")
    for label, size, chunk, status in (
        ("warm-up", MIB, 65_536, 200),
        ("1 MiB in chunks of 64 KiB, accepted", MIB, 65_536, 200),
        ("64 MiB in chunks of 64 KiB", 64 * MIB, 65_536, 413),
        ("64 MiB in chunks of 1 KiB", 64 * MIB, 1024, 413),
        ("64 MiB in chunks of 16 bytes", 64 * MIB, 16, 413),
    ):
        headers = [(name.encode(), value.encode()) for name, value in roovet_headers(whole).items()]
        request = WebhookRequest("POST", PATH, headers, body_of(size, chunk))
        tracemalloc.start()
        response = receiver.receive(request)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        if response.status != status:
            sys.exit(f"{label}: answered {response.status}, not {status}")
        if label != "warm-up":
            write(f"{label:36} {peak / MIB:5.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=150)
    parser.add_argument("--imports", type=int, default=15, help="rounds of imports")
    options = parser.parse_args()
    write(f"Python {platform.python_version()}, {os.cpu_count()} CPUs")
    compare_verify(options.rounds)
    compare_imports(options.imports)
    measure_memory()


if __name__ == "__main__":
    main()
