"""A pytest plugin: whatever a run prints, logs or pickles is searched for every signing secret that the run used.

Seen is what a test captured (its own output, that of `capsys`, of click's runner and of processes it started), each log
record and each event of structlog, each pickle, each warning, and the names of the tests. Searched for is every secret
written down in the repository, and every one that was made while the run lasted. A run that shows one fails, and says
where. A failed test is not searched: it shows its variables on purpose, and the run is red already.

``-p leaks`` turns it on by itself; the suite's conftest does.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import json
import logging
import pickle
import subprocess
import traceback
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import quote

import click.testing
import pytest
import structlog

from roovet_webhooks.signing import keys
from support import secrets_written_down

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, MutableMapping

# Which tests may show a secret, and why.
ALLOWED: Mapping[str, str] = {}

# Below this a secret could be found by chance: a row of zeros is part of many a number.
MINIMUM_LENGTH = 16
MINIMUM_VARIETY = 7
# Every form of a secret is longer than this; a text is walked through once, by windows of it.
WINDOW = 12


def forms(secret: bytes) -> set[str]:
    """Return how a text could show a secret: as it is, escaped, in hex, in base64."""
    text = secret.decode("utf-8", "replace")
    found = {
        text,
        repr(text)[1:-1],
        ascii(text)[1:-1],
        repr(secret)[2:-1],
        json.dumps(text)[1:-1],
        quote(secret),
        html.escape(text),
        secret.hex(),
        secret.hex().upper(),
    }
    for shift in range(3):
        # Inside something longer, base64 has one of three phases; what its neighbours decide is cut off.
        encoded = base64.b64encode(b"\0" * shift + secret).decode()
        core = encoded[(0, 2, 3)[shift] : len(encoded) - (0, 3, 2)[(shift + len(secret)) % 3]]
        found |= {core, core.replace("+", "-").replace("/", "_")}
    return found


class Sighting(NamedTuple):
    """Where a secret was seen."""

    place: str
    channel: str
    secret: bytes
    around: str

    def __str__(self) -> str:
        """Say so, without the secret."""
        name = hashlib.sha256(self.secret).hexdigest()[:12]
        return f"{self.place}: {self.channel}: a secret of {len(self.secret)} bytes (SHA-256 {name}…): {self.around}"


class Ledger:
    """What was seen, where first, and what nobody may see."""

    def __init__(self) -> None:
        self.place = "before the first test"
        self.secrets: set[bytes] = set()
        self.seen: dict[str, tuple[str, str]] = {}

    def hide(self, secret: object) -> None:
        """Take note of a secret."""
        encoded = secret.encode("utf-8", "surrogatepass") if isinstance(secret, str) else secret
        if isinstance(encoded, bytes):
            encoded = encoded.strip(b" \t\r\n'\"")
            if len(encoded) >= MINIMUM_LENGTH and len(set(encoded)) >= MINIMUM_VARIETY:
                self.secrets.add(encoded)

    def see(self, channel: str, shown: object) -> None:
        """Take note of something that can be seen."""
        text = shown.decode("utf-8", "surrogateescape") if isinstance(shown, bytes) else str(shown or "")
        if len(text) >= WINDOW:
            self.seen.setdefault(text, (self.place, channel))

    def sightings(self, allowed: Mapping[str, str] = ALLOWED) -> Iterator[Sighting]:
        """Yield each secret that can be seen, once for a text."""
        windows: dict[str, list[tuple[str, bytes]]] = {}
        for secret in self.secrets:
            for form in forms(secret):
                windows.setdefault(form[:WINDOW], []).append((form, secret))
        for text, (place, channel) in list(self.seen.items()):  # a thread may still write
            if any(place.startswith(prefix) for prefix in allowed):
                continue
            found: set[bytes] = set()
            for start in range(len(text) - WINDOW + 1):
                for form, secret in windows.get(text[start : start + WINDOW], ()):
                    if secret not in found and text.startswith(form, start):
                        found.add(secret)
                        yield Sighting(_without(place, secret), channel, secret, _around(text, start, len(form)))


def _without(place: str, secret: bytes) -> str:
    """Return a place without the secret, which may be in the name of a test."""
    return functools.reduce(
        lambda shown, form: shown.replace(form, "[here]"), sorted(forms(secret), key=len, reverse=True), place
    )


def _around(text: str, start: int, length: int) -> str:
    before, after = text[max(0, start - 60) : start], text[start + length : start + length + 30]
    return ascii(f"{before}[here]{after}")


class Tee:
    """A stream that is taken note of as it is read or written."""

    def __init__(self, stream: Any, see: Callable[[object], None]) -> None:  # noqa: ANN401 - a stream of text or bytes
        self._stream = stream
        self._see = see

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the stream has
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[object]:
        while line := self.readline():
            yield line

    def read(self, *size: int) -> object:
        return self._seen(self._stream.read(*size))

    def readline(self, *size: int) -> object:
        return self._seen(self._stream.readline(*size))

    def write(self, data: object) -> object:
        self._see(bytes(data) if isinstance(data, memoryview | bytearray | pickle.PickleBuffer) else data)
        return self._stream.write(data)

    def _seen(self, data: object) -> object:
        self._see(data)
        return data


class Records(logging.Handler):
    """Takes note of every log record."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger
        self.setFormatter(logging.Formatter("%(name)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Take note of a record, its traceback and its extra fields."""
        own = {name: value for name, value in vars(record).items() if name not in _USUAL}
        self._ledger.see("log", f"{self.format(record)}\n{own!r}")


_USUAL = vars(logging.LogRecord("", 0, "", 0, "", (), None)).keys() | {"message", "asctime"}


class Search:
    """The plugin: gathers while the run lasts, and searches at its end.

    Args:
        ledger: Where to.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._found: list[str] = []
        self._searched: list[str] = []
        self._patch = pytest.MonkeyPatch()
        self._records = Records(ledger)

    def pytest_sessionstart(self) -> None:
        """Begin: from here on everything is taken note of."""
        for secret in secrets_written_down():
            self._ledger.hide(secret)
        logging.getLogger().addHandler(self._records)
        self._watch_secrets()
        self._watch_structlog()
        self._watch_pickles()
        self._watch_output()

    def _watch_secrets(self) -> None:
        # Not Secret.__init__, in whose tracebacks a frame of this module would hold the secret.
        encode = keys.encode_secret

        def noting(value: object) -> bytes:
            self._ledger.hide(value)
            return encode(value)

        self._patch.setattr(keys, "encode_secret", noting)

    def _watch_structlog(self) -> None:
        configure = structlog.configure

        def noting(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
            error = event.get("exc_info")
            raised = "".join(traceback.format_exception(error)) if isinstance(error, BaseException) else ""
            self._ledger.see("structlog", f"{dict(event)!r}\n{raised}")
            return event

        def configuring(processors: Any = None, **options: Any) -> None:  # noqa: ANN401 - structlog's own
            chain = structlog.get_config()["processors"] if processors is None else processors
            configure(processors=[noting, *chain], **options)

        self._patch.setattr(structlog, "configure", configuring)

    def _watch_pickles(self) -> None:
        see = functools.partial(self._ledger.see, "pickle")
        dumps, dump, pickler = pickle.dumps, pickle.dump, pickle.Pickler

        def dumping(*arguments: Any, **options: Any) -> bytes:  # noqa: ANN401 - pickle's own
            data = dumps(*arguments, **options)
            see(data)
            return data

        def dumping_to(thing: object, file: Any, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - pickle's own
            dump(thing, Tee(file, see), *arguments, **options)

        class Pickler(pickler):  # type: ignore[valid-type, misc]  # a class only while the run lasts
            def __init__(self, file: Any, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - pickle's own
                super().__init__(Tee(file, see), *arguments, **options)

        self._patch.setattr(pickle, "dumps", dumping)
        self._patch.setattr(pickle, "dump", dumping_to)
        self._patch.setattr(pickle, "Pickler", Pickler)

    def _watch_output(self) -> None:
        ledger = self._ledger
        start, communicate = subprocess.Popen.__init__, subprocess.Popen.communicate
        read, invoke = pytest.CaptureFixture.readouterr, click.testing.CliRunner.invoke

        def starting(process: Any, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - Popen's own
            start(process, *arguments, **options)
            for name in ("stdout", "stderr"):
                stream = getattr(process, name)
                if stream is not None:
                    setattr(process, name, Tee(stream, functools.partial(ledger.see, f"{name} of a process")))

        def communicating(process: Any, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - Popen's own
            shown = communicate(process, *arguments, **options)
            for name, text in zip(("stdout", "stderr"), shown, strict=True):
                ledger.see(f"{name} of a process", text)
            return shown

        def reading(capture: Any) -> Any:  # noqa: ANN401 - the fixture's own
            shown = read(capture)
            ledger.see("output", shown.out)
            ledger.see("error output", shown.err)
            return shown

        def invoking(runner: Any, *arguments: Any, **options: Any) -> click.testing.Result:  # noqa: ANN401 - click's own
            result = invoke(runner, *arguments, **options)
            ledger.see("output of a command", result.output)
            return result

        self._patch.setattr(subprocess.Popen, "__init__", starting)
        self._patch.setattr(subprocess.Popen, "communicate", communicating)
        self._patch.setattr(pytest.CaptureFixture, "readouterr", reading)
        self._patch.setattr(click.testing.CliRunner, "invoke", invoking)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Say which test is to be named from here on."""
        self._ledger.place = nodeid
        self._ledger.see("name of a test", nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take note of what a test printed, once it is over."""
        if report.when == "teardown":
            for channel, text in report.sections:
                self._ledger.see(channel, text)
        if report.skipped:
            self._ledger.see("reason of a skip", cast("tuple[object, ...]", report.longrepr)[-1])

    def pytest_warning_recorded(self, warning_message: Any) -> None:  # noqa: ANN401 - warnings' own
        """Take note of a warning, which the summary prints."""
        self._ledger.see("warning", warning_message.message)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Search, and fail the run if something was found."""
        self._patch.undo()
        logging.getLogger().removeHandler(self._records)
        if not self._searched:  # else the workers have searched all that this process was told
            self._search()
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["leaks"] = (self._found, self._searched)
        elif self._found:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _search(self) -> None:
        ledger = self._ledger
        self._found = list(map(str, ledger.sightings()))
        size = sum(map(len, ledger.seen)) / 1e6
        self._searched = [
            f"{len(ledger.seen)} texts ({size:.1f} MB) printed, logged or pickled, {len(ledger.secrets)} secrets"
        ]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:  # noqa: ANN401 - pytest-xdist's own
        """Take over what a worker of a distributed run has found."""
        found, searched = getattr(node, "workeroutput", {}).get("leaks", ([], []))
        self._found += found
        self._searched += searched

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what was found, or how much was searched."""
        much = "; ".join(self._searched)
        if not self._found:
            terminalreporter.write_line(f"Searched for secrets: {much}: none was seen.")
            return
        terminalreporter.section("secrets that can be seen", sep="=", red=True)
        for sighting in self._found:
            terminalreporter.write_line(sighting)
        terminalreporter.write_line(f"{len(self._found)} found in {much}; see tests/support/leaks.py.")


def pytest_configure(config: pytest.Config) -> None:
    """Turn the search on."""
    config.pluginmanager.register(Search(Ledger()), "search for secrets")
