"""The plugin as its users meet it: by its entry point alone, in a pytest of their own, without a framework."""

from __future__ import annotations

import ast
import os
import re
import runpy
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import roovet_webhooks.testing
from roovet_webhooks.testing import FORGERIES, NOW, SECRET, Forgery, Roovet, Tampered, plugin

PROJECT = {
    "shop.py": """
        from roovet_webhooks import Event, WebhookReceiver

        receiver = WebhookReceiver()
        sent = []

        @receiver.on("order.created")
        def fulfil(event: Event) -> None:
            sent.append(event.id)
    """,
    "test_shop.py": """
        import pytest
        from shop import receiver, sent

        @pytest.fixture(autouse=True)
        def record(roovet):
            return roovet.use(receiver)

        def test_an_order_is_sent(roovet, record):
            assert roovet.post(receiver, "order.created", id="ord_1").status == 200
            record.assert_handled("order.created", id="ord_1")
            assert sent == ["ord_1"]

        def test_forgeries_are_refused(tampered):
            tampered.assert_refused(receiver)

        def test_it_is_configured(roovet):
            assert (roovet.path, roovet.secret) == ("/hooks", "whsec_of_the_project_5f2b8c1e9a7d")
    """,
    "test_own.py": """
        import pytest

        @pytest.fixture
        def tampered():
            return "of the project's own"

        def test_a_fixture_of_the_same_name_wins_and_runs_once(tampered):
            assert tampered == "of the project's own"
    """,
    "test_accepting.py": """
        import pytest
        from shop import receiver

        @pytest.fixture
        def roovet_accepts():
            return {"stale"}

        def test_forgeries_are_refused(roovet, tampered):
            roovet.use(receiver)
            tampered.assert_refused(receiver)
    """,
    "pytest.ini": """
        [pytest]
        addopts = -ra -q
        filterwarnings = error
        roovet_path = /hooks
        roovet_secret = whsec_of_the_project_5f2b8c1e9a7d
    """,
}


def run(directory: Path, *arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    """Run pytest, or a piece of code, in a process that knows nothing of this suite."""
    command = [sys.executable, *(["-c", code] if code else ["-m", "pytest", "-p", "no:cacheprovider", *arguments])]
    # What this suite sets for its own pytest is none of the project's business.
    ours = ("PYTEST", "ROOVET", "COV")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return subprocess.run(  # noqa: S603 - our own interpreter
        command,
        cwd=directory,
        env={**environment, "COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in PROJECT.items():
        lines = text.strip("\n").splitlines()
        (tmp_path / name).write_text("\n".join(line.removeprefix(" " * 8) for line in lines) + "\n", "utf-8")
    return tmp_path


def test_a_project_has_the_fixtures_by_the_entry_point_alone(project: Path) -> None:
    ran = run(project)
    assert ran.returncode == 0, ran.stdout
    each = len(FORGERIES)
    assert f"\n{2 + each + 1 + each - 1} passed, 1 skipped" in f"\n{ran.stdout}", ran.stdout
    assert "stale is among roovet_accepts: the endpoint takes it on purpose" in ran.stdout


def test_a_failure_names_the_forgery_and_its_place(project: Path) -> None:
    (project / "test_hole.py").write_text(
        "def test_hole(tampered):\n    tampered.assert_refused(lambda request: 200)\n"
    )
    ran = run(project, "test_hole.py", "-k", "body-altered or no-signature")
    assert f"2 failed, {len(FORGERIES) - 2} deselected" in ran.stdout
    assert (
        "FAILED test_hole.py::test_hole[no-signature] - AssertionError: the forgery 'no-signature' got in" in ran.stdout
    )
    assert "E       One byte of the body was changed after it was signed." in ran.stdout
    # The failure stands where the user's line is, and not within the package.
    assert set(re.findall(r"^(\S+\.py):\d+: AssertionError$", ran.stdout, re.MULTILINE)) == {"test_hole.py"}


def test_without_the_plugin_the_fixtures_are_not_there(project: Path) -> None:
    ran = run(project, "-p", "no:roovet_webhooks", "-W", "ignore", "test_own.py", "test_accepting.py")
    assert "fixture 'roovet' not found" in ran.stdout
    assert "1 passed, 1 error" in ran.stdout


def test_the_entry_point_is_the_module() -> None:
    (entry,) = entry_points(group="pytest11", name="roovet_webhooks")
    assert entry.value == "roovet_webhooks.testing.plugin"


@pytest.mark.long
def test_it_tells_of_itself(project: Path) -> None:
    shown = run(project, "--fixtures").stdout
    ours = shown.partition("fixtures defined from roovet_webhooks.testing.plugin")[2].partition("\n---")[0]
    names = re.findall(r"^(\w+) -- ", ours, re.MULTILINE)
    assert names == ["roovet_secret", "roovet_path", "roovet_accepts", "roovet", "roovet_sandbox", "tampered"]
    assert "no docstring" not in ours
    helped = run(project, "--help").stdout
    assert "roovet_secret (string)" in helped
    assert "roovet_path (string): path of your endpoint" in helped


def test_pytest_starts_without_loading_what_nobody_uses(tmp_path: Path) -> None:
    ran = run(
        tmp_path,
        code=(
            "import sys, pytest\n"
            "before = set(sys.modules)\n"
            "import roovet_webhooks.testing.plugin\n"
            "print(*sorted(set(sys.modules) - before))"
        ),
    )
    assert ran.stdout.split() == [
        "roovet_webhooks",
        "roovet_webhooks._version",
        "roovet_webhooks.testing",
        "roovet_webhooks.testing.fixed",
        "roovet_webhooks.testing.plugin",
    ], ran.stderr


BLOCK = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
"""
FRAMEWORKS = {
    "starlette",
    "fastapi",
    "django",
    "flask",
    "werkzeug",
    "structlog",
    "pytest",
    "httpx",
    "httpx2",
    "pydantic",
}


def test_it_works_without_any_framework(tmp_path: Path) -> None:
    ran = run(
        tmp_path,
        code=BLOCK.format(blocked=FRAMEWORKS)
        + """
from dataclasses import dataclass
from roovet_webhooks import Event, VerificationError, construct_event, verify
from roovet_webhooks.testing import FORGERIES, NOW, SECRET, Clock, Record, Roovet, recording, signed_request

class Settled(Event, event="transfer.settled"):
    amount_cents: int | None = None

@dataclass
class Refund:
    id: str

for request in (
    signed_request("order.created", id="ord_1", amount_cents=1250),
    signed_request(Settled, id="trf_1"),
    signed_request(Settled("transfer.settled", "trf_2", 5)),
    signed_request(Refund("ref_1"), event="order.refunded"),
    signed_request({"event": "e", "id": "i", "ts": 5}),
    signed_request(b'{"event":"e","id":"i","ts":5}'),
    Roovet().request("order.created"),
):
    construct_event(request.body, request.headers, SECRET, now=NOW)
    assert request.webhook_request().body == request.starlette()["content"] == request.django()["data"]
refused = 0
for forgery in FORGERIES:
    forged = forgery.request("order.created")
    try:
        verify(forged.body, forged.headers.get("X-Roovet-Signature"), SECRET, now=NOW,
               timestamp_header=forged.headers["X-Roovet-Timestamp"])
    except VerificationError as error:
        refused += 1
print(refused)
""",
    )
    assert (ran.returncode, ran.stdout.strip()) == (0, str(len(FORGERIES))), ran.stderr


def test_the_plugin_without_pytest_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytest", None)
    with pytest.raises(ImportError, match=r"is for pytest, which is not installed.*: with Roovet\(\) as roovet"):
        runpy.run_path(plugin.__file__)


# The names of the package


def test_every_name_loads_on_first_use_and_says_where_it_lives() -> None:
    source = Path(roovet_webhooks.testing.__file__).read_text("utf-8")
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    exported = {alias.asname for node in imports for alias in node.names if alias.asname is not None}
    namespace: dict[str, object] = {}
    exec("from roovet_webhooks.testing import *", namespace)  # noqa: S102 - the statement is what is tested
    assert namespace.keys() - {"__builtins__"} == exported
    assert set(dir(roovet_webhooks.testing)) >= exported
    assert {"Roovet", "FORGERIES", "signed_request", "recording"} <= exported
    with pytest.raises(AttributeError, match="has no attribute 'signed_requests'"):
        _ = roovet_webhooks.testing.signed_requests


# In this very suite, whose conftest loads the module by its name


def test_the_fixture_is_a_fresh_one(roovet: Roovet) -> None:
    assert isinstance(roovet, Roovet)
    assert (roovet.secret, roovet.clock()) == (SECRET, NOW)
    assert not roovet.in_use


def test_each_forgery_comes_by_its_name(tampered: Tampered, request: pytest.FixtureRequest) -> None:
    assert request.node.name.endswith(f"[{tampered.forgery.name}]")


class TestAccepting:
    @pytest.fixture
    def roovet_forgery(self) -> Forgery:
        return FORGERIES[0]

    @pytest.fixture
    def roovet_accepts(self) -> set[str]:
        return {FORGERIES[0].name}

    def test_what_is_accepted_is_skipped_with_the_reason(self, request: pytest.FixtureRequest) -> None:
        with pytest.raises(pytest.skip.Exception, match="no-signature is among roovet_accepts"):
            request.getfixturevalue("tampered")
