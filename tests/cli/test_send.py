"""`send`: deliveries over real HTTP and HTTPS, to receivers and to servers that are none."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import socket
import ssl
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support import NOW, OTHER_SECRET, SECRET, payload

from roovet_webhooks import Delivery, Event, WebhookReceiver
from roovet_webhooks.asgi import WebhookApp
from roovet_webhooks.cli import posting
from roovet_webhooks.cli.posting import Target, TimedOut, post
from roovet_webhooks.cli.root import root
from roovet_webhooks.serving import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EVENT = ("--event", "order.created", "--id", "ord_123")


@pytest.fixture(autouse=True)
def _secret_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOVET_WEBHOOK_SECRET", SECRET)


class Shop:
    """A receiver over real HTTP, and what its handler got."""

    def __init__(self, secret: str = SECRET) -> None:
        self.deliveries: list[Delivery] = []
        self.receiver = WebhookReceiver(secret)
        self.receiver.on("*")(self.handle)

    async def handle(self, _event: Event, delivery: Delivery) -> None:
        self.deliveries.append(delivery)


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def url(shop: Shop) -> Iterator[str]:
    with serving(WebhookApp(shop.receiver)) as url:
        yield url


def send(url: str, *arguments: str, body: bytes = b"") -> Result:
    result = CliRunner().invoke(root, ["send", "--url", url, *arguments], input=body)
    assert isinstance(result.exception, SystemExit | None), result.exception
    assert SECRET not in result.output
    return result


def read_request(peer: socket.socket) -> bytes:
    """Read to the end of the body: a server that closes before would reset the connection."""
    request = b""
    while (chunk := peer.recv(65_536)) != b"":
        request += chunk
        head, end, body = request.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.lower().partition(b"content-length: ")[2].split()[0]):
            break
    return request


@contextmanager
def answering(
    answer: bytes, *, context: ssl.SSLContext | None = None, forever: bytes = b""
) -> Iterator[tuple[str, list[bytes]]]:
    """Answer one connection with these bytes; empty for not at all, until the client hangs up.

    Args:
        answer: The answer.
        context: For TLS.
        forever: What follows it, again and again, until the client hangs up.
    """
    received: list[bytes] = []
    pause = threading.Event()

    def serve() -> None:
        try:
            connection, _ = listener.accept()
            connection.settimeout(30)
            with connection if context is None else context.wrap_socket(connection, server_side=True) as peer:
                received.append(read_request(peer))
                while not answer and peer.recv(65_536):
                    pass
                peer.sendall(answer)
                while forever and not pause.wait(0.01):
                    peer.sendall(forever)
        except OSError as error:
            # The client has refused our certificate, or has read as much as it wanted.
            received.append(repr(error).encode())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        thread = threading.Thread(target=serve)
        thread.start()
        scheme = "http" if context is None else "https"
        try:
            yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/hook", received
        finally:
            thread.join(30)


@pytest.fixture
def nobody() -> Iterator[str]:
    """A URL of a port that is ours and on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{sock.getsockname()[1]}/hook"


# What is sent


def test_an_event_made_of_options(shop: Shop, url: str) -> None:
    result = send(
        url,
        *EVENT,
        "--field",
        "rate=0.25",
        "--field",
        "amount_cents=1250",
        "--field",
        'note="é"',
        "--field",
        "lines=[1,{}]",
    )
    assert result.exit_code == 0
    assert "200 OK" in result.stdout
    assert "Content-Type: application/json" in result.stdout
    assert '"status": "handled"' in result.stdout
    event = shop.deliveries[0].event
    assert (event.event, event.id) == ("order.created", "ord_123")
    assert dict(event.extra) == {"amount_cents": 1250, "note": "é", "lines": [1, {}], "rate": 0.25}


@pytest.mark.parametrize("from_file", [True, False])
def test_a_body_byte_for_byte(shop: Shop, url: str, tmp_path: Path, *, from_file: bool) -> None:
    raw = b" " + payload() + b"\r\n"
    file = tmp_path / "body.json"
    file.write_bytes(raw)
    assert send(url, str(file) if from_file else "-", body=raw).exit_code == 0
    assert shop.deliveries[0].raw == raw


def test_the_headers_are_those_of_roovet() -> None:
    with answering(b"HTTP/1.1 204 No Content\r\n\r\n") as (url, received):
        assert send(f"{url}?shop=a b", *EVENT).exit_code == 0
    head = received[0].decode().lower()
    assert head.startswith("post /hook?shop=a%20b http/1.1\r\n")
    for name in (
        "content-type: application/json",
        "x-roovet-signature: t=",
        "x-roovet-timestamp: ",
        "user-agent: roov",
    ):
        assert head.count(f"\r\n{name}") == 1


def test_fields_may_replace_the_time(shop: Shop, url: str) -> None:
    assert send(url, *EVENT, "--field", f"ts={NOW}").exit_code == 0
    assert shop.deliveries[0].event.ts == NOW


# Misbehaviour


def test_repeated_the_same_delivery_is_a_duplicate(shop: Shop, url: str) -> None:
    result = send(url, *EVENT, "--repeat", "3")
    assert result.exit_code == 0
    assert result.stdout.count('"status": "handled"') == 1
    assert result.stdout.count('"status": "duplicate"') == 2
    assert "(3 of 3)" in result.stdout
    assert len(shop.deliveries) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tamper"], "tampered with"),
        (["--stale", "600"], "signed 600 s ago"),
        (["--stale", "-600"], "signed 600 s in the future"),
    ],
)
def test_a_delivery_that_misbehaves_is_refused(shop: Shop, url: str, arguments: list[str], words: str) -> None:
    result = send(url, *EVENT, *arguments)
    assert result.exit_code == 1
    assert words in result.stdout.splitlines()[0]
    assert "400 Bad Request" in result.stdout
    assert "verification_failed" in result.stdout
    assert shop.deliveries == []


def test_another_secret_is_refused(shop: Shop, url: str) -> None:
    result = send(url, *EVENT, "--secret", OTHER_SECRET)
    assert (result.exit_code, shop.deliveries) == (1, [])
    assert OTHER_SECRET not in result.output


# Answers


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_shown_and_not_followed(url: str, status: int, shop: Shop) -> None:
    answer = f"HTTP/1.1 {status} Moved\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n".encode()
    with answering(answer) as (redirecting, _):
        result = send(redirecting, *EVENT)
    assert result.exit_code == 1
    assert f"Location: {url}" in result.stdout
    assert f"This would lead to {url}. No sender follows it" in result.stdout
    assert shop.deliveries == []


def test_a_redirect_to_nowhere() -> None:
    with answering(b"HTTP/1.1 304 Not Modified\r\n\r\n") as (url, _):
        assert "This would lead to nowhere" in send(url, *EVENT).stdout


def test_headers_of_interest_are_shown() -> None:
    with answering(b"HTTP/1.1 503 No\r\nRetry-After: 5\r\nAllow: POST\r\nX-Other: 1\r\nContent-Length: 0\r\n\r\n") as (
        url,
        _,
    ):
        result = send(url, *EVENT)
    assert result.exit_code == 1
    assert "Retry-After: 5\nAllow: POST" in result.stdout
    assert "X-Other" not in result.stdout


def test_an_answer_cannot_steer_the_terminal() -> None:
    answer = b"HTTP/1.1 200 O\x1b[1mK\r\nLocation: \x1b[2m\r\nContent-Length: 8\r\n\r\n[b]\x1b[3mx"
    with answering(answer) as (url, _):
        result = send(url, *EVENT)
    assert result.exit_code == 0
    assert "\x1b" not in result.output
    assert "[b]\\x1b[3mx" in result.stdout


def test_of_a_long_answer_only_the_beginning_is_read() -> None:
    with answering(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 4_000_000) as (url, _):
        answer = post(Target.parse(url), b"{}", {}, timeout=30)
    assert posting.MAX_ANSWER_BYTES <= len(answer.body) < 2 * posting.MAX_ANSWER_BYTES


def test_an_output_without_the_characters_gets_escapes() -> None:
    with answering(b"HTTP/1.0 200 OK\r\n\r\n\xc3\xa9") as (url, _):
        result = subprocess.run(  # noqa: S603 - our own command line
            [sys.executable, "-m", "roovet_webhooks.cli", "send", "--url", url, *EVENT],
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
            capture_output=True,
            timeout=60,
            check=False,
        )
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.endswith(b"\\xe9\n")


# No answer


def unanswered(result: Result) -> str:
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("Error: no answer from http")
    return result.stderr


def test_nobody_listens(nobody: str) -> None:
    assert "refused" in unanswered(send(nobody, *EVENT)).lower()


def test_a_server_that_does_not_answer_in_time() -> None:
    # The server waits until the client has given up, whenever that is.
    with answering(b"") as (url, _):
        assert "no complete answer within 0.05 s" in unanswered(send(url, *EVENT, "--timeout", "0.05"))


def test_a_host_that_cannot_be_reached_in_time(monkeypatch: pytest.MonkeyPatch, nobody: str) -> None:
    def connect(_connection: HTTPConnection) -> None:
        raise TimeoutError

    monkeypatch.setattr(HTTPConnection, "connect", connect)
    assert "no complete answer within 10 s" in unanswered(send(nobody, *EVENT))


@pytest.mark.parametrize("begun", [b"HTTP/1.0 200 OK\r\n", b"HTTP/1.0 200 OK\r\n\r\nx"])
def test_an_answer_that_goes_on_for_too_long(begun: bytes) -> None:
    with answering(begun, forever=b"x-more: 1\r\n") as (url, _), pytest.raises(TimedOut, match=r"within 0\.3 s"):
        post(Target.parse(url), b"{}", {}, timeout=0.3)


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH\r\n", b"\r\n\x1b[1m\r\n", b"HTTP/1.1 x y\r\n\r\n"])
def test_a_server_that_speaks_no_http(answer: bytes) -> None:
    with answering(answer) as (url, _):
        assert "\x1b" not in unanswered(send(url, *EVENT))


def test_a_host_that_cannot_be_one() -> None:
    unanswered(send(f"http://{'a' * 64}.invalid/", *EVENT))


# TLS


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of 127.0.0.1, signed by itself, with its key in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "certificate.pem"
    file.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return file


def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def test_https(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with answering(b"HTTP/1.1 204 No Content\r\n\r\n", context=tls(certificate)) as (url, received):
        result = send(url, *EVENT)
    assert (result.exit_code, result.stderr) == (0, "")
    assert b"X-Roovet-Signature" in received[0]


def test_an_untrusted_certificate_gets_no_delivery(certificate: Path) -> None:
    with answering(b"HTTP/1.1 204 No Content\r\n\r\n", context=tls(certificate)) as (url, received):
        assert "certificate of 127.0.0.1 does not hold" in unanswered(send(url, *EVENT))
    assert not any(b"X-Roovet-Signature" in part for part in received)


# Usage


@pytest.mark.parametrize(
    ("url", "arguments", "words"),
    [
        ("localhost:8000/hook", EVENT, "http:// or https://"),
        ("ftp://localhost/hook", EVENT, "http:// or https://"),
        ("http:///hook", EVENT, "name a host"),
        ("http://localhost:99999/", EVENT, "ort"),
        ("http://[::1/", EVENT, "URL"),
        ("http://user:4711@localhost/", EVENT, "user name or a password"),
        ("http://localhost/", (), "nothing to send"),
        ("http://localhost/", EVENT[:2], "--event with --id"),
        ("http://localhost/", EVENT[2:], "--event with --id"),
        ("http://localhost/", ("-", *EVENT), "one or the other"),
        ("http://localhost/", ("-", "--field", "a=1"), "one or the other"),
        ("http://localhost/", (*EVENT, "--field", "a"), "not name=json"),
        ("http://localhost/", (*EVENT, "--field", "=1"), "not name=json"),
        ("http://localhost/", (*EVENT, "--field", "a=text"), "own quotes"),
        ("http://localhost/", (*EVENT, "--field", "a=NaN"), "not name=json"),
        ("http://localhost/", (*EVENT, "--field", "a=1e999"), "not name=json"),
        ("http://localhost/", (*EVENT, "--field", 'a=[{"b": -1e999}]'), "not name=json"),
        ("http://localhost/", (*EVENT, "--stale", "9" * 20), "cannot hold"),
        ("http://localhost/", (*EVENT, "--stale", "-" + "9" * 12), "cannot hold"),
        ("http://localhost/", (*EVENT, "--repeat", "0"), "--repeat"),
        ("http://localhost/", (*EVENT, "--timeout", "0"), "--timeout"),
    ],
)
def test_wrong_usage_sends_nothing(url: str, arguments: tuple[str, ...], words: str) -> None:
    result = send(url, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 2
    assert words in result.stderr
    assert "4711" not in result.stderr


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://localhost", "http://localhost/"),
        ("https://[::1]:8443/a?b=c#d", "https://[::1]:8443/a?b=c"),
        ("http://localhost/a%20b/é x?q=ü", "http://localhost/a%20b/%C3%A9%20x?q=%C3%BC"),
    ],
)
def test_how_a_url_is_read(url: str, shown: str) -> None:
    assert str(Target.parse(url)) == shown


def test_the_made_body_is_compact_json_and_tampering_adds_a_space() -> None:
    with answering(b"HTTP/1.1 204 No Content\r\n\r\n") as (url, received):
        send(url, *EVENT, "--field", f"ts={NOW}", "--tamper")
    body = received[0].partition(b"\r\n\r\n")[2]
    assert body == f'{{"event":"order.created","id":"ord_123","ts":{NOW}}} '.encode()
