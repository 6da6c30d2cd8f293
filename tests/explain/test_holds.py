"""What holds of `explain` whatever it is given: it agrees with `verify`, ends, stays small, and shows no secret."""

from __future__ import annotations

import base64
import gzip
import json
import pickle
import traceback
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, strategies as st
from support import NOW, OTHER_SECRET, SECRET, headers_of

from explain.test_explain import BASE64_SECRET, CASES, GENUINE, HEX_SECRET, RAW, SEVERAL, Case, digest_of, sent, signed
from roovet_webhooks import (
    ConfigurationError,
    Keyring,
    Secret,
    SignatureMismatch,
    UnsupportedMediaType,
    VerificationError,
    errors,
    sign,
    verify,
)
from roovet_webhooks.explain import CODES, explain, explain_refusal
from roovet_webhooks.explain.forms import HUGE, LARGE
from roovet_webhooks.explain.search import Search
from roovet_webhooks.explain.secrets import hold
from roovet_webhooks.signing.header import signature_of
from roovet_webhooks.signing.mac import other

if TYPE_CHECKING:
    from collections.abc import Callable

ALL = {**CASES, **SEVERAL}


# It agrees with verify

BODIES = st.sampled_from([RAW, RAW + b"\n", b"", b"{}", b" ", b"\xff\xfe{\x00"]) | st.binary(max_size=40)
SIGNED = st.builds(sign, BODIES, st.sampled_from([SECRET, OTHER_SECRET]), timestamp=st.integers(NOW - 9, NOW + 9))
CUT = st.builds(lambda header, end: header[:end], SIGNED, st.integers(0, 80))
JOINED = st.lists(SIGNED | st.sampled_from(["t=1", "v1=a", "v2=b", "V1=" + "a" * 64, "", " ", ";"]), max_size=4)
HEADER = SIGNED | CUT | SIGNED.map(str.upper) | JOINED.map(",".join) | st.text(max_size=60)
NAME = st.sampled_from(["X-Roovet-Signature", "x-roovet-timestamp", "HTTP_X_ROOVET_SIGNATURE", "Content-Encoding"])
VALUE = HEADER | st.sampled_from([str(NOW), str(NOW * 1000), "", "gzip"])
ENCODED = VALUE.map(lambda value: value.encode("utf-8", "surrogatepass"))
HEADERS = (
    HEADER | ENCODED | st.none() | st.dictionaries(NAME, VALUE) | st.lists(st.tuples(NAME, VALUE | ENCODED), max_size=4)
)
ONE_SECRET = st.builds(
    lambda value, name, begin, end: Secret(value, name=name, not_before=begin, expires=end),
    st.sampled_from([SECRET, OTHER_SECRET]),
    st.text(min_size=1, max_size=3),
    st.none() | st.integers(NOW - 20, NOW + 20),
    st.none() | st.integers(NOW - 20, NOW + 20),
)
KEYS = st.just(SECRET) | ONE_SECRET | st.lists(ONE_SECRET, min_size=1, max_size=3, unique_by=lambda secret: secret.name)


@given(
    raw=BODIES,
    headers=HEADERS,
    secret=KEYS,
    now=st.integers(NOW - 20, NOW + 20) | st.floats(),
    tolerance=st.sampled_from([0, 5, 300.0]),
    accept_truncated=st.booleans(),
)
def test_the_verdict_is_that_of_verify(  # noqa: PLR0913, PLR0917 - the arguments of verify
    raw: bytes,
    headers: Any,  # noqa: ANN401 - whatever headers come as
    secret: Any,  # noqa: ANN401 - a text, a Secret or several
    now: float,
    tolerance: float,
    accept_truncated: bool,  # noqa: FBT001 - drawn
) -> None:
    found = explain(raw, headers, secret, now=now, tolerance=tolerance, accept_truncated=accept_truncated)
    try:
        signature, timestamp = signature_of(headers)
        proof = verify(
            raw,
            signature,
            secret,
            now=now,
            tolerance=tolerance,
            accept_truncated=accept_truncated,
            timestamp_header=timestamp,
        )
    except VerificationError as error:
        proof, refusal = None, error
    if proof is not None:
        assert (found.verdict, found.codes, found.secret_name) == ("verified", ("ok",), proof.secret_name)
    else:
        assert found.verdict == "refused"
        assert "ok" not in found.codes
        # The header alone tells as much, but for what only the body can.
        seen = explain_refusal(refusal, headers, raw, now=now, tolerance=tolerance, accept_truncated=accept_truncated)
        assert seen is not None
        assert isinstance(refusal, SignatureMismatch) or set(seen.codes) <= set(found.codes)
    assert found.findings
    assert all(finding.code in CODES for finding in found.findings)
    json.dumps([dict(finding.evidence) for finding in found.findings], allow_nan=False)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=50) | st.binary(max_size=50) | HEADER,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=20) | NAME, inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.filterwarnings("ignore:the signing secret .* or more are recommended")
@given(raw=st.binary(max_size=60), headers=ANYTHING, secret=ANYTHING | st.text(min_size=20), now=ANYTHING)
def test_whatever_it_is_given_it_answers_or_says_what_is_wrong(
    raw: bytes,
    headers: Any,  # noqa: ANN401 - anything
    secret: Any,  # noqa: ANN401 - anything
    now: Any,  # noqa: ANN401 - anything
) -> None:
    try:
        found = explain(raw, headers, secret, now=now)
    except ConfigurationError as error:
        assert str(error)  # noqa: PT017 - raising is one of two right answers
    else:
        assert found.findings


# It shows no secret, and no digest that a body would need


def forms_of(value: bytes) -> set[str]:
    """Return a secret or a digest as it could be shown."""
    return {
        value.decode("latin-1"),
        repr(value)[2:-1],
        value.hex(),
        value.hex().upper(),
        base64.b64encode(value).decode().rstrip("="),
        base64.urlsafe_b64encode(value).decode().rstrip("="),
    }


SECRETS = {
    form
    for secret in (SECRET, SECRET[:20], OTHER_SECRET, HEX_SECRET, BASE64_SECRET, SECRET.removeprefix("whsec_"))
    for value in (secret.encode(), *([bytes.fromhex(secret)] if secret == HEX_SECRET else []))
    for form in forms_of(value)
}


def assert_silent(shown: str, case: Case) -> None:
    for secret in SECRETS:
        assert secret not in shown
    right = bytes.fromhex(digest_of(b"%d." % NOW + case.raw))
    for form in forms_of(right) | forms_of(right[:16]):
        assert form not in shown


@pytest.mark.parametrize("case", [GENUINE, *ALL.values()], ids=["genuine", *ALL])
def test_nothing_that_is_found_shows_a_secret_or_a_digest(case: Case) -> None:
    found = case.explained()
    parts = [repr(found), str(found), *(f"{finding} {dict(finding.evidence)}" for finding in found.findings)]
    pickled = pickle.dumps(found)
    assert pickle.loads(pickled) == found  # noqa: S301 - made one line above
    assert_silent("\n".join([*parts, pickled.decode("latin-1")]), case)


ALTERED = Case(codes=(), raw=b"{}")


def frames_of(error: BaseException) -> str:
    """Return what a crash report says of our own frames, their variables included."""
    report = traceback.TracebackException.from_exception(error, capture_locals=True)
    own = [frame for frame in report.stack if "roovet_webhooks" in frame.filename]
    assert own
    return "\n".join(f"{frame.name} {frame.locals}" for frame in own) + str(error)


@pytest.mark.parametrize(
    ("raw", "secret", "options"),
    [
        ("no bytes", SECRET, {}),
        (b"{}", [SECRET, "", OTHER_SECRET], {}),
        (b"{}", SECRET, {"now": "today"}),
        (b"{}", SECRET, {"tolerance": -1}),
        (b"{}", [Secret(SECRET), Secret(OTHER_SECRET)], {}),
        (b"{}", f'"{SECRET}"', {"tolerance": float("nan")}),
        # The suite makes errors of warnings.
        (b"{}", SECRET[:20], {}),
    ],
    ids=["raw", "secret", "now", "tolerance", "names", "quoted", "warned of"],
)
def test_no_traceback_shows_a_secret(raw: Any, secret: Any, options: dict[str, Any]) -> None:  # noqa: ANN401 - bad ones
    with pytest.raises((ConfigurationError, TypeError, UserWarning)) as caught:
        explain(raw, headers_of(RAW), secret, **options)
    assert_silent(frames_of(caught.value), ALTERED)


@pytest.mark.parametrize(
    "secret",
    [SECRET, f"{SECRET}\n", [SECRET, OTHER_SECRET], Keyring([SECRET])],
    ids=["text", "unstripped", "list", "keyring"],
)
@pytest.mark.parametrize("step", ["run", "_agreed", "_near_keys"])
def test_a_fault_of_ours_shows_no_secret_either(
    step: str,
    secret: Any,  # noqa: ANN401 - in any form
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(_self: Search, *_arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Search, step, broken)
    with pytest.raises(MemoryError) as caught:
        explain(b"{}", headers_of(RAW), secret, now=NOW)
    assert_silent(frames_of(caught.value), ALTERED)


def test_a_key_shows_its_name_and_refuses_to_be_pickled() -> None:
    (key,) = hold([Secret(SECRET, name="live")], NOW).keys
    assert repr(key) == "Key('live')"
    for near in key.near(thorough=True):
        assert repr(near) == "Key('live')"
    with pytest.raises(TypeError, match="refuses to be pickled"):
        pickle.dumps(key)


# It ends, and stays small

HOSTILE: dict[str, Callable[[], bytes]] = {
    "nested deep": lambda: b"[" * 100_000,
    "nested as deep as can be read": lambda: b"[" * 960 + b"]" * 960,
    "objects nested": lambda: b'{"a":' * 900 + b"1" + b"}" * 900,
    "wide and deep": lambda: b"[" * 500 + b",".join([b"1"] * 7500) + b"]" * 500,
    "long integer": lambda: b"[" + b"9" * 10_000 + b"]",
    "long number": lambda: b"[1e" + b"9" * 10_000 + b"]",
    "no number": lambda: b'{"ts":NaN}',
    "names twice": lambda: b'{"event":"a","event":"b","ts":1,"ts":2}',
    "times that are none": lambda: b'{"ts":-1}',
    "a time that is text": lambda: b'{"ts":"1762782800"}',
    "half a surrogate": lambda: b'["\\ud83d"]',
    "half a surrogate, encoded": lambda: b'["\xed\xa0\xbd"]',
    "NULs": lambda: b"\0" * 5000,
    "odd UTF-16": lambda: b"\xff\xfe\x00",
    "half a surrogate in UTF-16": lambda: b"\xff\xfe\x3d\xd8",
    "a bomb": lambda: gzip.compress(bytes(64 * 1_048_576)),
    "a bomb in zlib's clothes": lambda: b"\x78\x9c" + b"\xff" * 5000,
    "gzip cut short": lambda: gzip.compress(RAW)[:-9],
    "characters without end": lambda: json.dumps([chr(0x4E00 + n) for n in range(2000)], ensure_ascii=False).encode(),
    "white space": lambda: b" " * 20_000,
    "base64 of nothing": lambda: b"====",
    "base64 with a fault": lambda: b"QUJD=QUJD",
    "base64 of odd length": lambda: b"QUJDR",
    "a scalar": lambda: b"1",
    "slashes": lambda: b'["' + b"\\/" * 5000 + b'"]',
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_body_costs_little(make: Callable[[], bytes]) -> None:
    raw = make()
    tracemalloc.start()
    try:
        found = explain(raw, headers_of(RAW), SECRET, now=NOW)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.codes[-1] == "wrong_secret_or_altered_body" or found.codes == ("body_empty",)
    assert peak < 16 * 1_048_576


HOSTILE_HEADERS = {
    "commas": b"," * 1_000_000,
    "times": b"t=%d," * 100_000 % tuple(range(100_000)),
    "digests": b"t=1," + b"v1=" + b"A" * 64 + (b",v1=" + b"A" * 64) * 10_000,
    "white space": b" " * 1_000_000 + b"t=1",
    "keys": b"t " * 500_000,
    "equals": b"=" * 1_000_000,
}


@pytest.mark.parametrize("header", HOSTILE_HEADERS.values(), ids=HOSTILE_HEADERS)
def test_a_hostile_header_ends_soon(header: bytes) -> None:
    # Whatever would grow by the square of its length would take until the timeout.
    lines = [(b"X-Roovet-Signature", header)] * 100
    for headers in (lines[:1], lines):
        assert explain(RAW, headers, SECRET, now=NOW).verdict == "refused"
        error = errors.MalformedSignature("x")
        assert explain_refusal(error, headers, RAW, now=NOW, tolerance=300, accept_truncated=False) is not None


@pytest.mark.parametrize("deep", ["text", "order"])
def test_what_can_be_read_and_not_be_written(deep: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_deep(*_arguments: object, **options: object) -> bytes:
        if deep == "text" or options.get("order"):
            raise RecursionError
        return b"[]"

    monkeypatch.setattr("msgspec.json.encode", too_deep)
    assert explain(b"[1]", headers_of(RAW), SECRET, now=NOW).codes == ("wrong_secret_or_altered_body",)


# A large body is tried in the likely forms

ROWS = {
    "event": "order.created",
    "id": "ord_1",
    "ts": NOW,
    "rows": [{"url": f"https://example.org/{n}", "note": "Grüße", "amount": n} for n in range(LARGE // 40)],
}
COMPACT = json.dumps(ROWS, separators=(",", ":")).encode()
LIKELY = {
    "compact, ASCII-escaped, slashes unescaped": COMPACT,
    "compact, ASCII-escaped, slashes escaped": COMPACT.replace(b"/", b"\\/"),
    "compact, UTF-8, slashes unescaped": json.dumps(ROWS, separators=(",", ":"), ensure_ascii=False).encode(),
    "spaced, ASCII-escaped, slashes unescaped": json.dumps(ROWS).encode(),
    "compact, UTF-8, slashes unescaped, keys sorted": json.dumps(
        ROWS, separators=(",", ":"), ensure_ascii=False, sort_keys=True
    ).encode(),
}


@pytest.mark.parametrize("form", LIKELY)
def test_the_likely_forms_of_a_large_body(form: str) -> None:
    held = json.dumps(ROWS, indent=2, ensure_ascii=False).encode()
    assert len(COMPACT) > LARGE
    found = explain(held, headers_of(LIKELY[form]), SECRET, now=NOW)
    assert found.codes == ("body_reserialized",)
    assert found.findings[0].evidence["form"] == form


@pytest.mark.parametrize(
    ("held", "signed", "code"),
    [
        (COMPACT + b"\n", COMPACT, "body_trailing_newline"),
        (COMPACT, b"\n" + COMPACT, "body_trimmed"),
        (b"\xef\xbb\xbf" + COMPACT, COMPACT, "body_bom"),
        (base64.b64encode(COMPACT), COMPACT, "body_base64"),
        (gzip.compress(COMPACT), COMPACT, "body_compressed"),
        (COMPACT, COMPACT.replace(b"Gr", b"gr"), "wrong_secret_or_altered_body"),
    ],
    ids=["line break", "trimmed", "mark", "base64", "gzip", "altered"],
)
def test_the_likely_mistakes_with_a_large_body(held: bytes, signed: bytes, code: str) -> None:
    assert explain(held, headers_of(signed), SECRET, now=NOW).codes == (code,)


# Of a huge one, the likely mistakes are tried

ENORMOUS = json.dumps({**ROWS, "padding": "x" * HUGE}, separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("held", "headers", "secret", "code"),
    [
        (ENORMOUS + b"\n", headers_of(ENORMOUS), SECRET, "body_trailing_newline"),
        (b"\n" + ENORMOUS, headers_of(ENORMOUS), SECRET, "body_trimmed"),
        (b"\xef\xbb\xbf" + ENORMOUS, headers_of(ENORMOUS), SECRET, "body_bom"),
        (ENORMOUS.decode().encode("latin-1"), headers_of(ENORMOUS), SECRET, "body_reencoded"),
        (ENORMOUS.decode("latin-1").encode(), headers_of(ENORMOUS), SECRET, "body_reencoded"),
        (json.dumps(json.loads(ENORMOUS)).encode(), headers_of(ENORMOUS), SECRET, "body_reserialized"),
        (ENORMOUS, sent(ENORMOUS, f"{SECRET}\n"), SECRET, "secret_has_whitespace"),
        (ENORMOUS, sent(ENORMOUS, f'"{SECRET}"'), SECRET, "secret_is_quoted"),
        (ENORMOUS, headers_of(ENORMOUS), [OTHER_SECRET, Secret(SECRET, name="old", expires=NOW)], "secret_retired"),
        (ENORMOUS, signed(digest_of(ENORMOUS)), SECRET, "timestamp_not_signed"),
        (ENORMOUS, signed(digest_of(b"%d" % NOW + ENORMOUS)), SECRET, "joiner_wrong"),
        (ENORMOUS, signed(digest_of(b"%d." % NOW + ENORMOUS), NOW + 7), SECRET, "timestamp_altered"),
        (ENORMOUS, headers_of(ENORMOUS), OTHER_SECRET, "wrong_secret_or_altered_body"),
    ],
    ids=[
        "line break",
        "white space before it",
        "mark",
        "encoded as Latin-1",
        "decoded as Latin-1",
        "written again",
        "secret with a line break",
        "secret in quotes",
        "secret retired",
        "body alone",
        "joined with nothing",
        "time of the event",
        "other secret",
    ],
)
def test_the_likely_mistakes_with_a_huge_body(
    held: bytes,
    headers: dict[str, str],
    secret: Any,  # noqa: ANN401 - a text or several secrets
    code: str,
) -> None:
    assert explain(held, headers, secret, now=NOW).codes == (code,)


# What belongs together


def test_one_fact_has_one_code() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, VerificationError)]
    told = {kind.code for kind in kinds if kind.code in CODES}
    # What explain looks into has no code of its own; the others are families.
    assert {kind.code for kind in kinds} - told == {
        "signature_mismatch",
        "unknown_tenant",
        "verification_failed",
        "timestamp_error",
    }


@pytest.mark.parametrize("code", CODES)
def test_every_code_says_what_it_means_and_what_to_do(code: str) -> None:
    assert code.isidentifier()
    assert code.islower()
    for sentence in CODES[code]:
        assert sentence.endswith(".")
        assert "|" not in sentence  # it stands in a table


def test_an_algorithm_that_the_library_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    # As OpenSSL in FIPS mode refuses MD5.
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - nothing else here needs it

    def refuse(*_arguments: object) -> None:
        message = "no MD5"
        raise UnsupportedAlgorithm(message)

    monkeypatch.setattr("roovet_webhooks.signing.mac.HMAC", refuse)
    assert other(b"key", 16) is None


@pytest.mark.parametrize(
    ("error", "headers", "codes"),
    [
        (errors.MissingSignature("x"), {}, ("missing_signature",)),
        (errors.StaleTimestamp("x", skew=-600, tolerance=300), headers_of(RAW, timestamp=NOW - 600), ("stale",)),
        (SignatureMismatch("x"), headers_of(RAW), ("wrong_secret_or_altered_body",)),
        (UnsupportedMediaType("x"), {"Content-Encoding": "gzip"}, ("body_compressed",)),
        (UnsupportedMediaType("x"), {"Content-Encoding": "identity", "Content-Type": "text/plain"}, None),
        (errors.UnknownTenant("x"), headers_of(RAW), None),
        (errors.PayloadTooLarge("x", limit=1), {}, None),
        (errors.InboxFull("x"), {}, None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_is_plain_to_see_of_a_refusal(
    error: errors.WebhookError, headers: dict[str, str], codes: tuple[str, ...] | None
) -> None:
    seen = explain_refusal(error, headers, RAW, now=NOW, tolerance=300.0, accept_truncated=False)
    assert (seen and seen.codes) == codes
    assert seen is None or seen.verdict == "refused"
