"""What holds for every test: no secret from outside, none that is shown, and properties that no clock decides."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["roovet_webhooks.testing.plugin"]

settings.register_profile("roovet", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("roovet")


def pytest_configure(config: pytest.Config) -> None:
    # Not earlier: it imports the package, and what is imported before coverage begins counts as never run.
    config.pluginmanager.import_plugin("leaks")


@pytest.fixture(autouse=True)
def _no_secret_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROOVET_WEBHOOK_SECRET", raising=False)
