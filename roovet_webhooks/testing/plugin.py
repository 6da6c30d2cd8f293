"""The pytest plugin: the fixtures ``roovet``, ``roovet_sandbox`` and ``tampered``.

Installed with the package, as ``roovet_webhooks``. Imports next to nothing: what a fixture needs is loaded when it
is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from roovet_webhooks.testing.fixed import PATH, SECRET

try:
    import pytest
except ImportError as _missing:
    _message = (
        "roovet_webhooks.testing.plugin is for pytest, which is not installed: run pip install pytest. "
        "Without it use roovet_webhooks.testing, which needs none: with Roovet() as roovet: …"
    )
    raise ImportError(_message) from _missing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from roovet_webhooks.testing.forgeries import Forgery
    from roovet_webhooks.testing.sandbox import LocalRoovet
    from roovet_webhooks.testing.sender import Roovet, Tampered


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the configuration file."""
    parser.addini("roovet_secret", "signing secret of the roovet fixture (default: one for tests)", default=SECRET)
    parser.addini("roovet_path", f"path of your endpoint (default: {PATH})", default=PATH)


@pytest.fixture
def roovet_secret(pytestconfig: pytest.Config) -> str:
    """Signing secret of the `roovet` fixture: override it, or set roovet_secret in the configuration file."""
    return str(pytestconfig.getini("roovet_secret"))


@pytest.fixture
def roovet_path(pytestconfig: pytest.Config) -> str:
    """Path of your endpoint: override it, or set roovet_path in the configuration file."""
    return str(pytestconfig.getini("roovet_path"))


@pytest.fixture
def roovet_accepts() -> Collection[str]:
    """Names of forgeries that your endpoint takes on purpose, which `tampered` then skips: override it.

    A receiver with accept_truncated=True takes "digest-truncated".
    """
    return ()


@pytest.fixture
def roovet(roovet_secret: str, roovet_path: str) -> Iterator[Roovet]:
    """Roovet, with a fixed clock and secret: roovet.use(receiver), then roovet.post(client, "order.created", id=…).

    Receivers in use have this secret and clock, and an inbox of their own, until the test ends.
    """
    from roovet_webhooks.testing.sender import Roovet  # noqa: PLC0415 - see the module

    with Roovet(secret=roovet_secret, path=roovet_path) as sender:
        yield sender


@pytest.fixture
def roovet_sandbox(roovet: Roovet) -> Iterator[LocalRoovet]:
    """Roovet with its API, on the clock and secret of `roovet`: forward(client), checkout(), deliver(), client.

    Needs the extra ``sandbox``.
    """
    from roovet_webhooks.testing.sandbox import LocalRoovet  # noqa: PLC0415 - see the module

    with LocalRoovet(secret=roovet.secret, path=roovet.path, clock=roovet.clock) as local:
        yield local


@pytest.fixture
def tampered(roovet_forgery: Forgery, roovet: Roovet, roovet_accepts: Collection[str]) -> Tampered:
    """Each classic forgery of a delivery in turn: tampered.assert_refused(client)."""
    if roovet_forgery.name in roovet_accepts:
        pytest.skip(f"{roovet_forgery.name} is among roovet_accepts: the endpoint takes it on purpose")
    return roovet.tampered(roovet_forgery)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what asks for `tampered` with each forgery."""
    # Not as params of the fixture: those would load the forgeries, and errors and keys, whenever pytest starts.
    if "roovet_forgery" in metafunc.fixturenames:
        from roovet_webhooks.testing.forgeries import FORGERIES  # noqa: PLC0415 - see the module

        metafunc.parametrize("roovet_forgery", FORGERIES, ids=[forgery.name for forgery in FORGERIES])
