"""Sign and verify: one verdict however a delivery comes in, and no word of a secret anywhere."""

from __future__ import annotations

import hmac
import math
import pickle
import traceback
from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import example, given, strategies as st
from support import NOW, OTHER_SECRET, SECRET, headers_of, payload

from roovet_webhooks import (
    ConfigurationError,
    DuplicateHeader,
    Event,
    EventValidationError,
    FutureTimestamp,
    InvalidEnvelope,
    InvalidSecretError,
    Keyring,
    MalformedSignature,
    MissingSignature,
    OrderCreated,
    Secret,
    SignatureMismatch,
    Signer,
    StaleTimestamp,
    TimestampHeaderMismatch,
    VerificationError,
    Verified,
    Verifier,
    WebhookError,
    construct_event,
    sign,
    verify,
)
from roovet_webhooks.signing.header import check_timestamp, parse_signature
from roovet_webhooks.signing.verifier import Verification
from signing.test_header import variants

if TYPE_CHECKING:
    from collections.abc import Callable

RAW = b'{"event":"order.created","id":"ord_123","ts":1762782800}'
HEADER = sign(RAW, SECRET, timestamp=NOW)
DIGEST = HEADER.split("v1=")[1]


def by_hand(raw: bytes, secret: str, t: bytes) -> str:
    """Compute the digest with the standard library."""
    return hmac.new(secret.encode(), t + b"." + raw, sha256).hexdigest()


# Headers of every kind that comes close to a good one.

times = st.one_of(
    st.just(str(NOW)),
    st.integers(NOW - 302, NOW + 302).map(str),
    st.sampled_from(
        ["0", "00", "", "-1", "1e3", f"0{NOW}", f" {NOW}", str(10**12), str(10**12 - 1), "\N{ARABIC-INDIC DIGIT ONE}"]
    ),
    st.integers(0, 10**13).map(str),
)


@st.composite
def near_valid(draw: st.DrawFn) -> tuple[bytes, str]:
    """Draw a body, and a header that is good, or a step or two away from it."""
    raw = draw(st.binary(max_size=60))
    t = draw(times)
    digest = by_hand(raw, draw(st.sampled_from([SECRET, SECRET, OTHER_SECRET])), t.encode())
    digests = st.one_of(
        st.just(digest),
        st.sampled_from([digest[:32], digest[:63], digest + "0", digest.upper(), digest[::-1], "0" * 64, "g" * 64, ""]),
    )
    items = [f"t={t}", f"v1={draw(digests)}"]
    items += (
        draw(
            st.lists(
                st.one_of(digests.map("v1={}".format), st.sampled_from(["v0=x", "v2=", "t=1", "", "v1"])), max_size=3
            )
        )
        if draw(st.booleans())
        else []
    )
    if draw(st.booleans()):
        items = draw(st.permutations(items))
    header = draw(st.sampled_from([",", ",", ",", ", ", ";"])).join(items)
    if draw(st.integers(0, 4)) == 0 and header:
        place = draw(st.integers(0, len(header) - 1))
        header = header[:place] + draw(st.characters()) + header[place + 1 :]
    return raw, header


def chunked(raw: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({min(cut, len(raw)) for cut in cuts} | {0, len(raw)})
    return [raw[begin:end] for begin, end in pairwise(places)]


def streamed(
    keyring: Keyring, chunks: list[bytes], header: str | bytes, *, truncated: bool, unsigned: str | None
) -> Verified:
    """Verify by the general way only."""
    signature = parse_signature(header, accept_truncated=truncated)
    check_timestamp(signature, NOW, 300, unsigned)
    verification = Verification(signature, keyring.active(NOW))
    for chunk in chunks:
        verification.update(chunk)
    return verification.finish()


def verdict(call: Callable[..., object], *arguments: object, **options: object) -> object:
    """Return the proof, or the class and the words of the refusal."""
    try:
        return call(*arguments, **options)
    except VerificationError as error:
        return type(error), str(error)


@given(near_valid(), st.lists(st.integers(0, 60), max_size=5), st.booleans(), st.booleans())
@example((RAW, HEADER), [1, 2], False, False)  # noqa: FBT003 - an example is positional
def test_the_fast_way_and_the_general_one_agree(
    delivery: tuple[bytes, str],
    cuts: list[int],
    truncated: bool,  # noqa: FBT001 - a generated case
    as_bytes: bool,  # noqa: FBT001 - a generated case
) -> None:
    raw, text = delivery
    header = text.encode("utf-8", "surrogatepass") if as_bytes else text
    single, other = Keyring([Secret(SECRET)]), Secret(OTHER_SECRET, name="other", expires=NOW)
    fast = verdict(Verifier(single, accept_truncated=truncated).verify, raw, header, now=NOW)
    assert fast == verdict(streamed, single, chunked(raw, cuts), header, truncated=truncated, unsigned=None)
    assert fast == verdict(verify, raw, header, SECRET, now=NOW, accept_truncated=truncated)
    # A keyring whose other secret is over takes the long way, with the same end.
    ring = Keyring([other, Secret(SECRET)])
    assert fast == verdict(Verifier(ring, accept_truncated=truncated).verify, raw, header, now=NOW)
    if isinstance(fast, Verified):
        # What is accepted is what the standard library computes over these bytes.
        t = str(fast.timestamp).encode()
        assert by_hand(raw, SECRET, t)[:32] in text
        assert fast == verdict(
            Verifier(single, accept_truncated=truncated).verify, raw, header, now=NOW, timestamp_header=t
        )


def test_a_header_one_character_away_is_refused_or_is_the_same_one_way_or_the_other() -> None:
    single = Keyring([Secret(SECRET)])
    verifier = Verifier(single)
    for header in (HEADER, f"{HEADER},v1={'0b' * 32}"):
        for variant in variants(header):
            fast = verdict(verifier.verify, RAW, variant, now=NOW)
            assert fast == verdict(verifier.verify, RAW, variant.encode("latin-1"), now=NOW), ascii(variant)
            slow = verdict(streamed, single, [RAW], variant.encode("latin-1"), truncated=False, unsigned=None)
            assert fast == slow, ascii(variant)
            if not variant.startswith(HEADER):
                assert not isinstance(fast, Verified), ascii(variant)


BODY = b'{"note":"s3cr3t-body"}'
REFUSING: dict[str, Callable[[], object]] = {
    "sign": lambda: sign(BODY, SECRET, timestamp=-1),
    "Signer.sign": lambda: Signer(SECRET).sign(BODY, timestamp=-1),
    "Signer.headers": lambda: Signer(SECRET).headers(BODY, timestamp=-1),
    "verify": lambda: verify(BODY, HEADER, SECRET, now=NOW),
    "verify of several": lambda: verify(BODY, HEADER, [SECRET], now=NOW),
    "Verifier.verify": lambda: Verifier(SECRET).verify(BODY, HEADER, now=NOW),
    "construct_event": lambda: construct_event(BODY, HEADER, SECRET, now=NOW),
    "construct_event of no event": lambda: construct_event(BODY, sign(BODY, SECRET, timestamp=NOW), SECRET, now=NOW),
}


@pytest.mark.parametrize("name", REFUSING)
def test_no_frame_of_a_refusal_holds_the_body(name: str) -> None:
    with pytest.raises((ValueError, WebhookError)) as caught:
        REFUSING[name]()
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
    ours = [frame for frame in frames if frame.f_globals["__name__"].startswith("roovet_webhooks")]
    assert ours
    assert "s3cr3t-body" not in str([frame.f_locals for frame in ours])
    assert SECRET not in str([frame.f_locals for frame in ours])


@given(near_valid())
def test_two_active_secrets_accept_what_either_does(delivery: tuple[bytes, str]) -> None:
    raw, header = delivery
    ring = Keyring([Secret(SECRET, name="a"), Secret(OTHER_SECRET, name="b")])
    both = verdict(Verifier(ring).verify, raw, header, now=NOW)
    one = verdict(Verifier(Secret(SECRET, name="a")).verify, raw, header, now=NOW)
    other = verdict(Verifier(Secret(OTHER_SECRET, name="b")).verify, raw, header, now=NOW)
    if isinstance(one, Verified):
        assert both == one
    elif isinstance(other, Verified):
        assert both == other
    else:
        assert isinstance(both, tuple)
        assert both[0] is cast("tuple[object, ...]", one)[0]


headers = st.one_of(st.none(), st.text(), st.binary(), near_valid().map(lambda delivery: delivery[1]), st.just(HEADER))


@given(
    st.one_of(st.binary(), st.just(RAW)),
    headers,
    st.one_of(st.none(), st.text(), st.binary(), st.just(str(NOW))),
    st.one_of(st.floats(), st.just(float(NOW))),
    st.booleans(),
)
def test_verify_is_total(
    raw: bytes,
    header: str | bytes | None,
    unsigned: str | bytes | None,
    now: float,
    truncated: bool,  # noqa: FBT001 - a generated case
) -> None:
    try:
        proof = verify(raw, header, SECRET, now=now, timestamp_header=unsigned, accept_truncated=truncated)
    except VerificationError as error:
        told = f"{error} {error!r} {dict(error.evidence)} {pickle.dumps(error)!r}"
        assert SECRET not in told
        assert by_hand(raw, SECRET, str(NOW).encode()) not in told
    else:
        assert isinstance(proof, Verified)
        assert abs(proof.timestamp - now) <= 300


@given(st.binary(max_size=5000), st.integers(0, 10**12 - 1))
def test_what_we_sign_is_what_the_standard_library_computes(raw: bytes, moment: int) -> None:
    header = sign(raw, SECRET, timestamp=moment)
    assert header == f"t={moment},v1={by_hand(raw, SECRET, str(moment).encode())}"
    assert verify(raw, header, SECRET, now=moment) == (moment, "default")


def test_a_truncated_digest_is_refused_unless_asked_for() -> None:
    cut = HEADER[:-32]
    calls: list[Callable[..., Any]] = [
        lambda secret, **options: verify(RAW, cut, secret, now=NOW, **options),
        lambda secret, **options: Verifier(secret, **options).verify(RAW, cut, now=NOW),
        lambda secret, **options: construct_event(RAW, cut, secret, now=NOW, **options),
    ]
    ring = Keyring([Secret(OTHER_SECRET, name="other"), Secret(SECRET, name="mine")])
    for call in calls:
        for secret in (SECRET, Secret(SECRET), [SECRET], [OTHER_SECRET, SECRET], ring):
            with pytest.raises(MalformedSignature, match="accept_truncated"):
                call(secret)
            call(secret, accept_truncated=True)


@pytest.mark.parametrize("secret", [SECRET, [SECRET], [OTHER_SECRET, SECRET]], ids=["one", "a list", "two"])
def test_the_tolerance_reaches_every_form_of_a_secret(secret: Any) -> None:  # noqa: ANN401 - any form is the point
    for call in (verify, construct_event):
        call(RAW, HEADER, secret, now=NOW + 300)
        call(RAW, HEADER, secret, now=NOW + 1000, tolerance=1000)
        with pytest.raises(StaleTimestamp):
            call(RAW, HEADER, secret, now=NOW + 301)
        with pytest.raises(StaleTimestamp):
            call(RAW, HEADER, secret, now=NOW + 6, tolerance=5)


def test_what_signs_and_verifies_does_so_again_and_again() -> None:
    signer, secret = Signer(SECRET), Secret(SECRET)
    keyrings = [Keyring([secret]), Keyring([secret, Secret(OTHER_SECRET, name="other")])]
    for _ in range(3):
        assert signer.sign(RAW, timestamp=NOW) == HEADER
        assert sign(RAW, secret, timestamp=NOW) == HEADER
        for keyring in keyrings:
            assert Verifier(keyring).verify(RAW, HEADER, now=NOW).timestamp == NOW
            assert streamed(keyring, [RAW], HEADER, truncated=False, unsigned=None).timestamp == NOW


def test_the_system_clock_is_the_default() -> None:
    assert verify(RAW, sign(RAW, SECRET), SECRET).secret_name == "default"
    with pytest.raises(StaleTimestamp):
        verify(RAW, sign(RAW, SECRET, timestamp=1), SECRET)


@pytest.mark.parametrize("tolerance", [0, 1, 300, 300.0, 0.5])
def test_the_tolerance_is_two_sided_and_includes_its_edge(tolerance: float) -> None:
    verifier = Verifier(SECRET, tolerance=tolerance)
    for now in (NOW - tolerance, NOW, NOW + tolerance):
        assert verifier.verify(RAW, HEADER, now=now) == verify(RAW, HEADER, SECRET, tolerance=tolerance, now=now)
    with pytest.raises(StaleTimestamp) as stale:
        verifier.verify(RAW, HEADER, now=NOW + tolerance + 0.001)
    assert stale.value.skew == pytest.approx(-tolerance - 0.001, abs=1e-6)
    with pytest.raises(FutureTimestamp):
        verifier.verify(RAW, HEADER, now=NOW - tolerance - 0.001)


@pytest.mark.parametrize("tolerance", [-1, math.inf, math.nan, "300", None])
def test_a_tolerance_without_bound_or_sense_is_refused(tolerance: object) -> None:
    with pytest.raises(ConfigurationError, match="tolerance must be a number of seconds"):
        Verifier(SECRET, tolerance=cast("float", tolerance))


def test_digits_without_a_letter_go_the_long_way_and_are_verified() -> None:
    header = f"t={NOW},v1={'1' * 64}"
    with pytest.raises(SignatureMismatch):
        verify(RAW, header, SECRET, now=NOW)


def test_t_of_zero_is_verified() -> None:
    assert verify(RAW, sign(RAW, SECRET, timestamp=0), SECRET, now=200).timestamp == 0


def test_the_mac_covers_the_literal_text_of_t() -> None:
    forged = f"t=0{NOW},v1={by_hand(RAW, SECRET, b'0%d' % NOW)}"
    with pytest.raises(MalformedSignature):
        verify(RAW, forged, SECRET, now=NOW)


def test_any_of_several_digests_may_match() -> None:
    header = f"t={NOW},v1={'0' * 64},v1={DIGEST}"
    assert verify(RAW, header, SECRET, now=NOW).timestamp == NOW


def test_which_secret_matched() -> None:
    ring = Keyring([Secret(OTHER_SECRET, name="new"), Secret(SECRET, name="old")])
    assert verify(RAW, HEADER, ring, now=NOW).secret_name == "old"
    assert verify(RAW, HEADER, [OTHER_SECRET, SECRET], now=NOW).secret_name == "secret-2"
    # Roovet may sign with both while it rotates: the first of ours that matches is named.
    both = f"{HEADER},v1={by_hand(RAW, OTHER_SECRET, b'%d' % NOW)}"
    assert verify(RAW, both, ring, now=NOW).secret_name == "new"


def test_a_mismatch_names_the_secrets_tried() -> None:
    ring = Keyring(
        [Secret(OTHER_SECRET, name="a"), Secret(SECRET + "x", name="b"), Secret(SECRET, name="c", expires=NOW)]
    )
    with pytest.raises(SignatureMismatch, match=r"under any active secret: a, b$") as caught:
        verify(RAW, HEADER, ring, now=NOW)
    assert caught.value.secrets_tried == ("a", "b")


def test_no_active_secret() -> None:
    ring = Keyring([Secret(SECRET, expires=NOW)])
    with pytest.raises(SignatureMismatch, match="there is none"):
        verify(RAW, HEADER, ring, now=NOW)
    with pytest.raises(ConfigurationError, match=r"no secret of Keyring\('default'\) is active"):
        sign(RAW, ring, timestamp=NOW)


@pytest.mark.parametrize("unsigned", [str(NOW), str(NOW).encode()], ids=["str", "bytes"])
def test_the_unsigned_timestamp_agrees(unsigned: str | bytes) -> None:
    assert verify(RAW, HEADER, SECRET, now=NOW, timestamp_header=unsigned).timestamp == NOW


@pytest.mark.parametrize("unsigned", [str(NOW + 1), "", f"0{NOW}", b"\xff"], ids=ascii)
def test_the_unsigned_timestamp_contradicts(unsigned: str | bytes) -> None:
    with pytest.raises(TimestampHeaderMismatch):
        verify(RAW, HEADER, SECRET, now=NOW, timestamp_header=unsigned)


@pytest.mark.parametrize(
    ("raw", "hint"),
    [
        (RAW.decode(), "not str: decoding may have changed it"),
        ({"event": "order.created"}, "not dict: it is already parsed"),
        ([], "not list: it is already parsed"),
        (None, "not NoneType: only the bytes that arrived"),
        (bytearray(RAW), "not bytearray: only the bytes that arrived"),
        (memoryview(RAW), "not memoryview"),
    ],
    ids=["str", "dict", "list", "None", "bytearray", "memoryview"],
)
def test_what_is_not_the_raw_body_is_a_type_error(raw: object, hint: str) -> None:
    body = cast("bytes", raw)
    for call in (
        lambda: verify(body, HEADER, SECRET, now=NOW),
        lambda: sign(body, SECRET),
        lambda: construct_event(body, HEADER, SECRET, now=NOW),
    ):
        with pytest.raises(TypeError, match=hint):
            call()


@pytest.mark.parametrize("moment", [-1, 10**12, 1.5, "1762782800", math.nan])
def test_a_moment_that_the_grammar_has_no_place_for_is_not_signed(moment: object) -> None:
    with pytest.raises(ValueError, match="the timestamp to sign must be Unix seconds"):
        sign(RAW, SECRET, timestamp=cast("int", moment))


def test_the_headers_of_a_delivery() -> None:
    assert Signer(SECRET).headers(RAW, timestamp=NOW) == {
        "Content-Type": "application/json",
        "X-Roovet-Signature": HEADER,
        "X-Roovet-Timestamp": str(NOW),
    }


def test_what_holds_a_secret_shows_its_name() -> None:
    assert repr(Signer(Secret(SECRET, name="n"))) == "Signer(Keyring('n'))"
    assert repr(Verifier(Secret(SECRET, name="n"), tolerance=60)) == "Verifier(Keyring('n'), tolerance=60)"


@pytest.mark.parametrize(
    "secret",
    ["", "rvpk_live_0123456789abcdef0123", " " * 20, None, 5],
    ids=["empty", "API key", "blank", "none", "number"],
)
def test_a_bad_secret_is_refused_before_anything_is_verified(secret: object) -> None:
    for call in (verify, construct_event):
        with pytest.raises(InvalidSecretError):
            call(RAW, HEADER, cast("str", secret))
    with pytest.raises(InvalidSecretError):
        sign(RAW, cast("str", secret))


def test_no_frame_of_a_refusal_holds_the_secret_or_the_expected_digest() -> None:
    tampered = RAW.replace(b"ord_123", b"ord_124")
    expected = by_hand(tampered, SECRET, b"%d" % NOW)
    # Built here, so that this frame's own locals hold neither text.
    with pytest.raises(SignatureMismatch) as caught:
        _verify_elsewhere(tampered)
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)][2:]
    held = " ".join(repr(value) for frame in frames for value in frame.f_locals.values())
    assert len(frames) >= 2
    assert "tampered" in shown
    for secret in (SECRET, SECRET.encode().hex(), expected, bytes.fromhex(expected)):
        assert str(secret) not in held


def _verify_elsewhere(tampered: bytes) -> None:
    verify(tampered, HEADER, SECRET, now=NOW)


def test_one_verifier_serves_many_deliveries() -> None:
    verifier = Verifier(SECRET)
    for _ in range(50):
        raw = payload()
        assert verifier.verify(raw, sign(raw, SECRET, timestamp=NOW), now=NOW).timestamp == NOW
        with pytest.raises(SignatureMismatch):
            verifier.verify(raw + b" ", sign(raw, SECRET, timestamp=NOW), now=NOW)


class TestConstructEvent:
    def test_an_event(self) -> None:
        event = construct_event(RAW, HEADER, SECRET, now=NOW)
        assert (type(event), event.event, event.id, event.ts) == (Event, "order.created", "ord_123", NOW)

    def test_a_type(self) -> None:
        assert type(construct_event(RAW, HEADER, SECRET, now=NOW, type=OrderCreated)) is OrderCreated

    @pytest.mark.parametrize(
        "given_headers",
        [
            HEADER,
            HEADER.encode(),
            headers_of(RAW),
            {name.lower(): value for name, value in headers_of(RAW).items()},
            {name.upper(): value for name, value in headers_of(RAW).items()},
            list(headers_of(RAW).items()),
            [(name.lower().encode(), value.encode()) for name, value in headers_of(RAW).items()],
            {"X-Roovet-Signature": HEADER},
            ((name, value) for name, value in [("host", "example.org"), ("x-roovet-signature", HEADER)]),
        ],
        ids=["text", "bytes", "mapping", "lower", "upper", "pairs", "byte pairs", "without timestamp", "generator"],
    )
    def test_headers_come_in_any_form(self, given_headers: Any) -> None:  # noqa: ANN401 - any form is the point
        # A generator is read once: each case calls once.
        assert construct_event(RAW, given_headers, SECRET, now=NOW).id == "ord_123"

    @pytest.mark.parametrize("given_headers", [None, "", {}, [], {"content-type": "application/json"}], ids=repr)
    def test_without_a_signature(self, given_headers: Any) -> None:  # noqa: ANN401 - any form is the point
        with pytest.raises(MissingSignature):
            construct_event(RAW, given_headers, SECRET, now=NOW)

    @pytest.mark.parametrize("name", ["X-Roovet-Signature", "x-roovet-timestamp"])
    def test_a_header_twice(self, name: str) -> None:
        pairs = [*headers_of(RAW).items(), (name, str(NOW))]
        with pytest.raises(DuplicateHeader, match="more than once"):
            construct_event(RAW, pairs, SECRET, now=NOW)

    def test_the_timestamp_header_counts(self) -> None:
        with pytest.raises(TimestampHeaderMismatch):
            construct_event(RAW, {**headers_of(RAW), "X-Roovet-Timestamp": "1"}, SECRET, now=NOW)

    def test_nothing_is_parsed_before_it_is_verified(self) -> None:
        with pytest.raises(SignatureMismatch):
            construct_event(b"not json", HEADER, SECRET, now=NOW)

    def test_options_reach_verify(self) -> None:
        with pytest.raises(StaleTimestamp):
            construct_event(RAW, HEADER, SECRET, now=NOW + 10, tolerance=9)
        assert construct_event(RAW, HEADER[:-32], SECRET, now=NOW, accept_truncated=True).ts == NOW

    def test_a_body_that_is_no_event(self) -> None:
        raw = b'{"event":"a","id":""}'
        with pytest.raises(InvalidEnvelope) as caught:
            construct_event(raw, sign(raw, SECRET, timestamp=NOW), SECRET, now=NOW)
        assert caught.value.param == "id"

    def test_an_event_that_the_type_cannot_hold(self) -> None:
        class Amount(Event, event="order.created"):
            amount: int

        with pytest.raises(EventValidationError, match="missing required field"):
            construct_event(RAW, HEADER, SECRET, now=NOW, type=Amount)


@pytest.mark.parametrize("digit", ["g", "G", "-", "é"])
def test_a_digest_that_is_not_hex_is_malformed_however_it_looks(digit: str) -> None:
    with pytest.raises(MalformedSignature):
        verify(b"{}", f"t={NOW},v1={digit * 64}", SECRET, now=NOW)
    with pytest.raises(MalformedSignature):
        verify(b"{}", f"t={NOW},v1={digit + 'a' * 63}", SECRET, now=NOW)
