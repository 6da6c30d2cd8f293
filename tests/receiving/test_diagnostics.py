"""What a receiver tells of a refusal: the findings, to its log and its hooks, and nothing of them to the sender."""

from __future__ import annotations

import asyncio
import gzip
import json
import pickle
import subprocess
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from support import NOW, OTHER_SECRET, REFUSED, SECRET, headers_of, payload, request_of

from roovet_webhooks import (
    Keyring,
    Secret,
    Tenant,
    VerificationError,
    WebhookError,
    WebhookReceiver,
    WebhookRequest,
    WebhookResponse,
    sign,
)
from roovet_webhooks.receiving.bridge import AsyncBridge

if TYPE_CHECKING:
    from collections.abc import Callable

    Answer = Callable[[WebhookReceiver, WebhookRequest], WebhookResponse]


def in_sync(receiver: WebhookReceiver, request: WebhookRequest) -> WebhookResponse:
    return receiver.receive(request)


def in_async(receiver: WebhookReceiver, request: WebhookRequest) -> WebhookResponse:
    return asyncio.run(receiver.receive_async(request))


both = pytest.mark.parametrize("answer", [in_sync, in_async])

RAW = payload()
GOOD = headers_of(RAW)
SIGNATURE = GOOD["X-Roovet-Signature"]


def with_signature(signature: str, **more: str) -> dict[str, str]:
    return {**GOOD, "X-Roovet-Signature": signature, **more}


# What comes, and what is found of it without a search and with one.
REFUSALS: dict[str, tuple[bytes, dict[str, str], list[str], list[str]]] = {
    "no signature": (RAW, {"Content-Type": "application/json"}, ["missing_signature"], ["missing_signature"]),
    "malformed": (RAW, with_signature("x"), ["malformed_signature"], ["malformed_signature"]),
    "32 digits": (RAW, with_signature(SIGNATURE[:-32]), ["truncated_digest"], ["truncated_digest"]),
    "upper case": (
        RAW,
        with_signature(SIGNATURE.upper().replace("T=", "t=").replace("V1=", "v1=")),
        ["uppercase_digest"],
        ["uppercase_digest"],
    ),
    "joined": (RAW, with_signature(f"{SIGNATURE},{SIGNATURE}"), ["duplicate_header"], ["duplicate_header"]),
    "stale": (RAW, headers_of(RAW, timestamp=NOW - 600), ["stale"], ["stale"]),
    "future": (RAW, headers_of(RAW, timestamp=NOW + 600), ["future"], ["future"]),
    "contradicted": (
        RAW,
        {**GOOD, "X-Roovet-Timestamp": "1"},
        ["timestamp_header_mismatch"],
        ["timestamp_header_mismatch"],
    ),
    "two faults": (
        RAW,
        {**headers_of(RAW, timestamp=NOW - 600), "X-Roovet-Timestamp": "1"},
        ["stale", "timestamp_header_mismatch"],
        ["stale", "timestamp_header_mismatch"],
    ),
    "line break": (RAW + b"\n", GOOD, ["wrong_secret_or_altered_body"], ["body_trailing_newline"]),
    "written again": (
        json.dumps(json.loads(RAW)).encode(),
        GOOD,
        ["wrong_secret_or_altered_body"],
        ["body_reserialized"],
    ),
    "other secret": (
        RAW,
        headers_of(RAW, secret=OTHER_SECRET),
        ["wrong_secret_or_altered_body"],
        ["wrong_secret_or_altered_body"],
    ),
    "no body": (b"", GOOD, ["body_empty"], ["body_empty"]),
    "gzip": (
        gzip.compress(RAW),
        GOOD,
        ["body_compressed", "wrong_secret_or_altered_body"],
        ["body_compressed"],
    ),
}
NO_REFUSALS_OF_A_SIGNATURE: dict[str, tuple[dict[str, Any], list[str]]] = {
    "GET": ({"method": "GET"}, []),
    "text": ({"headers": {**GOOD, "Content-Type": "text/plain"}}, []),
    "compressed": ({"headers": {**GOOD, "Content-Encoding": "gzip"}, "raw": gzip.compress(RAW)}, ["body_compressed"]),
    "no event": ({"raw": b"{}"}, []),
}


def receiver_of(*, debug: bool = False, **options: Any) -> tuple[WebhookReceiver, list[WebhookError]]:  # noqa: ANN401 - the receiver's own
    """Return a receiver that keeps what it is told of refusals."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the receiver 'default' has debug=True")
        receiver = WebhookReceiver(**{"secret": SECRET, "clock": lambda: float(NOW), "debug": debug, **options})
    rejected: list[WebhookError] = []

    @receiver.on_rejected
    def keep(error: WebhookError, _request: WebhookRequest) -> None:
        rejected.append(error)

    receiver.on("*")(lambda _event: None)
    return receiver, rejected


def findings_of(caplog: pytest.LogCaptureFixture) -> list[list[str]]:
    return [vars(record)["roovet"]["findings"] for record in caplog.records if "delivery.rejected" in record.message]


@both
@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("name", REFUSALS)
def test_the_log_and_the_hooks_are_told_the_same(
    answer: Answer,
    name: str,
    debug: bool,  # noqa: FBT001 - a case
    caplog: pytest.LogCaptureFixture,
) -> None:
    raw, headers, seen, searched = REFUSALS[name]
    receiver, rejected = receiver_of(debug=debug)
    answer(receiver, request_of(raw, headers))
    (error,) = rejected
    assert isinstance(error, VerificationError)
    assert error.diagnosis is not None
    assert list(error.diagnosis.codes) == (searched if debug else seen)
    assert error.diagnosis.verdict == "refused"
    assert findings_of(caplog) == [list(error.diagnosis.codes)]


@both
@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("name", NO_REFUSALS_OF_A_SIGNATURE)
def test_what_is_refused_for_something_else(
    answer: Answer,
    name: str,
    debug: bool,  # noqa: FBT001 - a case
    caplog: pytest.LogCaptureFixture,
) -> None:
    change, codes = NO_REFUSALS_OF_A_SIGNATURE[name]
    raw = change.get("raw", RAW)
    receiver, rejected = receiver_of(debug=debug)
    answer(receiver, request_of(raw, change.get("headers", headers_of(raw)), method=change.get("method", "POST")))
    (error,) = rejected
    assert findings_of(caplog) == [codes]
    assert (error.diagnosis is None) == (not codes)


@both
def test_no_answer_tells_a_cause(answer: Answer) -> None:
    told: set[tuple[int, tuple[tuple[bytes, bytes], ...], bytes]] = set()
    for debug in (False, True):
        for raw, headers, _, _ in REFUSALS.values():
            receiver, _ = receiver_of(debug=debug)
            response = answer(receiver, request_of(raw, headers))
            told.add((response.status, tuple(response.headers), response.body))
    ((status, _, body),) = told
    assert (status, json.loads(body)) == (400, REFUSED)


@both
@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_told_holds_no_secret_and_no_digest(
    answer: Answer, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    raw, headers, _, _ = REFUSALS[name]
    receiver, rejected = receiver_of(debug=True)
    answer(receiver, request_of(raw, headers))
    (error,) = rejected
    shown = f"{error} {error!r} {error.diagnosis} {pickle.dumps(error)!r} {caplog.text} {caplog.records}"
    right = sign(raw, SECRET, timestamp=NOW).partition("v1=")[2]
    for hidden in (SECRET, OTHER_SECRET, right, right[:32], SIGNATURE.partition("v1=")[2]):
        assert hidden not in shown


def test_a_diagnosis_travels_with_its_error_and_is_no_evidence() -> None:
    receiver, rejected = receiver_of()
    receiver.receive(request_of(RAW, headers_of(RAW, timestamp=NOW - 600)))
    twin = pickle.loads(pickle.dumps(rejected[0]))  # noqa: S301 - made here
    assert twin.diagnosis == rejected[0].diagnosis
    assert set(twin.evidence) == {"skew", "tolerance"}


@both
def test_a_guarded_view_is_told_as_well(answer: Answer) -> None:
    receiver, _ = receiver_of(debug=True)
    request = request_of(RAW + b"\n", GOOD)
    with pytest.raises(VerificationError) as caught:
        receiver.open(request) if answer is in_sync else asyncio.run(receiver.open_async(request))
    assert caught.value.diagnosis is not None
    assert caught.value.diagnosis.codes == ("body_trailing_newline",)


@both
def test_the_secrets_of_the_tenant_are_searched(answer: Answer) -> None:
    keys = Keyring([Secret(OTHER_SECRET, name="new"), Secret(SECRET, name="old", expires=NOW - 60)])
    receiver, rejected = receiver_of(debug=True, secret=lambda _request: Tenant("acme", keys))
    answer(receiver, request_of(RAW, GOOD))
    assert rejected[0].diagnosis is not None
    assert rejected[0].diagnosis.codes == ("secret_retired",)
    assert rejected[0].diagnosis.secret_name == "old"


def test_an_unknown_tenant_has_nothing_to_explain() -> None:
    receiver, rejected = receiver_of(debug=True, secret=lambda _request: None)
    receiver.receive(request_of(RAW, GOOD))
    assert rejected[0].code == "unknown_tenant"
    assert rejected[0].diagnosis is None


@both
def test_the_options_of_the_receiver_count(answer: Answer) -> None:
    cut = with_signature(SIGNATURE[:-32])
    receiver, rejected = receiver_of(debug=True, accept_truncated=True, tolerance=10)
    answer(receiver, request_of(RAW + b"\n", cut))
    answer(receiver, request_of(RAW, headers_of(RAW, timestamp=NOW - 11)))
    assert [error.diagnosis and error.diagnosis.codes for error in rejected] == [("body_trailing_newline",), ("stale",)]


def test_a_search_runs_off_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    from roovet_webhooks.explain import search  # noqa: PLC0415 - what a receiver loads late

    threads: list[threading.Thread] = []
    run = search.Search.run

    def noted(self: search.Search) -> search.Match | None:
        threads.append(threading.current_thread())
        return run(self)

    monkeypatch.setattr(search.Search, "run", noted)
    receiver, rejected = receiver_of(debug=True)
    request = request_of(RAW + b"\n", GOOD)
    in_async(receiver, request)
    in_sync(receiver, request)
    assert threads[0] is not threading.main_thread()
    assert threads[1] is threading.main_thread()

    async def in_thread(function: Callable[..., object], *arguments: object) -> object:
        called.append(function)
        return await asyncio.to_thread(function, *arguments)

    # A framework's own threads, where its adapter brings them.
    called: list[object] = []
    asyncio.run(receiver.receive_async(request, bridge=AsyncBridge(in_thread)))
    assert len(threads) == 3
    assert called
    assert all(error.diagnosis and error.diagnosis.codes == ("body_trailing_newline",) for error in rejected)


@both
@pytest.mark.parametrize(
    ("debug", "target"), [(False, "header.Reading"), (True, "search.Search")], ids=["look", "search"]
)
def test_a_fault_of_the_explanation_changes_no_answer(
    answer: Answer,
    debug: bool,  # noqa: FBT001 - a case
    target: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_arguments: object, **_options: object) -> None:
        message = "inside"
        raise RuntimeError(message)

    import roovet_webhooks.explain  # noqa: PLC0415 - what a receiver loads late

    monkeypatch.setattr(roovet_webhooks.explain, target.partition(".")[2], broken)
    receiver, rejected = receiver_of(debug=debug)
    raw, headers = (RAW + b"\n", GOOD) if debug else (RAW, with_signature("x"))
    response = answer(receiver, request_of(raw, headers))
    assert (response.status, json.loads(response.body)) == (400, REFUSED)
    assert rejected[0].diagnosis is None
    assert findings_of(caplog) == [[]]
    assert "receiver.error" in caplog.text


def test_debug_warns_whoever_turns_it_on() -> None:
    with pytest.warns(UserWarning, match="leave it out in production") as warned:
        WebhookReceiver(SECRET, debug=True)
    assert [warning.filename for warning in warned] == [__file__]


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print(*(name for name in sys.modules if 'roovet_webhooks.explain' in name))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60, text=True)  # noqa: S603 - our own interpreter
    return set(done.stdout.split())


RECEIVE = """
from roovet_webhooks import Signer, WebhookReceiver, WebhookRequest
receiver = WebhookReceiver("whsec_5f2b8c1e9a7d4036b1c2d3e4")
receiver.on("*")(lambda event: None)
raw = b'{"event":"a","id":"b","ts":1}'
headers = [(n.encode(), v.encode()) for n, v in Signer("whsec_5f2b8c1e9a7d4036b1c2d3e4").headers(raw).items()]
assert receiver.receive(WebhookRequest("POST", "/", headers, raw)).status == 200
"""


def test_who_refuses_nothing_loads_no_explanation() -> None:
    assert not modules_after("from roovet_webhooks import verify, sign")
    assert not modules_after(RECEIVE)
    assert modules_after(RECEIVE + 'receiver.receive(WebhookRequest("POST", "/", headers, b""))')
