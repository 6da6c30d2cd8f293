"""Requests per second of a mounted receiver, beside an empty route and beside Stripe's endpoint.

All servers run from the beginning and take turns: each round gives every one of them the same number of
deliveries, so that what else the machine does meets all alike. Run: ``python tests/benchmarks/serve.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from candidates import CANDIDATES

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
REFERENCE = "empty"
LOGGED = {"empty-logged", "middleware", "middleware-slow-json", "route"}  # one line for each delivery
REMEMBERED = 100_000  # by the inbox in memory; beyond it every delivery would push one out


@dataclass
class Server:
    name: str
    process: subprocess.Popen[bytes]
    port: int
    log: Path
    sent: int = 0
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def cpu_seconds(self) -> float:
        """Return the CPU time of all its threads so far; NaN where the system does not tell."""
        spent = [path.read_text().split()[0] for path in Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")]
        return sum(map(int, spent)) / 1e9 if spent else float("nan")

    def count(self) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/count", timeout=10) as answer:
            return int(answer.read())

    def turn(self, count: int, options: list[str]) -> None:
        """Send it ``count`` deliveries, with these options for the load, and note the rate.

        Raises:
            SystemExit: An answer was not 200, or a delivery did not reach the handler exactly once.
        """
        burned = self.cpu_seconds()
        command = [sys.executable, str(HERE / "load.py"), str(self.port), str(count)]
        command += [*options, "--stripe"] if self.name.startswith("stripe") else options
        done = subprocess.run(  # noqa: S603 - our own script
            [*pinned_to(-1), *command], stdout=subprocess.PIPE, check=True, timeout=300
        )
        result = json.loads(done.stdout)
        self.sent += count
        if result["good"] != count or result["bad"] or self.count() != self.sent:
            seen = f"{result['good']} of {count} were 200, {self.count()} of {self.sent} were handled"
            sys.exit(f"{self.name}: {seen}; {result['bad']}")
        self.rates.append(count / result["seconds"])
        self.cpu.append((self.cpu_seconds() - burned) / count * 1e6)


def pinned_to(place: int) -> list[str]:
    """Return a command in front of a command, which keeps it on one core: the first, 0, or the last, -1."""
    if not hasattr(os, "sched_getaffinity") or len(cores := sorted(os.sched_getaffinity(0))) < 2:
        return []
    code = f"import os, sys; os.sched_setaffinity(0, [{cores[place]}]); os.execv(sys.argv[1], sys.argv[1:])"
    return [sys.executable, "-c", code]


@contextlib.contextmanager
def served(name: str, folder: Path, options: list[str]) -> Iterator[Server]:
    log = folder / f"{name}.log"
    command = [*pinned_to(0), sys.executable, str(HERE / "candidates.py"), name, str(log), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: S603 - our own script
    try:
        assert process.stdout is not None
        yield Server(name, process, int(process.stdout.readline()), log)
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=15)


def spread(values: list[float], form: str = ".3f") -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def report(servers: list[Server]) -> Iterator[str]:
    by_name = {server.name: server for server in servers}
    rounds = len(servers[0].rates)
    yield f"Python {platform.python_version()}, {os.cpu_count()} CPUs; median (min to max) over {rounds} rounds"
    for server in servers:
        cost = f"{statistics.median(server.cpu):6.1f} us of CPU each"
        yield f"{server.name:20} {spread(server.rates, ',.0f'):>28} requests/s  {cost}"
    pairs = [(server.name, REFERENCE) for server in servers if server.name != REFERENCE]
    pairs += [("middleware", "empty-logged"), ("route", "empty-logged")]
    pairs += [(ours, theirs) for ours in ("middleware", "route") for theirs in by_name if theirs.startswith("stripe")]
    for one, other in pairs:
        if one in by_name and other in by_name:
            a, b = by_name[one], by_name[other]
            rates = [x / y for x, y in zip(a.rates, b.rates, strict=True)]
            cpu = [y / x for x, y in zip(a.cpu, b.cpu, strict=True)]
            best = f"of the best rounds {max(a.rates) / max(b.rates):.3f}"
            yield f"{one:>20} : {other:16} rate {spread(rates)}, {best}   by CPU time {spread(cpu)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(CANDIDATES), help=f"of {', '.join(CANDIDATES)}")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--count", type=int, default=10_000, help="deliveries of a turn")
    parser.add_argument("--warm-up", type=int, default=1_000)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--size", type=int, default=300, help="bytes of a body")
    parser.add_argument("--may-sleep", action="store_true", help="let the load wait for answers, as most loads do")
    parser.add_argument("--plain", action="store_true", help="h11 and asyncio, as uvicorn without its extras")
    options = parser.parse_args()
    load = [f"--connections={options.connections}", f"--size={options.size}"]
    load += ["--may-sleep"] if options.may_sleep else []
    if options.rounds * options.count + options.warm_up > REMEMBERED:
        parser.error(f"more than {REMEMBERED} deliveries would measure how the inbox in memory forgets")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(served(name, Path(folder), ["--plain"] if options.plain else []))
            for name in options.names
        ]
        for server in servers:
            server.turn(options.warm_up, load)
            server.rates.clear()
            server.cpu.clear()
        for _ in range(options.rounds):
            for server in servers:
                server.turn(options.count, load)
        for server in servers:
            lines = server.log.read_bytes().count(b'"delivery.handled"')
            if server.name in LOGGED and lines != server.sent:
                sys.exit(f"{server.name}: {lines} of {server.sent} deliveries were logged")
        sys.stdout.writelines(f"{line}\n" for line in report(servers))


if __name__ == "__main__":
    main()
