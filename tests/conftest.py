"""What holds for every test: no secret from outside, none shown, nothing left behind, and no clock that decides."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis.core
import pytest
import structlog
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

if sys.dont_write_bytecode:
    # Tests start hundreds of interpreters, and without bytecode each compiles what it imports: 3.0 s in place of 0.9 s
    # for Django, SQLAlchemy, Flask and FastAPI. Nothing is written beside the sources.
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = str(
        Path(__file__).parents[1] / ".pytest_cache" / "bytecode"
    )
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False

pytest_plugins = ["roovet_webhooks.testing.plugin", "support.left_out"]

# A property is tried with few examples in an ordinary run, and with many in a long one.
settings.register_profile("short", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", settings.get_profile("short"), max_examples=100, print_blob=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests marked long too, as .ci/run does")


@pytest.hookimpl(trylast=True)  # pytest-randomly and Hypothesis first
def pytest_configure(config: pytest.Config) -> None:
    # Not earlier: it imports the package, and what is imported before coverage begins counts as never run.
    config.pluginmanager.import_plugin("support.leaks")
    if not config.getoption("--hypothesis-profile"):
        settings.load_profile("long" if config.getoption("--long") else "short")
    if config.getoption("--hypothesis-seed") is None and config.pluginmanager.hasplugin("randomly"):
        # One seed repeats a run: the order of its tests and the examples of its properties.
        hypothesis.core.global_force_seed = config.getoption("randomly_seed")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:  # noqa: ANN401 - pytest-xdist's own
    """Let a worker keep neighbouring tests, which share servers and databases, until another has nothing left to do."""
    from xdist.scheduler import WorkStealingScheduling  # noqa: PLC0415 - only a distributed run has it

    # With -n alone, pytest-xdist takes "load", which scatters neighbours.
    return WorkStealingScheduling(config, log) if config.getoption("dist") == "load" else None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("long") and not item.config.getoption("--long"):
        pytest.skip("long; --long runs them")


@pytest.fixture(autouse=True)
def _no_secret_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROOVET_WEBHOOK_SECRET", raising=False)


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Put back what a test has changed for the whole process, so that none depends on those before it."""
    from roovet_webhooks.receiving import receiver  # noqa: PLC0415 - once pytest-cov measures

    restorers = [
        _environment(),
        _folder(),
        _signals(),
        *(_logger(name) for name in (None, "roovet_webhooks")),
        _modules(),
    ]
    yield
    for restore in restorers:
        restore()
    # A receiver that a test leaves to the collector is none of the next one's business.
    receiver._ready_receivers.clear()
    if (django := sys.modules.get("django.conf")) is not None and django.settings.configured:
        from django.utils import translation  # noqa: PLC0415 - only where a test uses Django

        translation.deactivate()  # what Django's middleware has activated in this thread
    if structlog.is_configured():
        structlog.reset_defaults()


def _environment() -> Callable[[], None]:
    before = dict(os.environ)

    def restore() -> None:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        for name, value in before.items():
            if os.environ.get(name) != value and name != "PYTEST_CURRENT_TEST":
                os.environ[name] = value

    return restore


def _folder() -> Callable[[], None]:
    before, path = os.getcwd(), sys.path[:]  # noqa: PTH109 - asked for each test

    def restore() -> None:
        os.chdir(before)
        sys.path[:] = path

    return restore


def _signals() -> Callable[[], None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)

    return restore


def _logger(name: str | None) -> Callable[[], None]:
    logger = logging.getLogger(name)
    handlers, filters = logger.handlers[:], logger.filters[:]
    level, propagate, disabled, below = logger.level, logger.propagate, logger.disabled, logging.root.manager.disable

    def restore() -> None:
        # In place: pytest takes its own handlers out again, which are there before a fixture of a test and after it.
        logger.handlers[:] = handlers
        logger.filters[:] = filters
        logger.propagate, logger.disabled = propagate, disabled
        if logger.level != level:
            logger.setLevel(level)
        if logging.root.manager.disable != below:
            logging.disable(below)

    return restore


def _modules() -> Callable[[], None]:
    # A test that imports a module of the package anew leaves the new one in the package above it too.
    before: list[tuple[str, ModuleType, dict[str, Any], str, object]] = []
    for name in [name for name in sys.modules if name.startswith("roovet_webhooks.")]:
        package, _, own = name.rpartition(".")
        if package in sys.modules:
            namespace = vars(sys.modules[package])
            before.append((name, sys.modules[name], namespace, own, namespace.get(own)))

    def restore() -> None:
        for name, module, namespace, own, value in before:
            sys.modules[name] = module
            if namespace.get(own) is not value:
                namespace[own] = value

    return restore
