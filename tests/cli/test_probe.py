"""`probe`: real endpoints that work, and real servers that misbehave in each way it names."""

from __future__ import annotations

import json
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from click.testing import CliRunner, Result
from documentation.pages import rows_of, text_of
from fastapi import Depends, FastAPI
from support import OTHER_SECRET, PATH, SECRET

from roovet_webhooks import Delivery, Event, WebhookReceiver, WebhookRequest
from roovet_webhooks.asgi import WebhookApp, verified_delivery
from roovet_webhooks.cli import probe_findings
from roovet_webhooks.cli.posting import Answer, Target
from roovet_webhooks.cli.probe import EVENT
from roovet_webhooks.cli.root import root
from roovet_webhooks.serving import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIGNED = ("--secret", SECRET)


class Seen(NamedTuple):
    """A request that came to a server."""

    handler: BaseHTTPRequestHandler
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Reply(NamedTuple):
    """What a server answers."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed


Route = "Callable[[Seen], Reply | None]"


class Site:
    """A server whose paths misbehave, each in its own way, and what came to them."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.stopped = threading.Event()
        self.receiver = WebhookReceiver(SECRET)
        self.events: list[Event] = []

        @self.receiver.fallback
        def note(event: Event) -> None:
            self.events.append(event)

    def through(self, alter: Callable[[WebhookRequest], WebhookRequest]) -> Callable[[Seen], Reply]:
        """Return a route to the receiver by way of something that alters requests."""

        def route(seen: Seen) -> Reply:
            request = alter(WebhookRequest("POST", "/hook", seen.headers, seen.body))
            response = self.receiver.receive(request)
            headers = {name.decode(): value.decode() for name, value in response.headers}
            return Reply(response.status, response.body, headers)

        return route

    def drip(self, seen: Seen) -> None:
        """Begin an answer that never ends."""
        seen.handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        try:
            while not self.stopped.wait(0.01):
                seen.handler.wfile.write(b"X-More: 1\r\n")
        except OSError:
            # The client has hung up.
            return

    def wait(self, _seen: Seen) -> Reply:
        """Answer when the test ends."""
        self.stopped.wait(30)
        return Reply(200)


def rewritten(**options: Any) -> Callable[[WebhookRequest], WebhookRequest]:  # noqa: ANN401 - those of json.dumps
    def alter(request: WebhookRequest) -> WebhookRequest:
        assert isinstance(request.body, bytes)
        request.body = json.dumps(json.loads(request.body), **options).encode()
        return without(b"content-length")(request)

    return alter


def without(*names: bytes) -> Callable[[WebhookRequest], WebhookRequest]:
    def alter(request: WebhookRequest) -> WebhookRequest:
        request.headers = [pair for pair in request.headers if pair[0].lower() not in names]
        return request

    return alter


def stripped(request: WebhookRequest) -> WebhookRequest:
    assert isinstance(request.body, bytes)
    request.body = request.body.strip()
    return without(b"content-length")(request)


def cut_off(request: WebhookRequest) -> WebhookRequest:
    assert isinstance(request.body, bytes)
    request.body = request.body[:-1]
    return request


def chunked(request: WebhookRequest) -> WebhookRequest:
    request.needs_length = True
    return without(b"content-length")(request)


def as_text(request: WebhookRequest) -> WebhookRequest:
    request.headers = [*without(b"content-type")(request).headers, (b"content-type", b"text/plain")]
    return request


def vendor(status: int, kind: str) -> Reply:
    """Return an error in the vendor's shape, as a receiver and other services make it."""
    return Reply(status, json.dumps({"error": {"type": kind, "code": str(status)}}).encode())


def to(location: str, status: int = 301) -> Reply:
    return Reply(status, headers={"Location": location})


def with_clock(ahead: float) -> Callable[[Site], Callable[[Seen], Reply]]:
    def of(site: Site) -> Callable[[Seen], Reply]:
        def route(seen: Seen) -> Reply:
            with site.receiver.override(clock=lambda: time.time() + ahead):
                reply = site.through(lambda request: request)(seen)
            return reply._replace(headers={**reply.headers, "Date": formatdate(time.time() + ahead, usegmt=True)})

        return route

    return of


CSRF_PAGE = b"<!doctype html><h1>Forbidden</h1><p>CSRF verification failed. Request aborted.</p>"
HTML = {"Content-Type": "text/html"}

# What is found first, and the server that makes it so.
MISBEHAVING: dict[str, tuple[str, Callable[[Site], Callable[[Seen], Reply | None]]]] = {
    "a slash": ("redirect_slash", lambda _: lambda _: to("/hook/")),
    "https": ("redirect_https", lambda _: lambda seen: to(f"https://{seen.handler.headers['Host']}/hook", 308)),
    "to itself": ("redirect_https", lambda _: lambda _: to("/hook")),
    "another host": ("redirect_host", lambda _: lambda _: to("http://www.shop.example/hook")),
    "a login": ("redirect_login", lambda _: lambda _: to("/accounts/login/?next=/hook", 302)),
    "a login elsewhere": ("redirect_login", lambda _: lambda _: to("https://sso.shop.example/", 302)),
    "elsewhere": ("redirect", lambda _: lambda _: to("/v2/author/hook", 307)),
    "nowhere": ("redirect_https", lambda _: lambda _: Reply(302)),
    "basic authentication": ("unauthorized", lambda _: lambda _: Reply(401)),
    "csrf": ("forbidden_csrf", lambda _: lambda _: Reply(403, CSRF_PAGE, HTML)),
    "a firewall": (
        "forbidden_firewall",
        lambda _: lambda _: Reply(403, b"<html>Attention", {"CF-Ray": "1", "X": "cloudflare"}),
    ),
    "a proxy's rule": ("forbidden", lambda _: lambda _: Reply(403, b"<html>403 Forbidden", HTML)),
    "no route": ("not_found", lambda _: lambda _: Reply(404, b"<html>Not Found", HTML)),
    "an API without the route": ("not_found", lambda _: lambda _: vendor(404, "not_found")),
    "another method": ("method_not_allowed", lambda _: lambda _: Reply(405)),
    "a method that was changed": ("method_not_allowed", lambda _: lambda _: vendor(405, "method_not_allowed")),
    "an unknown host": ("host_refused", lambda _: lambda _: Reply(400, b"Invalid host header")),
    "a limit": ("rate_limited", lambda _: lambda _: Reply(429)),
    "a proxy without its application": ("bad_gateway", lambda _: lambda _: Reply(502, b"<html>", HTML)),
    "a page": ("html", lambda _: lambda _: Reply(200, b"<p>Welcome", HTML)),
    "a page that does not say so": ("html", lambda _: lambda _: Reply(200, b" <!DOCTYPE html>")),
    "a crash": ("server_error", lambda _: lambda _: Reply(500, b"<html>", HTML)),
    "a crash of ours": ("server_error", lambda _: lambda _: vendor(500, "internal_error")),
    "no handler": ("not_ready", lambda _: lambda _: vendor(503, "not_ready")),
    "no database": ("unavailable", lambda _: lambda _: vendor(503, "unavailable")),
    "something that accepts": ("accepts_anything", lambda _: lambda _: Reply(204)),
    "something that refuses": ("not_a_receiver", lambda _: lambda _: Reply(400, b"[]")),
    "something in the vendor's shape": ("not_a_receiver", lambda _: lambda _: vendor(400, "invalid_thing")),
    "something in half of it": ("not_a_receiver", lambda _: lambda _: Reply(400, b'{"error": 1}')),
    "an answer that never comes": ("timeout", lambda site: site.wait),
    "an answer that never ends": ("timeout", lambda site: site.drip),
    "a body written again": ("body_altered", lambda site: site.through(rewritten())),
    "a body written again, compact": ("body_altered", lambda site: site.through(rewritten(separators=(",", ":")))),
    "a body without its edges": ("body_altered", lambda site: site.through(stripped)),
    "a body sorted": ("secret_differs", lambda site: site.through(rewritten(sort_keys=True, indent=1))),
    "a body cut off": ("body_lost", lambda site: site.through(cut_off)),
    "a body without its length": ("length_lost", lambda site: site.through(chunked)),
    "another type": ("headers_lost", lambda site: site.through(as_text)),
    "no signature": ("secret_differs", lambda site: site.through(without(b"x-roovet-signature"))),
    "a clock ahead": ("clock_off", with_clock(90.0)),
    "a clock far behind": ("clock_off", with_clock(-4000.0)),
}


@pytest.fixture(autouse=True)
def _no_secret_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROOVET_WEBHOOK_SECRET", raising=False)


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
def serve(site: Site) -> Iterator[Callable[[Callable[[Seen], Reply | None]], str]]:
    """Serve a route at ``/hook`` for the length of a test; the value takes it and returns the URL."""
    routes: list[Callable[[Seen], Reply | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            headers = [(name.encode(), value.encode("latin-1")) for name, value in self.headers.items()]
            seen = Seen(self, headers, self.rfile.read(length))
            site.seen.append(seen)
            reply = routes[0](seen)
            if reply is None:
                return
            self.send_response_only(reply.status)
            for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()

        def at(route: Callable[[Seen], Reply | None]) -> str:
            routes.append(route)
            return f"http://127.0.0.1:{server.server_port}/hook"

        yield at
        site.stopped.set()
        server.shutdown()
        thread.join(30)


def probe(url: str, *arguments: str) -> Result:
    result = CliRunner().invoke(root, ["probe", url, *arguments])
    assert isinstance(result.exception, SystemExit | None), result.exception
    assert SECRET not in result.output
    return result


def found(url: str, *arguments: str) -> dict[str, Any]:
    """Probe, and return what was found as JSON has it."""
    result = probe(url, "--json", *arguments)
    content: dict[str, Any] = json.loads(result.stdout)
    assert content["url"] == url
    assert result.exit_code == (0 if content["ok"] else 1)
    assert content["ok"] == (not content["problems"])
    return content


def codes(content: dict[str, Any]) -> list[str]:
    return [problem["code"] for problem in content["problems"]]


# What is in order


def test_a_mounted_receiver_is_in_order_and_has_got_the_test_event(site: Site) -> None:
    with serving(WebhookApp(site.receiver)) as url:
        content = found(url, *SIGNED)
        assert content["problems"] == []
        assert [(one["what"], one["status"]) for one in content["requests"]] == [
            ("unsigned", 400),
            ("badly signed", 400),
            ("signed", 200),
        ]
        [event] = site.events
        assert event.event == EVENT
        shown = probe(url, *SIGNED)
        assert shown.exit_code == 0
        assert "signed: 200 OK" in shown.stdout
        assert "Nothing stands in the way." in shown.stdout
        assert len({event.id for event in site.events}) == 2


def test_without_a_secret_no_good_delivery_is_sent(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(WebhookApp(site.receiver)) as url:
        result = probe(url)
        assert result.exit_code == 0
        assert "No good delivery was sent" in result.stdout
        assert site.events == []
        monkeypatch.setenv("ROOVET_WEBHOOK_SECRET", SECRET)
        assert len(found(url)["requests"]) == 3
        assert len(site.events) == 1


def test_a_guarded_endpoint_of_fastapi_is_in_order_though_its_refusals_have_another_shape(site: Site) -> None:
    app = FastAPI()
    verified = Depends(verified_delivery(site.receiver))

    @app.post(PATH)
    async def guarded(_delivery: Delivery = verified) -> str:
        return "seen"

    with serving(app) as url:
        assert found(url, *SIGNED)["problems"] == []


# What stands in the way


@pytest.mark.parametrize("way", MISBEHAVING)
def test_what_stands_in_the_way_is_named_with_its_remedy(
    way: str, site: Site, serve: Callable[[Callable[[Seen], Reply | None]], str]
) -> None:
    expected, make = MISBEHAVING[way]
    url = serve(make(site))
    content = found(url, *SIGNED, *(("--timeout", "0.5") if expected == "timeout" else ()))
    assert codes(content) == [expected]
    [problem] = content["problems"]
    assert problem["message"].startswith(probe_findings.PROBLEMS[expected].meaning)
    assert problem["remedy"] == probe_findings.PROBLEMS[expected].remedy
    # A handful of requests, each to the URL that was given.
    assert 1 <= len(site.seen) <= 5
    assert {seen.handler.path for seen in site.seen} == {"/hook"}


def test_a_problem_is_shown_with_what_was_seen_and_what_to_do(
    serve: Callable[[Callable[[Seen], Reply | None]], str],
) -> None:
    result = probe(serve(lambda _: to("/hook/\x1b[1m")))
    assert result.exit_code == 1
    assert "redirect_slash: " in result.stdout or "redirect: " in result.stdout
    assert "unsigned: 301" in result.stdout
    assert "(301 to /hook/" in result.stdout
    assert "Give Roovet the" in result.stdout
    assert "\x1b" not in result.stdout


def test_another_secret(site: Site) -> None:
    with serving(WebhookApp(site.receiver)) as url:
        assert codes(found(url, "--secret", OTHER_SECRET)) == ["secret_differs"]
    assert site.events == []


def test_a_handler_that_fails_on_the_test_event() -> None:
    receiver = WebhookReceiver(SECRET)

    @receiver.on("*")
    def fail(_event: Event) -> None:
        message = "no such event"
        raise LookupError(message)

    with serving(WebhookApp(receiver)) as url:
        assert codes(found(url, *SIGNED)) == ["handler_failed"]


def test_what_answers_otherwise_to_a_good_delivery_alone(
    site: Site, serve: Callable[[Callable[[Seen], Reply | None]], str]
) -> None:
    refusing = site.through(lambda request: request)

    def route(seen: Seen) -> Reply:
        return Reply(418) if refusing(seen).status == 200 else refusing(seen)

    assert codes(found(serve(route), *SIGNED)) == ["not_a_receiver"]


def test_what_is_lost_on_the_way_to_the_last_try(
    site: Site, serve: Callable[[Callable[[Seen], Reply | None]], str]
) -> None:
    def route(seen: Seen) -> Reply:
        if len(site.seen) > 3:
            return Reply(429)
        return site.through(without(b"x-roovet-signature"))(seen)

    assert codes(found(serve(route), *SIGNED)) == ["rate_limited"]


def test_a_slow_answer_is_reported_and_the_rest_is_looked_at_all_the_same(site: Site) -> None:
    with serving(WebhookApp(site.receiver)) as url:
        content = found(url, *SIGNED, "--slow", "0")
    assert codes(content) == ["slow_answer"]
    assert len(content["requests"]) == 3


def test_a_host_that_is_not_this_machine_wants_https(site: Site) -> None:
    with serving(WebhookApp(site.receiver)) as url:
        # All addresses of this machine, of which one answers: no loopback address by its looks.
        assert codes(found(url.replace("127.0.0.1", "0.0.0.0"), *SIGNED)) == ["no_tls"]  # noqa: S104 - nothing is bound


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:8000/", []),
        ("http://shop.localhost/", []),
        ("http://[::1]/", []),
        ("http://192.0.2.1/", ["no_tls"]),
        ("http://shop.example/", ["no_tls"]),
        ("https://shop.example/", []),
    ],
)
def test_which_urls_want_https(url: str, expected: list[str]) -> None:
    assert [one.code for one in probe_findings.of_target(Target.parse(url))] == expected


@pytest.mark.parametrize("headers", [[], [("Date", "yesterday")], [("Date", "Mon, 99 Jan 2026 00:00:00 GMT")]])
def test_a_date_that_is_none_says_nothing(headers: list[tuple[str, str]]) -> None:
    answer = Answer(200, "OK", headers, b"", 0.0)
    assert probe_findings.clock_skew(answer, time.time()) is None


def test_a_body_that_is_nested_without_end_is_no_error_of_a_receiver() -> None:
    answer = Answer(400, "", [], b"[" * 60_000, 0.0)
    assert [one.code for one in probe_findings.of_refusal(answer)] == ["not_a_receiver"]
    assert probe_findings.of_answer(Target.parse("http://localhost/"), answer, now=0.0, slow=1.0) == []


def test_nobody_listens_and_what_is_no_url() -> None:
    with serving(WebhookApp(WebhookReceiver(SECRET))) as url:
        pass
    content = found(url)
    assert codes(content) == ["no_answer"]
    assert content["requests"] == []
    result = probe("shop.example/hook")
    assert result.exit_code == 2
    assert "http" in result.stderr


def test_the_page_has_every_problem_with_its_words() -> None:
    rows = rows_of(text_of("docs/how-to/probe-an-endpoint.md"), 3)
    assert rows == [[f"`{code}`", *words] for code, words in probe_findings.PROBLEMS.items()]
