"""Secrets never show, bad ones are refused with a reason, and keyrings rotate."""

from __future__ import annotations

import copy
import pickle
import string
import sys
import traceback
import warnings
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from support import NOW, OTHER_SECRET, SECRET

from roovet_webhooks import (
    ConfigurationError,
    InvalidSecretError,
    Keyring,
    Router,
    Secret,
    SignatureMismatch,
    Signer,
    Tenant,
    Verifier,
    WebhookError,
    WebhookReceiver,
    construct_event,
    sign,
    verify,
)
from roovet_webhooks.explain import explain
from roovet_webhooks.signing.keys import as_keyring, is_placeholder
from roovet_webhooks.signing.secrecy import forget_variables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

LONG = "whsec_" + "a" * 40

REFUSED: list[tuple[str, object, str]] = [
    ("empty text", "", "is empty"),
    ("empty bytes", b"", "is empty"),
    ("blank", " " * 32, "is blank"),
    ("blank no-break spaces", "\u00a0" * 32, "is blank"),
    ("tabs and line breaks", "\t\r\n" * 12, "is blank"),
    ("lone high surrogate", "whsec_5f2b8c1e9a7d4036b1c2d3e4\ud800", "not valid text"),
    ("short", "whsec_short", "has 11 bytes, fewer than 16"),
    ("fifteen bytes", b"x" * 15, "has 15 bytes"),
    ("API key", "rvpk_live_0123456789abcdef0123456789", "is an API key"),
    ("API key as bytes", b"rvpk_test_0123456789abcdef0123456789", "is an API key"),
    ("API key with a space", " rvpk_live_0123456789abcdef0123456789", "is an API key"),
    ("line break at the end", LONG + "\n", "white space"),
    ("space in front", " " + LONG, "white space"),
    ("no-break space at the end", LONG + "\u00a0", "white space"),
    ("bytes with a line break", LONG.encode() + b"\r\n", "white space"),
    ("double quotes", f'"{LONG}"', "quotation marks"),
    ("single quotes", f"'{LONG}'", "quotation marks"),
    ("line break inside", LONG + "\n" + LONG, "has a line break in it; pass several secrets as a list"),
    ("line break inside, as bytes", f"{LONG}\r\n{LONG}".encode(), "has a line break in it"),
    ("white-space bytes", b" \t\r\n" * 8, "is nothing but bytes of white space"),
    ("unexpanded ${}", "${ROOVET_WEBHOOK_SECRET}", "a variable that nothing has expanded"),
    ("unexpanded ${} in quotes", '"${ROOVET_WEBHOOK_SECRET}"', "a variable that nothing has expanded"),
    ("unexpanded ${} with a default", "whsec_${ROOVET_WEBHOOK_SECRET:-none}", "a variable that nothing has expanded"),
    ("unexpanded $", "$ROOVET_WEBHOOK_SECRET", "a variable that nothing has expanded"),
    ("unexpanded $()", "$(ROOVET_WEBHOOK_SECRET)", "a variable that nothing has expanded"),
    ("unexpanded %", "%ROOVET_WEBHOOK_SECRET%", "a variable that nothing has expanded"),
    ("unexpanded {{}}", "{{ roovet_webhook_secret }}", "a variable that nothing has expanded"),
    ("in angle brackets", "<your signing secret here>", "a variable that nothing has expanded"),
    ("example with an ellipsis", "whsec_…", "is an example from a documentation"),
    ("example with dots", "whsec_live_..._1234567890", "is an example from a documentation"),
    ("example in words", "your-webhook-signing-secret", "is an example from a documentation"),
    ("example in words with its prefix", "whsec_your_signing_secret", "is an example from a documentation"),
    ("example crossed out", "whsec_xxxxxxxxxxxxxxxxxxxxxxxx", "is an example from a documentation"),
    ("int", 12345678901234567890, "must be a str or bytes, not int"),
    ("None", None, "must be a str or bytes, not NoneType"),
    ("bytearray", bytearray(b"x" * 32), "must be a str or bytes, not bytearray"),
    ("dict", {"secret": LONG}, "must be a str or bytes, not dict"),
]


@pytest.mark.parametrize(("value", "reason"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_cannot_be_a_secret_is_refused_without_being_shown(value: object, reason: str) -> None:
    with pytest.raises(InvalidSecretError, match=reason) as caught:
        Secret(cast("str", value), name="primary")
    assert "'primary'" in str(caught.value)
    shown = str(value).strip()
    assert not (len(shown) >= 8 and shown in repr(caught.value))


@pytest.mark.parametrize(
    "value",
    [
        *("a" * 24, b"b" * 24, "clé-secrète-漢字-0123456789abcdef", "a" * 500, b"\x00\xff" * 16),
        *(
            b"\n" + b"\x80" * 32 + b" ",
            b"'\x81\r\n" * 8 + b"'",
            "whsec_a$b{c}d5f2b8c1e9a7d4036",
            "yours_5f2b8c1e9a7d4036b1c2d3",
            *(f'"{LONG}', f"'{LONG}", f'{LONG}"', f"'{LONG}\""),
        ),
    ],
    ids=[
        *("text", "bytes", "beyond ASCII", "long", "binary"),
        *("binary with white space", "binary with quotes", "text with a dollar", "words and digits"),
        *("a quote in front", "an apostrophe in front", "a quote at the end", "two unlike quotes"),
    ],
)
def test_accepted(value: str | bytes) -> None:
    expected = value.encode() if isinstance(value, str) else value
    assert Secret(value).reveal() == expected


PLACEHOLDERS = [
    *(
        "$A",
        "$z",
        "$_",
        "$Az_09",
        "$(A)",
        "$(Az_9",
        "$Az)",
        "%A%",
        "%z_9%",
        "%_%",
        "{{}}",
        "{{ a.b | c }}",
        "<>",
        "<a>",
    ),
    *("<a b c>", "${}", "${A}", "a${A}b", "a.b-${A:-x}", "'$A'", '"%A%"', "'{{ a }}", '<a>"', "<a\nb>", "${a}$b"),
    *(
        "...",
        "a...",
        "...b",
        "whsec_...b",
        "a…b",
        "…",
        "whsec_xxxx",
        "WHSEC_XXXXXXX",
        "your",
        "Your-Secret",
        "my secret",
    ),
    *("whsec_my", "change-me", "CHANGE_ME", "replace_this value", "insert secret here", "put-it-in", "put", "myx"),
]
NO_PLACEHOLDERS = [
    *(
        "$",
        "$1A",
        "$[A]",
        "$A-b",
        "a$A",
        "$(A b)",
        "$A))",
        "mx secret",
        "you secret",
        "whsec_whsec_your",
        "%%",
        "%A",
        "A%",
        "%1A%",
        "%A-b%",
        "a%A%",
        "{a}",
        "{{a}",
        "{a}}",
    ),
    *("a{{b}}", "{{a}}b", "<a", "a>", "<a<b>", "<a>b", "a<b>", "$A}", "${A", "$ {A}", "''", "\"'$A'"),
    *("a..b", "a.b...", "whsec_xxx", "whsec_xxxy", "xxxx", "yours2", "my1", "our_secret", "ch", "changed!", "aput"),
    *("whsec_a_your", "your.secret", "put=it"),
]


def test_what_stands_in_place_of_a_secret() -> None:
    assert [value for value in PLACEHOLDERS if not is_placeholder(value.encode())] == []
    assert [value for value in NO_PLACEHOLDERS if is_placeholder(value.encode())] == []


def test_which_characters_a_placeholder_is_made_of() -> None:
    letters = set(string.ascii_letters)
    for character in map(chr, range(0x20, 0x7F)):
        one = character.encode()
        assert is_placeholder(b"$" + one + b"AME") == (character in letters | {"_", "("}), character
        assert is_placeholder(b"$N" + one + b"ME") == (character in letters | {"_", *string.digits}), character
        assert is_placeholder(b"%" + one + b"AME%") == (character in letters | {"_"}), character
        assert is_placeholder(b"%N" + one + b"ME%") == (character in letters | {"_", *string.digits}), character
        assert is_placeholder(b"your" + one) == (character in letters | {"_", "-", " "}), character
        assert is_placeholder(b"my-s" + one + b"t") == (character in letters | {"_", "-", " "}), character
        assert is_placeholder(one + b"$NAME") == (character in "\"'"), character
        assert is_placeholder(b"$NAME" + one) == (character in letters | {"_", ")", '"', "'", *string.digits}), (
            character
        )


def ends_blank(value: bytes) -> bool:
    """Return whether a secret is refused for the white space at its end; it is taken as it is otherwise."""
    try:
        return Secret(value).reveal() != value
    except InvalidSecretError as error:
        return "white space" in str(error)


def test_what_counts_as_text() -> None:
    # A space at the end of a text is a mistake, and in bytes that are no text a part of the secret.
    refused = {byte for byte in range(256) if ends_blank(bytes([*b"whsec_5f2b8c1e9a7d4036b1c2d3", byte, *b"e4 "]))}
    assert refused == {*range(0x20, 0x7F), *b"\0\t\n\v\f\r"}


@pytest.mark.parametrize("character", ["\n", "\r", "\0"], ids=ascii)
def test_every_kind_of_line_break_inside_is_refused(character: str) -> None:
    for value in (f"{LONG}{character}{LONG}", f"{LONG}{character}{LONG}".encode()):
        with pytest.raises(InvalidSecretError, match="line break in it"):
            Secret(value)


def test_an_undecodable_environment_variable_comes_back_as_the_bytes_it_was() -> None:
    raw = b"whsec_5f2b8c1e9a7d4036b1c2d3e4\xff\xfe"
    assert Secret(raw.decode("utf-8", "surrogateescape")).reveal() == raw


@pytest.mark.parametrize("length", [16, 23])
def test_a_short_secret_warns(length: int) -> None:
    with pytest.warns(UserWarning, match=f"'legacy' has {length} bytes; 24 or more are recommended"):
        Secret("x" * length, name="legacy")


def test_a_secret_shows_its_name_only() -> None:
    secret = Secret(SECRET, name="2025-11")
    holders: list[object] = [secret, Keyring([secret]), Tenant("acme", secret), Verifier(secret)]
    assert [repr(holder) for holder in holders] == [
        "Secret(name='2025-11')",
        "Keyring('2025-11')",
        "Tenant('acme', Keyring('2025-11'))",
        "Verifier(Keyring('2025-11'), tolerance=300.0)",
    ]
    for holder in holders:
        assert SECRET not in f"{holder} {holder!r} {holder!s}"


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "holder",
    [Secret(SECRET), Keyring([SECRET]), Tenant("acme", SECRET), Verifier(SECRET)],
    ids=lambda holder: type(holder).__name__,
)
def test_nothing_that_holds_a_secret_can_be_pickled(holder: object, protocol: int) -> None:
    with pytest.raises(TypeError, match=r"holds signing secrets and refuses to be pickled"):
        pickle.dumps(holder, protocol)


def test_a_copy_of_a_secret_is_the_secret() -> None:
    secret = Secret(SECRET)
    assert copy.copy(secret) is secret
    assert copy.deepcopy({"ROOVET_WEBHOOK_SECRET": [secret]})["ROOVET_WEBHOOK_SECRET"][0] is secret


def test_a_period_includes_its_beginning_and_not_its_end() -> None:
    secret = Secret(SECRET, not_before=100, expires=200.5)
    assert [secret.active(now) for now in (99.9, 100, 200.4, 200.5)] == [False, True, True, False]
    assert Secret(SECRET).active(float("-inf"))


def test_a_period_is_given_as_aware_datetimes_too() -> None:
    begin = datetime.fromtimestamp(NOW, UTC)
    secret = Secret(
        SECRET, not_before=begin, expires=(begin + timedelta(days=1)).astimezone(timezone(timedelta(hours=9)))
    )
    assert (secret.not_before, secret.expires) == (NOW, NOW + 86_400)


@pytest.mark.parametrize("moment", [datetime(2025, 11, 10), "2025-11-10"], ids=["naive", "text"])  # noqa: DTZ001 - the naive one is the case
@pytest.mark.parametrize("what", ["not_before", "expires"])
def test_a_moment_without_a_zone_is_refused(moment: datetime | str, what: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{what} must be an aware datetime"):
        Secret(SECRET, **cast("Any", {what: moment}))


def test_texts_in_a_keyring_are_named_by_place() -> None:
    keyring = Keyring([SECRET, Secret(OTHER_SECRET, name="old"), LONG.encode()])
    assert [secret.name for secret in keyring] == ["secret-1", "old", "secret-3"]
    assert len(keyring) == 3


def test_an_empty_keyring_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least one signing secret"):
        Keyring([])


def test_two_secrets_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="names of their own"):
        Keyring([Secret(SECRET), Secret(OTHER_SECRET)])


def test_a_bad_secret_in_a_list_is_named_by_place() -> None:
    with pytest.raises(InvalidSecretError, match="'secret-2' is empty"):
        Keyring([SECRET, ""])


def test_a_text_is_not_taken_for_a_sequence_of_secrets() -> None:
    assert len(as_keyring(SECRET)) == len(as_keyring(SECRET.encode())) == 1


def test_what_names_secrets_becomes_a_keyring() -> None:
    keyring = Keyring([SECRET])
    secret = Secret(SECRET)
    assert as_keyring(keyring) is keyring
    assert list(as_keyring(secret)) == [secret]
    assert [one.name for one in as_keyring((SECRET, OTHER_SECRET))] == ["secret-1", "secret-2"]
    nonsense: Any = {"a": "set"}
    with pytest.raises(InvalidSecretError, match="not dict"):
        as_keyring(nonsense)


def test_only_a_single_secret_without_a_period_is_the_only_one() -> None:
    secret = Secret(SECRET)
    assert Keyring([secret]).only() is secret
    assert Keyring([secret, OTHER_SECRET]).only() is None
    assert Keyring([Secret(SECRET, expires=1)]).only() is None


def test_a_secret_is_never_used_outside_of_its_period() -> None:
    early, late = Secret(SECRET, not_before=NOW + 1), Secret(OTHER_SECRET, name="late", expires=NOW)
    for secret, moments in ((early, [NOW + 1]), (late, [NOW - 1])):
        for keyring in (Keyring([secret]), as_keyring(secret), Tenant("acme", [secret]).keyring):
            assert [now for now in (NOW - 1, NOW, NOW + 1) if keyring.active(now)] == moments
            assert keyring.only() is None
            assert keyring.active(NOW) == ()
    with pytest.raises(SignatureMismatch, match="there is none"):
        verify(b"{}", sign(b"{}", SECRET, timestamp=NOW), early, now=NOW)


def test_rotation_loses_no_delivery_and_says_which_secret_matched() -> None:
    old = Secret(OTHER_SECRET, name="old", expires=NOW + 100)
    new = Secret(SECRET, name="new", not_before=NOW)
    keyring = Keyring([new, old])
    raw = b"{}"

    def matched(secret: str, moment: int) -> str:
        return verify(raw, sign(raw, secret, timestamp=moment), keyring, now=moment).secret_name

    assert matched(OTHER_SECRET, NOW - 1) == "old"
    assert matched(SECRET, NOW) == "new"
    assert matched(OTHER_SECRET, NOW + 99) == "old"
    # The first active one signs.
    assert sign(raw, keyring, timestamp=NOW - 1) == sign(raw, OTHER_SECRET, timestamp=NOW - 1)
    assert sign(raw, keyring, timestamp=NOW) == sign(raw, SECRET, timestamp=NOW)


@pytest.mark.parametrize("name", [7, None, "", b"acme"])
def test_the_name_of_a_tenant_is_text(name: object) -> None:
    with pytest.raises(ConfigurationError, match="tenant's name must be a non-empty str"):
        Tenant(cast("str", name), SECRET)


TAKERS: dict[str, Callable[[str], object]] = {
    "Secret": Secret,
    "Keyring": lambda secret: Keyring([secret]),
    "Tenant": lambda secret: Tenant("acme", secret),
    "Verifier": Verifier,
    "Signer": lambda secret: Signer([secret]),
    "WebhookReceiver": WebhookReceiver,
    "sign": lambda secret: sign(b"{}", secret),
    "verify": lambda secret: verify(b"{}", "t=1,v1=2", secret),
    "verify of several": lambda secret: verify(b"{}", "t=1,v1=2", [secret]),
    "construct_event": lambda secret: construct_event(b"{}", "t=1,v1=2", secret),
}


@pytest.mark.parametrize("secret", ["rvpk_live_0123456789abcdef", SECRET], ids=["refused", "accepted"])
@pytest.mark.parametrize("taker", TAKERS)
def test_no_frame_of_ours_keeps_a_secret_for_a_traceback_to_print(taker: str, secret: str) -> None:
    try:
        TAKERS[taker](secret)
    except WebhookError as error:
        told = traceback.TracebackException.from_exception(error, capture_locals=True)
        ours = [frame for frame in told.stack if "roovet_webhooks" in Path(frame.filename).parts]
        assert ours
        assert not [frame for frame in ours if secret in str(frame.locals)]
    else:
        assert secret == SECRET


@pytest.mark.parametrize("taker", TAKERS)
def test_nor_where_the_application_makes_an_error_of_a_warning(taker: str) -> None:
    # As this suite does.
    with pytest.raises(UserWarning, match="24 or more are recommended") as caught:
        TAKERS[taker](SECRET[:20])
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    ours = [frame for frame in told.stack if "roovet_webhooks" in Path(frame.filename).parts]
    assert ours
    assert not [frame for frame in ours if SECRET[:20] in str(frame.locals)]


# Frames of ours, wherever an exception came through


def ours(source: str, **names: object) -> Callable[..., Any]:
    """Return the function ``f`` of a source as if a module of the package had it."""
    namespace: dict[str, Any] = {"__name__": "roovet_webhooks.made_up", **names}
    exec(source, namespace)  # noqa: S102 - frames with a name of ours
    return cast("Callable[..., Any]", namespace["f"])


FAIL = ours("def f(held):\n    raise ValueError('first')")
CHAINS: dict[str, Callable[[str], object]] = {
    "cause": ours(
        "def f(held):\n try: fail(held)\n except ValueError as error: raise KeyError('second') from error", fail=FAIL
    ),
    "context": ours("def f(held):\n try: fail(held)\n except ValueError: raise KeyError('second')", fail=FAIL),
    "hidden context": ours(
        "def f(held):\n try: fail(held)\n except ValueError: raise KeyError('second') from None", fail=FAIL
    ),
    "both": ours(
        "def f(held):\n try: fail(held)\n except ValueError:\n"
        "  try: fail(held)\n  except ValueError as error: raise KeyError('second') from error",
        fail=FAIL,
    ),
}


def held_in(error: BaseException | None, *, seen: frozenset[int] = frozenset()) -> list[str]:
    """Return what the frames of an exception and of all that led to it hold, but for this file's."""
    if error is None or id(error) in seen:
        return []
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename != __file__]
    own = [repr(frame.f_locals) for frame in frames]
    seen |= {id(error)}
    return own + held_in(error.__cause__, seen=seen) + held_in(error.__context__, seen=seen)


@pytest.mark.parametrize("chain", CHAINS)
def test_no_frame_of_what_led_to_an_exception_keeps_anything(chain: str) -> None:
    with pytest.raises(KeyError, match="second") as caught:
        CHAINS[chain]("s3cr3t")
    assert "s3cr3t" in str(held_in(caught.value))
    forget_variables(caught.value)
    assert len(held_in(caught.value)) >= 2
    assert "s3cr3t" not in str(held_in(caught.value))


def test_exceptions_that_led_to_each_other_are_no_circle() -> None:
    one, other = ValueError("one"), KeyError("other")
    one.__cause__, other.__cause__ = other, one
    forget_variables(one)
    assert (one.__cause__, other.__cause__) == (other, one)


def test_frames_of_others_are_left_as_they_are() -> None:
    neighbour = ours("def f(held):\n fail(held)", fail=FAIL, __name__="roovet_webhooks_shop.handlers")
    theirs = ours("def f(held):\n call(held)", call=neighbour, __name__="library.core")
    nameless = ours("def f(held):\n del globals()['__name__']\n call(held)", call=theirs)
    for libraries, left in (((), 3), (("library.",), 2)):
        with pytest.raises(ValueError, match="first") as caught:
            ours("def f(held):\n call(held)", call=nameless)("s3cr3t")
        forget_variables(caught.value, libraries=libraries)
        assert str(held_in(caught.value)).count("s3cr3t") == left
        nameless.__globals__["__name__"] = "roovet_webhooks.made_up"


def test_a_keyring_that_is_being_made_can_be_shown() -> None:
    # As a debugger or a crash report shows it.
    shown: list[str] = []

    def secrets() -> Iterator[str]:
        frame: FrameType | None = sys._getframe()
        while frame is not None:
            shown.extend(repr(value) for value in frame.f_locals.values() if isinstance(value, Keyring))
            frame = frame.f_back
        yield SECRET

    assert repr(Keyring(secrets())) == "Keyring('secret-1')"
    assert set(shown) == {"Keyring()"}


# A warning points at the line of the application, however deep the secret is made


SHORT = "whsec_short_0123"
ENTRIES: dict[str, Callable[[], object]] = {
    "Secret": lambda: Secret(SHORT),
    "Keyring": lambda: Keyring([SHORT]),
    "Tenant": lambda: Tenant("acme", SHORT),
    "Verifier": lambda: Verifier(SHORT),
    "Signer": lambda: Signer(SHORT),
    "sign": lambda: sign(b"{}", SHORT),
    "verify": lambda: verify(b"{}", sign(b"{}", LONG), SHORT),
    "construct_event": lambda: construct_event(b"{}", sign(b"{}", LONG), SHORT[::-1]),
    "explain": lambda: explain(b"{}", sign(b"{}", LONG), SHORT),
    "WebhookReceiver": lambda: WebhookReceiver(SHORT),
    "override": lambda: WebhookReceiver(LONG).override(secret=SHORT).__enter__(),
    "debug": lambda: WebhookReceiver(LONG, debug=True),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_warning_points_at_the_line_of_the_application(entry: str) -> None:
    with warnings.catch_warnings(record=True) as caught, suppress(SignatureMismatch):
        warnings.simplefilter("always")
        ENTRIES[entry]()
    line = ENTRIES[entry].__code__.co_firstlineno
    assert {(warning.filename, warning.lineno) for warning in caught} == {(__file__, line)}


def test_a_warning_reaches_code_that_is_no_module() -> None:
    with pytest.warns(UserWarning, match="16 bytes"):
        exec("Secret(value)", {"Secret": Secret, "value": SHORT})  # noqa: S102 - globals without a __name__


def test_the_examples_of_this_documentation_work_and_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    router = Router()
    router.on("*", name="all")(lambda _event: None)
    WebhookReceiver(["whsec_example_5f2b8c1e9a7d", LONG], router=router).check()
    WebhookReceiver(LONG, router=router).check()
    WebhookReceiver(lambda _request: None, router=router).check()
    (record,) = caplog.records
    assert record.getMessage() == "receiver.example_secret secret='secret-1' endpoint='default'"
