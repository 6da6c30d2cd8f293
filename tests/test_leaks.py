"""The search of a whole run for secrets can fail: one leak in each way there is, and every one of them is named."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from support.leaks import ALLOWED, WINDOW, Ledger, forms

TESTS = Path(__file__).parent

HEAD = """
import base64, html, io, json, logging, pickle, subprocess, sys, urllib.parse, warnings
import click, pytest, structlog
from click.testing import CliRunner
from roovet_webhooks import Secret

def made(name):
    secret = f"whsec_{name}_" + "-".join(["7f", "3a", "é", "<q>"])
    Secret(secret)
    return secret
"""

# What each test does with a secret of its own, by the name of the test.
LEAKS = {
    "prints": "print('x', secret)",
    "prints_an_error": "print(secret, file=sys.stderr)",
    "reads_what_it_printed": "print(secret); capsys.readouterr()",
    "logs": "logging.getLogger('shop').warning('x %s', secret)",
    "logs_a_field": "logging.getLogger('shop').warning('x', extra={'roovet': {'field': secret}})",
    "logs_a_traceback": (
        "try:\n        raise ValueError(secret)\n"
        "    except ValueError:\n        logging.getLogger('shop').exception('x')"
    ),
    "logs_by_structlog": (
        "structlog.configure(processors=[lambda *_: 'nothing'])\n    structlog.get_logger().info('x', field=secret)"
    ),
    "pickles": "pickle.dumps({'field': secret})",
    "pickles_to_a_file": "pickle.dump([secret], io.BytesIO())",
    "pickles_by_a_pickler": "pickle.Pickler(io.BytesIO()).dump(secret)",
    "runs_a_process": "subprocess.run([sys.executable, '-c', f'print({secret!r})'], capture_output=True, check=True)",
    "reads_a_process": (
        "process = subprocess.Popen([sys.executable, '-c', f'print({secret!r})'], stdout=subprocess.PIPE, text=True)\n"
        "    assert process.stdout.readline()\n    process.stdout.close()\n    process.wait()"
    ),
    "runs_a_command": "CliRunner().invoke(click.command()(lambda: click.echo(secret)))",
    "warns": "warnings.warn(secret)",
    "skips": "pytest.skip(secret)",
    "shows_hex": "print(secret.encode().hex())",
    "shows_hex_in_capitals": "print(secret.encode().hex().upper())",
    "shows_base64": "print(base64.b64encode(b'user:' + secret.encode() + b'!!').decode())",
    "shows_base64_of_urls": "print(base64.urlsafe_b64encode(secret.encode()).decode())",
    "shows_an_escape": "print(ascii(secret))",
    "shows_bytes": "print(secret.encode())",
    "shows_json": "print(json.dumps(secret))",
    "shows_a_url": "print(urllib.parse.quote(secret))",
    "shows_html": "print(html.escape(secret))",
}
NAMED = """
@pytest.mark.parametrize("secret", [made("named")])
def test_names(secret): ...
"""
CLEAN = """
def test_clean(capsys):
    secret = made("clean")
    print(len(secret), secret[:6], Secret(secret))
    logging.getLogger("shop").warning("%r", Secret(secret, name="n"))
    with pytest.raises(TypeError):
        pickle.dumps(Secret(secret))
"""


def run(folder: Path, code: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a file of tests in a process of its own."""
    (folder / "test_it.py").write_text(HEAD + code, "utf-8")
    return subprocess.run(  # noqa: S603 - tests written above
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "test_it.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(TESTS), "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=110,
        check=False,
    )


@pytest.mark.parametrize(
    "options", [(), pytest.param(("-n", "2"), marks=pytest.mark.long)], ids=["alone", "distributed"]
)
def test_every_leak_fails_the_run_and_is_named(options: tuple[str, ...], tmp_path: Path) -> None:
    tests = "".join(
        f"def test_{name}(capsys):\n    secret = made({name!r})\n    {leak}\n\n" for name, leak in LEAKS.items()
    )
    ran = run(tmp_path, tests + NAMED, "-p", "support.leaks", *options)
    assert ran.returncode == 1, ran.stdout
    assert set(re.findall(r"^test_it\.py::test_(\w+)", ran.stdout, re.MULTILINE)) == {*LEAKS, "names"}
    # The report itself shows none, though pytest shows the reason of a skip and what was warned of.
    shown = ran.stdout.partition("= secrets that can be seen =")[2].partition("= short test summary")[0]
    assert "whsec_" not in shown.replace("whsec_[here]", "")
    # Nothing else is wrong with these tests.
    assert re.search(rf"^{len(LEAKS)} passed, 1 skipped", ran.stdout, re.MULTILINE), ran.stdout


def test_a_run_that_shows_none_passes(tmp_path: Path) -> None:
    ran = run(tmp_path, CLEAN, "-p", "support.leaks")
    assert ran.returncode == 0, ran.stdout
    assert "none was seen." in ran.stdout


def test_a_test_may_be_allowed_to_show_one() -> None:
    ledger = Ledger()
    ledger.hide(b"whsec_4c1f0b9a7d8e")
    ledger.place = "tests/test_a.py::test_one"
    ledger.see("output", "here: whsec_4c1f0b9a7d8e")
    assert [str(sighting).partition(": a secret")[0] for sighting in ledger.sightings()] == [
        "tests/test_a.py::test_one: output"
    ]
    assert not list(ledger.sightings({"tests/test_a.py::": "it shows one on purpose"}))


def test_every_exception_has_its_reason_and_its_test() -> None:
    for prefix, reason in ALLOWED.items():
        path, _, test = prefix.partition("::")
        assert test.partition("[")[0] in (TESTS.parent / path).read_text("utf-8")
        assert len(reason) > 20


@pytest.mark.parametrize("secret", ["x" * 40, "whsec_short", 5, None, ["a list"]], ids=str)
def test_what_could_be_found_by_chance_is_not_searched_for(secret: object) -> None:
    ledger = Ledger()
    ledger.hide(secret)
    assert not ledger.secrets


@given(before=st.binary(max_size=7), secret=st.binary(min_size=16, max_size=40), after=st.binary(max_size=7))
def test_base64_is_found_in_every_phase(before: bytes, secret: bytes, after: bytes) -> None:
    shown = base64.b64encode(before + secret + after).decode()
    assert [form for form in forms(secret) if form in shown]
    assert all(len(form) >= WINDOW for form in forms(secret))
