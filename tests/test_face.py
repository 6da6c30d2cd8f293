"""The public face: every promised name, loaded at first use, and nothing else brought in."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import roovet_webhooks
from roovet_webhooks import errors

PROMISED = {
    *("verify", "sign", "construct_event"),
    *("WebhookReceiver", "Router", "Event", "OrderCreated", "Delivery"),
    *("Secret", "Keyring", "Tenant", "Verifier", "Verified", "Signer"),
    *("WebhookRequest", "WebhookResponse", "error_response", "MemoryInbox"),
    *("RetryPolicy", "RetryLater", "DropDelivery"),
    *(name for name, value in vars(errors).items() if isinstance(value, type)),
}

HEAVY = {
    "anyio",
    "asyncio",
    "django",
    "fastapi",
    "flask",
    "msgspec",
    "opentelemetry",
    "pydantic",
    "sqlalchemy",
    "starlette",
    "structlog",
}


@pytest.mark.parametrize("name", sorted(PROMISED))
def test_a_name_can_be_imported_and_says_where_it_lives(name: str) -> None:
    value = getattr(roovet_webhooks, name)
    assert value.__name__ == name
    assert value.__module__.startswith("roovet_webhooks.")
    assert getattr(roovet_webhooks, name) is value


def test_dir_lists_them() -> None:
    listed = dir(roovet_webhooks)
    assert set(listed) >= PROMISED | {"__version__"}
    assert listed == sorted(set(listed))


def test_a_star_brings_the_face_and_nothing_else() -> None:
    namespace: dict[str, object] = {}
    exec("from roovet_webhooks import *", namespace)  # noqa: S102 - the statement is what is tested
    assert namespace.keys() - {"__builtins__"} == PROMISED


def test_type_checkers_see_the_same_names() -> None:
    # The stub of the face is its TYPE_CHECKING block: what it re-exports is what can be imported.
    tree = ast.parse(Path(roovet_webhooks.__file__).read_text("utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    exported = {alias.asname for node in imports for alias in node.names if alias.asname is not None}
    assert exported == PROMISED | {"__version__"}


@pytest.mark.parametrize("name", ["Webhook", "verfiy", "_private", "__wrapped__", "Handler"])
def test_an_unknown_name_is_an_attribute_error(name: str) -> None:
    with pytest.raises(AttributeError, match=f"module 'roovet_webhooks' has no attribute '{name}'"):
        getattr(roovet_webhooks, name)
    assert not hasattr(roovet_webhooks, name)


def test_an_unknown_name_is_an_import_error() -> None:
    with pytest.raises(ImportError, match="cannot import name 'verfiy'"):
        exec("from roovet_webhooks import verfiy")  # noqa: S102 - the statement is what is tested


def modules_after(statement: str) -> set[str]:
    """Return the top-level packages that a statement loads in an interpreter of its own."""
    code = (
        f"{statement}\nimport json, sys\nprint(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60, text=True)  # noqa: S603 - our own interpreter
    return set(json.loads(done.stdout))


def test_verify_alone_loads_no_framework_and_no_logger() -> None:
    loaded = modules_after("from roovet_webhooks import verify")
    assert "roovet_webhooks" in loaded
    assert not loaded & HEAVY


def test_verifying_loads_nothing_more() -> None:
    loaded = modules_after(
        "from roovet_webhooks import sign, verify, VerificationError\n"
        "verify(b'{}', sign(b'{}', 'whsec_5f2b8c1e9a7d4036b1c2d3e4'), 'whsec_5f2b8c1e9a7d4036b1c2d3e4')"
    )
    assert not loaded & HEAVY


def test_a_receiver_loads_no_web_framework() -> None:
    loaded = modules_after(
        "from roovet_webhooks import WebhookReceiver; WebhookReceiver('whsec_5f2b8c1e9a7d4036b1c2d3e4')"
    )
    assert not loaded & (HEAVY - {"asyncio", "msgspec", "structlog"})


def test_the_package_alone_loads_next_to_nothing() -> None:
    loaded = modules_after("import roovet_webhooks")
    assert not loaded & (HEAVY | {"cryptography"})
