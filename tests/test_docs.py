"""The pages say what is true: their code runs, their commands and tables are those of the package."""

from __future__ import annotations

import doctest
import importlib
import json
import os
import re
import subprocess
import sys
import time
import types
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pytest
from support import NOW, SECRET, headers_of, payload, request_of

from roovet_webhooks import Delivery, DropDelivery, Event, RetryLater, WebhookReceiver, errors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Post = Callable[[str, bytes, Mapping[str, str]], tuple[int, bytes]]

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "roovet_webhooks"
PAGES = ["README.md", *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md"))]
# How many mounted receivers and guarded views each page shows; every one of them is sent deliveries.
MOUNTED = {"README.md": 5, "docs/frameworks.md": 13, "docs/tutorial.md": 1}
PATH = "/webhooks/roovet"
SET_UP = [
    "python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt '.[cli]' && .venv/bin/roovet-webhooks demo",
    (
        "python3 -m venv .venv && .venv/bin/pip install -q 'pip>=25.1' && .venv/bin/pip install -q -c constraints.txt "
        "-e '.[all]' --group test && .venv/bin/python -m pytest --cov"
    ),
]


class Block(NamedTuple):
    """A block of Python on a page."""

    line: int
    code: str
    fragment: bool

    def compiled(self, page: str) -> types.CodeType:
        # The empty lines before it make a traceback name the line of the page.
        return compile("\n" * self.line + self.code, str(ROOT / page), "exec", dont_inherit=True)


class Mounted(NamedTuple):
    """A receiver or a guarded view that a page has mounted, and how it is sent a delivery."""

    post: Post
    path: str
    secret: str


def text_of(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def blocks_of(page: str) -> list[Block]:
    """Return the blocks of a page; one after ``<!-- fragment: reason -->`` is not to be run."""
    text = text_of(page)
    fences = re.finditer(r"^(<!-- fragment: \S.* -->\n)?```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(text[: fence.start(2)].count("\n"), fence[2], fence[1] is not None) for fence in fences]


def section_of(page: str, title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text_of(page), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def rows_of(text: str, columns: int) -> list[list[str]]:
    """Return the cells of all tables of so many columns, without their heads."""
    tables = re.findall(r"^\|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for table in tables for line in table.splitlines()]
    return [row for row in rows if len(row) == columns]


# What runs in a process of its own, because a page configures frameworks for good


def run_page(page: str) -> int:
    """Run a page's blocks, then its tests, then post deliveries to whatever it has mounted; count the mounted."""
    configure_django()
    module = types.ModuleType("page")
    module.__file__ = str(ROOT / page)
    sys.modules["page"] = module
    namespace = vars(module)
    posts: list[Mounted] = []
    for block in blocks_of(page):
        if block.fragment:
            continue
        before = {name: namespace.get(name) for name in ("app", "urlpatterns", "lambda_handler")}
        exec(block.compiled(page), namespace)  # noqa: S102 - the page's own code is what is tested
        # Where a block tells tenants apart, one of them is posted to.
        tenants: dict[str, str] = namespace["SECRETS"] if "SECRETS" in block.code else {}
        path, secret = (f"{PATH}/acme", tenants["acme"]) if tenants else (PATH, SECRET)
        posts += [
            Mounted(poster(namespace[name]), path, secret)
            for name, value in before.items()
            if namespace.get(name) is not value
        ]
    for name, test in list(namespace.items()):
        if name.startswith("test_"):
            test()
    for post, path, secret in posts:
        raw = payload("order.created", ts=int(time.time()))
        headers = headers_of(raw, secret=secret, timestamp=int(time.time()))
        status, body = post(path, raw, headers)
        assert status == 200, (status, body)
        status, body = post(path, raw + b" ", headers)
        assert (status, json.loads(body)["error"]["type"]) == (400, "verification_failed")
    return len(posts)


def configure_django() -> None:
    import django  # noqa: PLC0415 - only in the process that runs a page
    from django.conf import settings  # noqa: PLC0415 - only in the process that runs a page

    settings.configure(
        ALLOWED_HOSTS=["testserver"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "roovet_webhooks.django"],
        USE_TZ=True,
    )
    django.setup()


def poster(mounted: object) -> Post:
    """Return what posts a body to a Flask or ASGI application, to URL patterns of Django, or to a Lambda function."""
    import flask  # noqa: PLC0415 - only in the process that runs a page

    if isinstance(mounted, list):
        return partial(post_to_django, mounted)
    if isinstance(mounted, flask.Flask):
        return partial(post_to_flask, mounted)
    if isinstance(mounted, types.FunctionType):
        return partial(post_to_lambda, mounted)
    return partial(post_to_asgi, mounted)


def post_to_django(patterns: list[object], path: str, raw: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
    from django.test import Client, override_settings  # noqa: PLC0415 - only in the process that runs a page

    urls = types.ModuleType("page_urls")
    vars(urls)["urlpatterns"] = patterns
    with override_settings(ROOT_URLCONF=urls):
        response = Client().post(path, raw, "application/json", headers=dict(headers))
    return response.status_code, response.content


def post_to_flask(app: object, path: str, raw: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
    import flask  # noqa: PLC0415 - only in the process that runs a page

    assert isinstance(app, flask.Flask)
    response = app.test_client().post(path, data=raw, headers=dict(headers))
    return response.status_code, response.data


def post_to_lambda(
    function: Callable[..., dict[str, object]], path: str, raw: bytes, headers: Mapping[str, str]
) -> tuple[int, bytes]:
    lower = {name.lower(): value for name, value in headers.items()}
    http = {"method": "POST", "path": path}
    answer = function({"requestContext": {"http": http}, "headers": lower, "body": raw.decode()}, None)
    status, body = answer["statusCode"], answer["body"]
    assert isinstance(status, int)
    assert isinstance(body, str)
    return status, body.encode()


def post_to_asgi(app: object, path: str, raw: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
    import anyio  # noqa: PLC0415 - only in the process that runs a page
    import httpx  # noqa: PLC0415 - only in the process that runs a page

    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(cast("Any", app))
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
            return await client.post(path, content=raw, headers=headers)

    response = anyio.run(post)
    return response.status_code, response.content


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(page: str, tmp_path: Path) -> None:
    ran = subprocess.run(  # noqa: S603 - this file, run by this interpreter
        [sys.executable, "-W", "error", __file__, page],
        cwd=tmp_path,
        env={**os.environ, "ROOVET_WEBHOOK_SECRET": SECRET},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout.splitlines()[-1]) == MOUNTED.get(page, 0)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page_compiles(page: str) -> None:
    blocks = blocks_of(page)
    # No block escapes by the form of its fence.
    assert len(blocks) == len(re.findall(r"^\s*```\s*py", text_of(page), re.MULTILINE))
    for block in blocks:
        block.compiled(page)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    for target, _, anchor in (link.partition("#") for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page))):
        if target.startswith("http"):
            continue
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_sets_up_with_exactly_two_commands() -> None:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", section_of("README.md", "Set up"), re.MULTILINE | re.DOTALL)
    assert blocks == [("sh", SET_UP[0] + "\n"), ("sh", SET_UP[1] + "\n")]


def classes_of_the_tree() -> dict[str, type[errors.WebhookError]]:
    return {
        value.code: value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.WebhookError)
    }


def test_the_table_of_errors_is_the_tree() -> None:
    tree = classes_of_the_tree()
    section = section_of("docs/semantics.md", "Answers")
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \| (.*) \|$", section, re.MULTILINE)
    told = {code: (int(status), word) for status, word, codes in rows for code in re.findall(r"`(\w+)`", codes)}
    assert told == {code: (tree[code].status, tree[code].type) for code in told}
    refusals = {
        code
        for code, error in tree.items()
        if issubclass(error, (errors.RequestError, errors.VerificationError, errors.PayloadError))
        and not error.__subclasses__()
    }
    assert refusals <= told.keys()


def test_the_usual_causes_are_told_of_codes_that_exist() -> None:
    rows = rows_of(section_of("docs/operations.md", "The log"), 2)
    codes = {code for row in rows for code in re.findall(r"`(\w+)`", row[0])}
    assert codes
    assert codes <= classes_of_the_tree().keys()


def what_is_logged(caplog: pytest.LogCaptureFixture) -> dict[str, tuple[str, dict[str, object]]]:
    """Let everything happen that is logged; return the level and the fields of each event."""
    times = [float(NOW)]
    receiver = WebhookReceiver(SECRET, clock=lambda: times[-1])

    raised = {"order.dropped": DropDelivery, "order.later": RetryLater, "order.failed": ValueError}

    @receiver.on("order.*")
    def do(event: Event) -> None:
        if event.event in raised:
            raise raised[event.event]
        if event.event == "order.copied":
            receiver.receive(request_of(copied))

    @receiver.on_error
    def hook(_error: Exception, _delivery: Delivery) -> None:
        raise ValueError

    copied = payload("order.copied")
    caplog.set_level("INFO", "roovet_webhooks")
    for name in ("order.done", *raised, "wallet.none"):
        receiver.receive(request_of(payload(name)))
    for _ in range(2):
        receiver.receive(request_of(copied))
    receiver.receive(request_of(headers={}))
    WebhookReceiver(SECRET).receive(request_of())
    times.clear()
    receiver.receive(request_of())
    logged: dict[str, tuple[str, dict[str, object]]] = {}
    for record in caplog.records:
        if record.name == "roovet_webhooks":
            name = record.getMessage().split(" ")[0]
            _, fields = logged.get(name, ("", {}))
            logged[name] = record.levelname.lower(), {**fields, **vars(record)["roovet"]}
    return logged


def test_the_log_is_as_the_page_on_operations_says(caplog: pytest.LogCaptureFixture) -> None:
    section = section_of("docs/operations.md", "The log")
    logged = what_is_logged(caplog)
    told = {row[0].strip("`"): row[1] for row in rows_of(section, 3)}
    assert {name: level for name, (level, _) in logged.items()} == told
    for name, _, fields in rows_of(section, 3):
        # What stands after the semicolon are fields.
        own = set(re.findall(r"`(\w+)`", fields.partition(";")[2]))
        assert own <= logged[name.strip("`")][1].keys()
    # The page describes the one by the other.
    assert logged["receiver.not_ready"][1].keys() == logged["delivery.rejected"][1].keys()
    sentence = re.search(r"that was verified also have (.*?)\. `endpoint`", section, re.DOTALL)
    assert sentence is not None
    about = set(re.findall(r"`(\w+)`", sentence[1]))
    assert about == logged["delivery.duplicate"][1].keys()
    for name in told.keys() - {"delivery.rejected", "hook.failed", "receiver.not_ready", "receiver.error"}:
        assert about <= logged[name][1].keys()
    assert {name for name in told if "endpoint" not in logged[name][1]} == {"hook.failed"}


DOCTESTED = sorted(path for path in PACKAGE.rglob("*.py") if ">>>" in path.read_text("utf-8"))


@pytest.mark.parametrize("path", DOCTESTED, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_examples_of_docstrings_hold(path: Path) -> None:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted > 0
    assert results.failed == 0


if __name__ == "__main__":
    mounted = run_page(sys.argv[1])
    sys.stdout.write(f"{mounted}\n")
