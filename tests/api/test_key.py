"""The key of the client: where it comes from, what is none, and that it never shows; and the package around it."""

from __future__ import annotations

import inspect
import io
import logging
import pickle
import socket
import subprocess
import sys
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, cast

import httpx2
import pytest
from support.api import BALANCE, KEY, FakeRoovet, Kind, answer

import roovet_webhooks.api
from roovet_webhooks import ConfigurationError, InvalidSecretError, Secret
from roovet_webhooks.api import (
    ApiConnectionError,
    ApiError,
    ApiTimeout,
    AsyncRoovetClient,
    InvalidApiKey,
    RoovetClient,
    errors,
)
from roovet_webhooks.api.key import ApiKey
from roovet_webhooks.api.verbs import Wallet
from roovet_webhooks.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=[RoovetClient, AsyncRoovetClient], ids=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> Kind:
    return Kind(request.param)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "ROOVET_API_KEY"),
        ("  ", "is empty"),
        ("whsec_5f2b8c1e9a7d4036b1c2d3e4", "is a webhook secret"),
        (' "whsec_5f2b8c1e9a7d4036b1c2d3e4"', "is a webhook secret"),
        (f"{KEY}\n", "white space"),
        (f"'{KEY}'", "quotation marks"),
        (f"{KEY}\r\nX: y", "no key has"),
        ("rvpk_ключ", "no key has"),
        (7, "must be a str"),
    ],
    ids=map(str, range(9)),
)
def test_what_is_no_api_key_is_refused_by_name(kind: Kind, value: Any, words: str) -> None:  # noqa: ANN401 - what an untyped caller may pass
    with pytest.raises(InvalidApiKey, match=words) as caught:
        kind.make(FakeRoovet([]), api_key=value)
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    ours = [line for line in shown.split("File ") if "/roovet_webhooks/" in line]
    assert len(str(value)) < 8 or not any(str(value) in part for part in ours)


def test_an_api_key_is_no_webhook_secret() -> None:
    with pytest.raises(InvalidSecretError, match="is an API key"):
        Secret(KEY)


def test_the_key_comes_from_the_environment(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOVET_API_KEY", KEY)
    roovet = FakeRoovet([answer(BALANCE)])
    kind.get(kind.make(roovet, api_key=None).wallet.balance())
    assert roovet.request.headers["Authorization"] == f"Bearer {KEY}"
    monkeypatch.delenv("ROOVET_API_KEY")
    with pytest.raises(InvalidApiKey, match="set ROOVET_API_KEY"):
        kind.make(roovet, api_key=None)


def test_nothing_that_can_be_printed_or_pickled_shows_the_key(kind: Kind) -> None:
    client = kind.make(FakeRoovet([answer(BALANCE)]))
    session = client._driver.session  # pyright: ignore[reportPrivateUsage] - whoever debugs looks into it
    for one in (client, client.wallet, client.wallet.balance, session, session.key, ApiKey(KEY)):
        assert KEY not in repr(one)
        assert KEY not in str(vars(one) if hasattr(one, "__dict__") else one)
        with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
            pickle.dumps(one)


@pytest.mark.parametrize(
    "trouble",
    [
        answer({"error": {"type": KEY, "code": KEY, "message": f"no {KEY}!", "param": KEY}}, 404, X_Request_Id=KEY),
        httpx2.ReadTimeout("…"),
        httpx2.ConnectError("…"),
        httpx2.Response(200, content=b"{"),
    ],
    ids=["refused", "timed out", "not connected", "not JSON"],
)
def test_no_error_shows_the_key_even_with_the_variables_of_its_frames(kind: Kind, trouble: Any) -> None:  # noqa: ANN401 - an answer or an error
    client = kind.make(FakeRoovet([trouble]), max_attempts=1)
    with pytest.raises(ApiError) as caught:
        kind.get(client.wallet.balance())
    error: BaseException | None = caught.value
    assert KEY.encode() not in pickle.dumps(error)
    while error is not None:
        shown = traceback.TracebackException.from_exception(error, capture_locals=True)
        assert KEY not in "".join(shown.format())
        assert isinstance(error, ApiError), "the errors of the transport know the request"
        error = error.__context__ or error.__cause__


def test_no_frame_of_the_http_library_shows_the_key(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A time limit, say, raises anywhere, and passes through frames in which the headers stand as they are sent."""

    def interrupted(*_: object) -> None:
        _ = ()
        raise ZeroDivisionError

    with RoovetClient(KEY, base_url=server) as client:
        monkeypatch.setattr(socket.socket, "send", interrupted)
        with pytest.raises(ZeroDivisionError) as caught:
            client.wallet.balance()
        monkeypatch.undo()
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert any("httpcore2" in frame.filename for frame in shown.stack)
    assert KEY not in "".join(shown.format())


class Trouble(BaseHTTPRequestHandler):
    """Answers, cuts the connection or waits, as the path says."""

    protocol_version = "HTTP/1.1"
    release: threading.Event

    def do_GET(self) -> None:
        if "/slow/" in self.path:
            self.release.wait(30)
        body = b'{"balance_cents":1,"available_cents":1,"currency":"USD","updated_at":"2025-09-20T02:30:00Z"}'
        if "/slow/" not in self.path:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body) + (10 if "/cut/" in self.path else 0)))
            self.end_headers()
            self.wfile.write(body)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Stay quiet."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    Trouble.release = threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), Trouble) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        Trouble.release.set()
        httpd.shutdown()
        thread.join()


def call(kind: Kind, base_url: str, **options: Any) -> int:  # noqa: ANN401 - the client's options
    """Make one call over the network, and close the client."""

    async def call_async() -> int:
        async with AsyncRoovetClient(KEY, base_url=base_url, **options) as client:
            return (await client.wallet.balance()).balance_cents

    if kind.client is AsyncRoovetClient:
        return cast("int", kind.get(call_async()))
    with RoovetClient(KEY, base_url=base_url, **options) as client:
        return client.wallet.balance().balance_cents


def test_over_a_connection_no_log_shows_the_key(
    kind: Kind, server: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # A proxy of the environment would see the key in the clear.
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    root = logging.getLogger()
    caplog.set_level(logging.DEBUG)
    root.addHandler(handler)
    assert call(kind, f"{server}/") == 1
    assert "/api/wallet/balance" in written.getvalue()
    assert KEY not in written.getvalue()


@pytest.mark.parametrize("how", ["cut", "slow"])
def test_a_connection_in_trouble_is_an_error_of_ours(kind: Kind, server: str, how: str) -> None:
    expected = ApiTimeout if how == "slow" else ApiConnectionError
    with pytest.raises(expected) as caught:
        call(kind, f"{server}/{how}", timeout=0.2 if how == "slow" else 10.0, max_attempts=1)
    assert caught.value.sent


@pytest.mark.parametrize(
    "base_url",
    [
        "http://roovet.com",
        "http://localhost.example",
        "ftp://roovet.com",
        "roovet.com",
        "https://",
        "https://user:password@roovet.com",
        "https://roovet.com?x=1",
        "https://roovet.com#x",
        "http://10.0.0.1",
    ],
)
def test_a_base_url_that_would_give_the_key_away_is_refused(kind: Kind, base_url: str) -> None:
    with pytest.raises(ConfigurationError, match="base_url"):
        kind.make(FakeRoovet([]), base_url=base_url)


@pytest.mark.parametrize(
    "base_url", ["https://roovet.com/", "http://localhost:8000", "http://[::1]:8000", "http://shop.localhost"]
)
def test_a_base_url_is_encrypted_or_on_this_machine(kind: Kind, base_url: str) -> None:
    roovet = FakeRoovet([answer(BALANCE)])
    client = kind.make(roovet, base_url=base_url)
    kind.get(client.wallet.balance())
    assert str(roovet.request.url) == f"{base_url.rstrip('/')}/api/wallet/balance"
    assert base_url.rstrip("/") in repr(client)


# The package


def test_its_names_load_on_first_use() -> None:
    assert set(dir(roovet_webhooks.api)) >= {"RoovetClient", "AsyncRoovetClient", "Order", "ApiError"}
    with pytest.raises(AttributeError, match="Nothing"):
        roovet_webhooks.api.Nothing  # noqa: B018 - the access is what is tested


def test_without_httpx2_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("roovet_webhooks.api.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(roovet_webhooks.api, "RoovetClient", raising=False)
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(MissingExtraError, match=r"roovet-webhooks\[api\]") as caught:
        roovet_webhooks.api.RoovetClient  # noqa: B018 - the access is what is tested
    assert caught.value.extra == "api"


def test_every_error_is_drawn_in_the_tree_and_can_be_imported() -> None:
    classes = {
        name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert all(name in (errors.__doc__ or "") for name in classes)
    assert classes <= set(dir(roovet_webhooks.api))


def test_an_editor_shows_the_parameters_of_a_method(kind: Kind) -> None:
    transfer = kind.make(FakeRoovet([])).wallet.transfer
    assert list(inspect.signature(cast("Any", transfer)).parameters)[:2] == ["to", "amount_cents"]
    assert (transfer.__doc__ or "").startswith("Send money")
    # The documentation reads them from the class.
    assert [inspect.isfunction(method) for method in (Wallet.transfer, Wallet.transactions)] == [True, True]


def test_the_package_alone_loads_none_of_it() -> None:
    program = (
        "import sys, roovet_webhooks\nfrom roovet_webhooks import WebhookReceiver\n"
        "print(*(name for name in sys.modules if 'httpx2' in name or 'stamina' in name or 'webhooks.api' in name))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)  # noqa: S603 - our own
    assert ran.stdout.strip() == ""
