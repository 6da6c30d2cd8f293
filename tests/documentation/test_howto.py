"""The files of the how-tos on testing are complete: each is written to disk and run by the runner that it is for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from roovet_webhooks.testing import FORGERIES

ROOT = Path(__file__).parents[2]
PAGE = "".join(
    (ROOT / "docs" / "how-to" / name).read_text("utf-8")
    for name in ("test-your-endpoint.md", "test-against-the-sandbox.md")
)
# The name of a file stands in its first line, and in the mark that keeps it from being run like a page's other blocks.
FILES = dict(
    re.findall(
        r"^<!-- fragment: (\S+), which test_howto\.py writes and runs -->\n```python\n(# \1\n.*?)^```$",
        PAGE,
        re.MULTILINE | re.DOTALL,
    )
)
OF_DJANGO = {"shop/tests.py", "shop/test_webhooks.py"}
WITH_UNITTEST = "test_with_unittest.py"
OF_PYTEST = sorted(name for name in FILES if name.startswith("test_") and name != WITH_UNITTEST)


def run(directory: Path, *command: str, **environment: str) -> str:
    """Run a command as a reader of the page would, and return what it prints."""
    ours = ("PYTEST", "ROOVET", "COV")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    ran = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-W", "error", *command],
        cwd=directory,
        env={**inherited, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


def pytest_in(directory: Path, *arguments: str, **environment: str) -> str:
    """Run pytest with the plugin's entry point, and nothing of this suite."""
    options = ("-p", "no:cacheprovider", "-W", "error", "--rootdir", ".", "-c", os.devnull)
    return run(directory, "-m", "pytest", *options, *arguments, **environment)


def write(directory: Path, *names: str) -> None:
    for name in names:
        (directory / name).write_text(FILES[name], "utf-8")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    write(tmp_path, *(name for name in FILES if name not in OF_DJANGO))
    return tmp_path


def test_every_block_of_the_page_is_a_file_that_runs() -> None:
    assert len(FILES) == len(re.findall(r"^```python$", PAGE, re.MULTILINE))
    helpers = {"shop.py", "fastapi_shop.py", "order_shop.py", "conftest.py"}
    assert FILES.keys() == {*OF_PYTEST, WITH_UNITTEST, *OF_DJANGO, *helpers}


@pytest.mark.long
def test_the_files_for_pytest_pass(directory: Path) -> None:
    printed = pytest_in(directory, "-v", "-p", "no:django", *OF_PYTEST, PYTHONPATH=str(ROOT / "examples"))
    ran = re.findall(r"^(\S+\.py)::(\w+)(?:\[[\w-]+\])? (PASSED|SKIPPED)", printed, re.MULTILINE)
    for name in OF_PYTEST:
        tests = re.findall(r"^def (test_\w+)", FILES[name], re.MULTILINE)
        # What asks for the forgeries runs once for each.
        expected = {test: len(FORGERIES) if test == "test_forgeries_are_refused" else 1 for test in tests}
        assert {test: sum(one[:2] == (name, test) for one in ran) for test in tests} == expected
    assert [name for name, _, outcome in ran if outcome == "SKIPPED"] == ["test_truncated.py"]


def test_the_file_for_unittest_passes(directory: Path) -> None:
    assert "python -m unittest test_with_unittest\n" in PAGE
    printed = run(directory, "-m", "unittest", "test_with_unittest")
    assert "Ran 2 tests" in printed


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of the example in Django, with the files of the page in it."""
    shutil.copytree(ROOT / "examples" / "django_app", tmp_path, dirs_exist_ok=True)
    write(tmp_path, *OF_DJANGO)
    return tmp_path


def test_the_file_for_django_passes(project: Path) -> None:
    [(key, secret)] = re.findall(
        r"^ROOVET_API_KEY=(\S+) ROOVET_WEBHOOK_SECRET=(\S+) python manage\.py test$", PAGE, re.MULTILINE
    )
    printed = run(project, "manage.py", "test", ROOVET_API_KEY=key, ROOVET_WEBHOOK_SECRET=secret)
    assert "Ran 2 tests" in printed


@pytest.mark.long
def test_the_file_for_pytest_django_passes(project: Path) -> None:
    printed = pytest_in(
        project,
        "shop/test_webhooks.py",
        DJANGO_SETTINGS_MODULE="config.settings",
        PYTHONPATH=".",
        ROOVET_API_KEY="rvpk_test_0123456789",
    )
    assert f"{1 + len(FORGERIES)} passed" in printed


def test_every_link_of_the_page_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", PAGE):
        assert (ROOT / "docs" / "how-to" / target).exists(), target


@pytest.mark.long
def test_the_failure_on_the_page_is_a_real_one(directory: Path) -> None:
    [shown] = re.findall(r"^```text\nAssertionError: (.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (directory / "test_shown.py").write_text(
        "import pytest\nfrom shop import receiver\n\ndef test_shown(roovet):\n"
        "    record = roovet.use(receiver)\n"
        "    roovet.post(receiver, 'transfer.settled', id='trf_2')\n"
        "    roovet.post(receiver, 'transfer.settled', id='trf_1', secret='whsec_of_somebody_else_9a7d4036')\n"
        "    with pytest.raises(AssertionError) as failed:\n"
        "        record.assert_handled('transfer.settled', id='trf_1')\n"
        f"    assert f'{{failed.value}}\\n' == {shown!r}\n",
        "utf-8",
    )
    assert "1 passed" in pytest_in(directory, "-p", "no:django", "test_shown.py")
