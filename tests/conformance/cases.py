"""The cases: what is sent, byte for byte, and the verdict that every harness must give.

A case is data. Its header lines and its body are templates, because what is signed depends on the clock:

    %t%     the signed timestamp           %v1%    the digest, 64 hex digits
    %V1%    the digest in upper case       %half%  its leftmost 32 hex digits
    %zero%  64 zeros                       %now%   the present time
    %id%    the resource, new for each run of a case

Where a server or an interface differs by its own nature, the case says so in ``instead``, with the reason: the
first trait that the harness has decides. Traits are the names of harnesses and servers, and:

    wsgi      the application gets an environ: repeated lines have been joined or dropped (PEP 3333, RFC 3875)
    sockets   a server parses the bytes, and may refuse them before the application sees anything
    spools    the framework reads the whole body before a view runs
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from support import SECRET

from conformance.stage import CAP, EMPTY, FALLBACK, HOOK, IMPATIENT
from roovet_webhooks import Signer
from roovet_webhooks.receiving.wsgi import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

_SIGNER = Signer(SECRET)

TYPE_LINE = b"Content-Type: application/json"
SIGNATURE_LINE = b"X-Roovet-Signature: t=%t%,v1=%v1%"
TIMESTAMP_LINE = b"X-Roovet-Timestamp: %t%"
DOCUMENTED = (TYPE_LINE, SIGNATURE_LINE, TIMESTAMP_LINE)
BODY = b'{"event":"%event%","id":"%id%","ts":1762782800}'

_PUBLIC_MESSAGES = {
    "verification_failed": "The delivery could not be verified.",
    "invalid_payload": "The body is not a valid event.",
    "invalid_request": "The body is incomplete.",
    "method_not_allowed": "Deliveries are sent with POST.",
    "unsupported_media_type": "Deliveries are sent as application/json, in UTF-8, without a content encoding.",
    "payload_too_large": "The body is too large.",
    "length_required": "A valid Content-Length is required.",
    "timeout": "The body did not arrive in time.",
    "not_ready": "The receiver is not ready.",
    "handler_failed": "The delivery could not be processed.",
    "unavailable": "The receiver is temporarily unavailable.",
    "in_flight": "The same delivery is being handled.",
}


class Framing(Enum):
    """How the end of the body is told."""

    LENGTH = "Content-Length"
    CHUNKED = "Transfer-Encoding: chunked"
    NONE = "no body"


class Ending(Enum):
    """What the sender does after the last byte that it sends."""

    WAIT = "waits for the answer"
    HALF_CLOSE = "closes its side, and waits for the answer"
    CLOSE = "goes away"


class Wire(NamedTuple):
    """A request as it is sent.

    ``lines`` has every header line but Host and Connection. ``chunks`` are the pieces of the body that are sent; with
    ``complete`` unset, there should have been more of them.
    """

    method: bytes
    target: bytes
    version: bytes
    lines: tuple[bytes, ...]
    chunks: tuple[bytes, ...]
    chunked: bool
    complete: bool
    ending: Ending


class Answer(NamedTuple):
    """A response: names of headers are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Expect:
    """A verdict.

    Attributes:
        status: The HTTP status; 0 where the server itself refuses: any 4xx, or a closed connection.
        word: ``status`` of a 200, ``type`` of an error.
        code: What ``on_rejected`` is told, the precise reason; ``None`` when it is not called.
        runs: The handlers that run, with the attempt.
        param: ``param`` of an error.
        header: A header that the answer has.
        or_refused: The server may as well refuse by itself.
    """

    status: int
    word: str = ""
    code: str | None = None
    runs: tuple[str, ...] = ()
    param: str | None = None
    header: tuple[str, str] | None = None
    or_refused: bool = False

    def check(self, answer: Answer | None, *, bodiless: bool = False) -> bool:
        """Check an answer; return whether it is the application's, rather than a refusal by the server.

        Args:
            answer: The answer, ``None`` when the connection was closed without one.
            bodiless: The request was HEAD.
        """
        ours = answer is not None and answer.headers.get("content-type") == "application/json"
        if self.status == 0 or (self.or_refused and not ours):
            assert answer is None or 400 <= answer.status < 500, answer
            return False
        assert answer is not None, "closed without an answer"
        assert answer.status == self.status, answer
        assert answer.headers["content-type"] == "application/json"
        if self.header is not None:
            name, value = self.header
            assert answer.headers[name] == value
        if not bodiless:
            assert int(answer.headers["content-length"]) == len(answer.body)
            assert json.loads(answer.body) == self.content()
        return True

    def content(self) -> object:
        """Return the whole content of the answer: a stranger learns nothing else."""
        if self.status == 200:
            return {"status": self.word}
        error = {
            "type": self.word,
            "code": str(self.status),
            "message": _PUBLIC_MESSAGES[self.word],
            "param": self.param,
        }
        return {"error": error}


def handled(*runs: str) -> Expect:
    """Return the verdict: these handlers ran."""
    return Expect(status=200, word="handled", runs=runs)


def unverified(code: str) -> Expect:
    """Return the verdict: nobody proved that Roovet sent it, for this reason."""
    return Expect(status=400, word="verification_failed", code=code)


def invalid(param: str | None = None) -> Expect:
    """Return the verdict: genuine, and not an event; ``param`` names the field at fault."""
    code = "malformed_payload" if param is None else "invalid_envelope"
    return Expect(status=400, word="invalid_payload", code=code, param=param)


CREATED = handled("created:1")
DUPLICATE = Expect(status=200, word="duplicate")
IGNORED = Expect(status=200, word="ignored")
NOT_POST = Expect(status=405, word="method_not_allowed", code="method_not_allowed", header=("allow", "POST"))
WRONG_TYPE = Expect(status=415, word="unsupported_media_type", code="unsupported_media_type")
TOO_LARGE = Expect(status=413, word="payload_too_large", code="payload_too_large")
NO_LENGTH = Expect(status=411, word="length_required", code="length_required")
LATE = Expect(status=408, word="timeout", code="body_timeout")
NOT_READY = Expect(status=503, word="not_ready", code="configuration_error", header=("retry-after", "60"))
FAILED = Expect(status=500, word="handler_failed")
CUT_SHORT = Expect(status=400, word="invalid_request", code="incomplete_body", or_refused=True)
REFUSED = Expect(status=0)
MISSING, MALFORMED = unverified("missing_signature"), unverified("malformed_signature")
MISMATCH, STALE, FUTURE = (
    unverified("signature_mismatch"),
    unverified("stale"),
    unverified("future"),
)
CONTRADICTED = unverified("timestamp_header_mismatch")
REPEATED = unverified("duplicate_header")


class Instead(NamedTuple):
    """Another verdict, and why; no verdict where the case cannot be put to a harness at all."""

    expect: Expect | None
    reason: str


JOINED = "a WSGI server joins repeated lines with a comma, so that an application cannot tell them from one"
LENIENT = "the server's parser refuses this by itself"
ONE_TYPE = "the server passes on one of the lines only"
SAME_NAME = "granian's environ has one name for both, as RFC 3875 maps them; what it carries is still verified"
EITHER_NAME = f"{SAME_NAME}, and which line that is, chance decides"
DROPPED_LINE = "granian leaves a header that is not ASCII out of the environ"
NO_CHUNKS = "the server knows no chunked bodies, and passes the header on: nobody can tell where the body ends"
NO_END = "granian passes a chunked body that was cut off on as a whole one: the MAC finds it"
UNSTRIPPED = "the server leaves white space at the end in the value"
SPOOLS = "Django reads the whole body before a view runs; WebhookMiddleware in front of it refuses earlier"
NO_CLOCK = "a WSGI read cannot be interrupted: the server's own timeout ends it"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One case; see the module.

    Attributes:
        name: What it is about, as the id of its test.
        expect: The verdict.
        event: For the usual body.
        body: The template of the body.
        method: The method.
        path: The path, with a query if need be.
        version: The HTTP version.
        lines: The header lines that do not belong to the framing.
        age: Seconds by which the signature is old; negative in the future.
        framing: How the end of the body is told.
        declared: What Content-Length says, where that is not the length of the body.
        chunk: Bytes in a chunk; 0 sends the body in one piece.
        sent: The bytes of the body that are sent before the ending; ``None`` sends all.
        ending: What the sender does then.
        then: Verdicts on the same delivery, sent again, whole.
        instead: Other verdicts on the first sending, by trait.
    """

    name: str
    expect: Expect
    event: str = "order.created"
    body: bytes = BODY
    method: bytes = b"POST"
    path: str = HOOK
    version: bytes = b"1.1"
    lines: tuple[bytes, ...] = DOCUMENTED
    age: int = 0
    framing: Framing = Framing.LENGTH
    declared: bytes | None = None
    chunk: int = 0
    sent: int | None = None
    ending: Ending = Ending.WAIT
    then: tuple[Expect, ...] = ()
    instead: Mapping[str, Instead] = field(default_factory=dict)

    def wires(self, resource: str) -> tuple[Wire, ...]:
        """Return what is sent: first the case itself, then the same delivery whole for each verdict in ``then``.

        Args:
            resource: The id of the resource.
        """
        body = self.body.replace(b"%event%", self.event.encode()).replace(b"%id%", resource.encode())
        now = int(time.time())
        signature = _SIGNER.sign(body, timestamp=now - self.age)
        t, _, digest = signature.removeprefix("t=").partition(",v1=")
        words = {
            b"%now%": b"%d" % now,
            b"%t%": t.encode(),
            b"%v1%": digest.encode(),
            b"%V1%": digest.upper().encode(),
            b"%half%": digest[:32].encode(),
            b"%zero%": b"0" * 64,
        }
        lines = self.lines
        for word, value in words.items():
            lines = tuple(line.replace(word, value) for line in lines)
        first = Wire(
            self.method,
            self.path.encode(),
            self.version,
            (*lines, *self._framing_lines(body)),
            self._chunks(body),
            self.framing is Framing.CHUNKED,
            self.sent is None,
            self.ending,
        )
        length = b"Content-Length: %d" % len(body)
        whole = first._replace(lines=(*lines, length), chunks=(body,), chunked=False, complete=True, ending=Ending.WAIT)
        return (first, *(whole for _ in self.then))

    def _framing_lines(self, body: bytes) -> tuple[bytes, ...]:
        length = b"Content-Length: %b" % (b"%d" % len(body) if self.declared is None else self.declared)
        if self.framing is Framing.LENGTH:
            return (length,)
        if self.framing is Framing.CHUNKED:
            return (
                (b"Transfer-Encoding: chunked",) if self.declared is None else (length, b"Transfer-Encoding: chunked")
            )
        return ()

    def _chunks(self, body: bytes) -> tuple[bytes, ...]:
        sent = body if self.sent is None else body[: self.sent]
        if self.framing is Framing.NONE:
            return ()
        size = self.chunk or len(sent) or 1
        return tuple(sent[start : start + size] for start in range(0, len(sent), size))

    def verdict(self, traits: frozenset[str]) -> Instead:
        """Return the verdict that a harness with these traits must give, and the reason where it is another one."""
        for trait, instead in self.instead.items():
            if trait in traits:
                return instead
        return Instead(self.expect, "")


def _signed(*lines: bytes) -> tuple[bytes, ...]:
    """Return the usual lines with others in place of the signature's."""
    return (TYPE_LINE, *lines)


def _typed(*lines: bytes) -> tuple[bytes, ...]:
    """Return the usual lines with others in place of the content type's."""
    return (*lines, SIGNATURE_LINE, TIMESTAMP_LINE)


def _methods() -> list[Case]:
    return [
        *(
            Case(name=f"method {name}", method=name.encode(), expect=NOT_POST)
            for name in ("GET", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD")
        ),
        Case(name="method GET without body or headers", method=b"GET", lines=(), framing=Framing.NONE, expect=NOT_POST),
        Case(
            name="a method that nobody knows",
            method=b"BREW",
            expect=NOT_POST,
            instead={"httptools": Instead(REFUSED, LENIENT)},
        ),
        Case(
            name="method in lower case",
            method=b"post",
            expect=replaced(NOT_POST, or_refused=True),
            instead={"hypercorn": Instead(CREATED, "hypercorn makes upper case of a method")},
        ),
    ]


def _media_types() -> list[Case]:
    good = {
        "charset utf-8": b"application/json; charset=utf-8",
        "charset UTF-8 without space": b"Application/JSON;Charset=UTF-8",
        "quoted charset": b'application/json; charset="utf-8"',
    }
    bad = {
        "text/plain": b"text/plain",
        "form": b"application/x-www-form-urlencoded",
        "multipart": b"multipart/form-data; boundary=x",
        "charset latin-1": b"application/json; charset=iso-8859-1",
        "another parameter": b"application/json; profile=x",
        "a longer type": b"application/jsonp",
        "empty": b"",
        "two in one line": b"application/json, application/json",
        "non-ASCII bytes": b"application/json; charset=\xff",
    }
    twice = (TYPE_LINE, TYPE_LINE)
    one_left = {
        **dict.fromkeys(("runserver", "werkzeug", "granian-wsgi"), Instead(CREATED, ONE_TYPE)),
        "gunicorn": Instead(REFUSED, LENIENT),
    }
    return [
        *(Case(name=f"type: {n}", lines=_typed(b"Content-Type: " + v), expect=CREATED) for n, v in good.items()),
        *(Case(name=f"type: {n}", lines=_typed(b"Content-Type: " + v), expect=WRONG_TYPE) for n, v in bad.items()),
        Case(name="type: none", lines=_typed(), expect=WRONG_TYPE),
        Case(name="type: twice", lines=_typed(*twice), expect=WRONG_TYPE, instead=one_left),
        Case(name="encoding gzip", lines=(*DOCUMENTED, b"Content-Encoding: gzip"), expect=WRONG_TYPE),
        Case(name="encoding identity", lines=(*DOCUMENTED, b"Content-Encoding: identity"), expect=CREATED),
        Case(
            name="encoding twice",
            lines=(*DOCUMENTED, *[b"Content-Encoding: identity"] * 2, b"content-encoding: br"),
            expect=WRONG_TYPE,
        ),
    ]


def replaced(expect: Expect, *, or_refused: bool) -> Expect:
    """Return a verdict that leaves it to the server whether it refuses by itself."""
    return Expect(**{**vars(expect), "or_refused": or_refused})


def _signatures() -> list[Case]:
    malformed = {
        "digest in upper case": b"t=%t%,v1=%V1%",
        "digest of 32 digits": b"t=%t%,v1=%half%",
        "digest of 65 digits": b"t=%t%,v1=%v1%0",
        "no t": b"v1=%v1%",
        "no v1": b"t=%t%",
        "two t": b"t=%t%,t=%t%,v1=%v1%",
        "t with a sign": b"t=+%t%,v1=%v1%",
        "t with a leading zero": b"t=0%t%,v1=%v1%",
        "t of 13 digits": b"t=9999999999999,v1=%v1%",
        "t empty": b"t=,v1=%v1%",
        "white space within": b"t=%t%, v1=%v1%",
        "tab within": b"t=%t%,\tv1=%v1%",
        "trailing comma": b"t=%t%,v1=%v1%,",
        "semicolons": b"t=%t%;v1=%v1%",
        "quoted": b'"t=%t%,v1=%v1%"',
        "over 2 KiB": b"t=%t%,v1=%v1%,v0=" + b"a" * 2048,
        "13 items": b"t=%t%,v1=%v1%" + b",v0=a" * 11,
        "nine v1": b"t=%t%" + b",v1=%v1%" * 9,
        "non-ASCII bytes": b"t=%t%,v1=\xff\xfe\xc3\xa9%half%",
        "UTF-8 digits": "t=%t%,v1=%v1%,t=\u0661".encode(),
    }
    spaced = Instead(replaced(MALFORMED, or_refused=True), LENIENT)
    return [
        *(
            Case(
                name=f"signature: {name}",
                lines=_signed(b"X-Roovet-Signature: " + value, TIMESTAMP_LINE),
                expect=MALFORMED,
                instead={} if value.isascii() else {"granian-wsgi": Instead(MISSING, DROPPED_LINE)},
            )
            for name, value in malformed.items()
        ),
        Case(name="signature: none", lines=_signed(TIMESTAMP_LINE), expect=MISSING),
        Case(name="signature: empty", lines=_signed(b"X-Roovet-Signature:", TIMESTAMP_LINE), expect=MISSING),
        Case(
            name="signature: of another body",
            lines=_signed(b"X-Roovet-Signature: t=%t%,v1=%zero%", TIMESTAMP_LINE),
            expect=MISMATCH,
        ),
        Case(
            name="signature: without the unsigned timestamp",
            lines=_signed(SIGNATURE_LINE),
            expect=CREATED,
        ),
        Case(
            name="signature: names in lower and upper case",
            lines=(b"content-type: application/json", b"X-ROOVET-SIGNATURE: t=%t%,v1=%v1%", b"x-roovet-timestamp: %t%"),
            expect=CREATED,
        ),
        Case(
            name="signature: white space around",
            lines=_signed(b"X-Roovet-Signature: \t t=%t%,v1=%v1%\t ", b"X-Roovet-Timestamp:%t%"),
            expect=CREATED,
            instead=dict.fromkeys(("httptools", "werkzeug"), Instead(MALFORMED, UNSTRIPPED)),
        ),
        Case(
            name="signature: white space before it, and none",
            lines=_signed(b"X-Roovet-Signature: \t t=%t%,v1=%v1%", b"X-Roovet-Timestamp:%t%"),
            expect=CREATED,
        ),
        Case(
            name="signature: another scheme and a second digest",
            lines=_signed(b"X-Roovet-Signature: v0=abc,t=%t%,v1=%zero%,v1=%v1%,v2=def", TIMESTAMP_LINE),
            expect=CREATED,
        ),
        Case(
            name="signature: twice",
            lines=(*DOCUMENTED, SIGNATURE_LINE),
            expect=REPEATED,
            instead={"wsgi": Instead(MALFORMED, JOINED)},
        ),
        Case(
            name="signature: twice, the first one forged",
            lines=_signed(b"X-Roovet-Signature: t=%t%,v1=%zero%", SIGNATURE_LINE, TIMESTAMP_LINE),
            expect=REPEATED,
            instead={"wsgi": Instead(MALFORMED, JOINED)},
        ),
        Case(
            name="signature: split over two lines",
            lines=_signed(b"X-Roovet-Signature: t=%t%", b"X-Roovet-Signature: v1=%v1%", TIMESTAMP_LINE),
            expect=REPEATED,
            # What the joined lines say is what was signed, so nothing is let in that should not be.
            instead={"wsgi": Instead(CREATED, JOINED)},
        ),
        Case(
            name="signature: folded line",
            lines=_signed(b"X-Roovet-Signature: t=%t%,\r\n v1=%v1%", TIMESTAMP_LINE),
            expect=MALFORMED,
            instead={"sockets": spaced},
        ),
        Case(
            name="signature: white space before the colon",
            lines=_signed(b"X-Roovet-Signature : t=%t%,v1=%v1%", TIMESTAMP_LINE),
            expect=MISSING,
            instead={"sockets": Instead(replaced(MISSING, or_refused=True), LENIENT)},
        ),
        Case(
            name="signature: NUL",
            lines=_signed(b"X-Roovet-Signature: t=%t%,v1=%v1%\0", TIMESTAMP_LINE),
            expect=MALFORMED,
            instead={"sockets": spaced},
        ),
        Case(
            name="signature: underscores for hyphens",
            lines=_signed(b"X_Roovet_Signature: t=%t%,v1=%v1%"),
            expect=MISSING,
            instead={"granian-wsgi": Instead(CREATED, SAME_NAME)},
        ),
        Case(
            name="signature: a twin with underscores",
            lines=(*DOCUMENTED, b"X_Roovet_Signature: t=%t%,v1=%zero%", b"X_Roovet_Timestamp: 1"),
            expect=CREATED,
            instead={"granian-wsgi": Instead(None, EITHER_NAME)},
        ),
        Case(name="timestamp: nearly stale", age=290, expect=CREATED),
        Case(name="timestamp: stale", age=310, expect=STALE),
        Case(name="timestamp: slightly in the future", age=-290, expect=CREATED),
        Case(name="timestamp: future", age=-320, expect=FUTURE),
        Case(
            name="timestamp: t altered to be fresh",
            age=3600,
            lines=_signed(b"X-Roovet-Signature: t=%now%,v1=%v1%"),
            expect=MISMATCH,
        ),
        Case(
            name="timestamp: the unsigned one differs",
            lines=_signed(SIGNATURE_LINE, b"X-Roovet-Timestamp: 1762782800"),
            expect=CONTRADICTED,
        ),
        Case(
            name="timestamp: the unsigned one empty",
            lines=_signed(SIGNATURE_LINE, b"X-Roovet-Timestamp:"),
            expect=CONTRADICTED,
        ),
        Case(
            name="timestamp: the unsigned one not ASCII",
            lines=_signed(SIGNATURE_LINE, b"X-Roovet-Timestamp: \xb2"),
            expect=CONTRADICTED,
            instead={"sockets": Instead(replaced(CONTRADICTED, or_refused=True), LENIENT)},
        ),
        Case(
            name="timestamp: the unsigned one twice",
            lines=(*DOCUMENTED, TIMESTAMP_LINE),
            expect=REPEATED,
            # Joined, it is one value that differs from t.
            instead={"wsgi": Instead(CONTRADICTED, JOINED)},
        ),
    ]


def _bodies() -> list[Case]:
    fields = {
        "event missing": (b'{"id":"%id%","ts":1}', "event"),
        "event empty": (b'{"event":"","id":"%id%","ts":1}', "event"),
        "event no text": (b'{"event":7,"id":"%id%","ts":1}', "event"),
        "event of 256 characters": (b'{"event":"' + b"a" * 256 + b'","id":"%id%","ts":1}', "event"),
        "event with a control character": (b'{"event":"a\\u0000b","id":"%id%","ts":1}', "event"),
        "id missing": (b'{"event":"order.created","ts":1}', "id"),
        "id null": (b'{"event":"order.created","id":null,"ts":1}', "id"),
        "id a number": (b'{"event":"order.created","id":12,"ts":1}', "id"),
        "ts missing": (b'{"event":"order.created","id":"%id%"}', "ts"),
        "ts text": (b'{"event":"order.created","id":"%id%","ts":"1762782800"}', "ts"),
        "ts true": (b'{"event":"order.created","id":"%id%","ts":true}', "ts"),
        "ts a fraction": (b'{"event":"order.created","id":"%id%","ts":1.5}', "ts"),
        "ts negative": (b'{"event":"order.created","id":"%id%","ts":-1}', "ts"),
        "ts out of range": (b'{"event":"order.created","id":"%id%","ts":253402300800}', "ts"),
        "ts astronomic": (b'{"event":"order.created","id":"%id%","ts":1e400}', "ts"),
        "ts of many digits": (b'{"event":"order.created","id":"%id%","ts":' + b"9" * 5000 + b"}", "ts"),
    }
    malformed = {
        "an array": b"[]",
        "a text": b'"order.created"',
        "null": b"null",
        "not JSON": b"event=order.created",
        "cut off": b'{"event":"order.created","id":"%id%","ts":1',
        "not UTF-8": b'{"event":"order.created","id":"\xff","ts":1}',
        "UTF-16": '{"event":"order.created","id":"x","ts":1}'.encode("utf-16"),
        "a byte order mark": b'\xef\xbb\xbf{"event":"order.created","id":"%id%","ts":1}',
        "nested deeply": b"[" * 20_000,
        "nested deeply in a field": b'{"event":"order.created","id":"%id%","ts":1,"x":'
        + b"[" * 15_000
        + b"]" * 15_000
        + b"}",
        "NaN": b'{"event":"order.created","id":"%id%","ts":1,"x":NaN}',
    }
    rich = '{"ts":0,"extra":{"a":[1,2.5,null]},"id":"%id% ñ 漢","event":"order.created","note":"\\u00e9"}'
    return [
        *(Case(name=f"payload: {n}", body=body, expect=invalid(param)) for n, (body, param) in fields.items()),
        *(Case(name=f"payload: {name}", body=body, expect=invalid()) for name, body in malformed.items()),
        Case(name="payload: empty", body=b"", expect=invalid()),
        Case(name="payload: empty, without a length", body=b"", framing=Framing.NONE, expect=invalid()),
        Case(name="payload: other fields, other characters", body=rich.encode(), expect=CREATED),
        Case(name="payload: white space around", body=b" \r\n" + BODY + b"\n", expect=CREATED),
    ]


def _framings() -> list[Case]:
    over = BODY[:-1] + b',"x":"' + b"x" * 2 * (CAP + CHUNK_BYTES) + b'"}'
    no_length = replaced(NO_LENGTH, or_refused=True)
    cut_off = {
        "runserver": Instead(replaced(NO_LENGTH, or_refused=True), NO_CHUNKS),
        "granian-wsgi": Instead(replaced(MISMATCH, or_refused=True), NO_END),
    }
    unchunked = {"runserver": Instead(NO_LENGTH, NO_CHUNKS)}
    return [
        Case(name="body: chunked", framing=Framing.CHUNKED, chunk=16, expect=CREATED, instead=unchunked),
        Case(name="body: one-byte chunks", framing=Framing.CHUNKED, chunk=1, expect=CREATED, instead=unchunked),
        Case(name="body: byte by byte", chunk=1, expect=CREATED),
        Case(name="body: after 100-continue", lines=(*DOCUMENTED, b"Expect: 100-continue"), expect=CREATED),
        Case(name="body: HTTP/1.0", version=b"1.0", expect=CREATED),
        Case(name="body: with a query", path=f"{HOOK}?a=1&b", expect=CREATED),
        Case(name="body: chunked, empty", body=b"", framing=Framing.CHUNKED, expect=invalid(), instead=unchunked),
        Case(name="body: over the cap, declared and sent", body=over, expect=TOO_LARGE),
        Case(
            name="body: over the cap, declared and not sent",
            body=over,
            sent=0,
            expect=TOO_LARGE,
            instead={"spools": Instead(None, SPOOLS)},
        ),
        Case(
            name="body: over any cap, declared and not sent",
            declared=b"999999999999999",
            sent=0,
            expect=replaced(TOO_LARGE, or_refused=True),
            instead={"spools": Instead(None, SPOOLS)},
        ),
        Case(
            name="body: over the cap, chunked",
            body=over,
            framing=Framing.CHUNKED,
            chunk=1024,
            expect=TOO_LARGE,
            instead=unchunked,
        ),
        Case(
            name="body: over the cap, chunked without an end",
            body=over,
            framing=Framing.CHUNKED,
            chunk=1024,
            # More than a WSGI read asks for at once: it waits for that many.
            sent=CAP + CHUNK_BYTES,
            expect=TOO_LARGE,
            instead={"spools": Instead(None, SPOOLS), **unchunked},
        ),
        Case(name="body: a length that is negative", declared=b"-1", expect=no_length),
        Case(name="body: a length that is no number", declared=b"1e2", expect=no_length),
        Case(
            name="body: a length and chunks",
            framing=Framing.CHUNKED,
            declared=b"5",
            expect=replaced(no_length, or_refused=True),
            instead={"granian": Instead(CREATED, "granian leaves the length out of what it passes on")},
        ),
        Case(
            name="body: stalled",
            path=IMPATIENT,
            sent=10,
            expect=LATE,
            instead={
                "spools": Instead(None, SPOOLS),
                "wsgi": Instead(None, NO_CLOCK),
                "receive": Instead(None, NO_CLOCK),
            },
        ),
        *(
            Case(
                name=f"body: {name}, {framing.name.lower()}",
                framing=framing,
                sent=sent,
                ending=ending,
                expect=CUT_SHORT,
                # Nothing of the broken delivery is on record: the whole one is new, and runs.
                then=(CREATED, DUPLICATE),
                instead=cut_off if framing is Framing.CHUNKED else {},
            )
            for framing in (Framing.LENGTH, Framing.CHUNKED)
            for name, sent, ending in (
                ("disconnect in the middle", 20, Ending.CLOSE),
                ("disconnect before it", 0, Ending.CLOSE),
                ("half-close in the middle", 20, Ending.HALF_CLOSE),
                ("half-close before it", 0, Ending.HALF_CLOSE),
            )
        ),
    ]


def _dispatch() -> list[Case]:
    return [
        Case(name="dispatch: documented delivery", expect=CREATED, then=(DUPLICATE, DUPLICATE)),
        Case(name="dispatch: a coroutine handler", event="wallet.credited", expect=handled("wallet:1")),
        Case(name="dispatch: no handler wants it", event="news.published", expect=IGNORED, then=(DUPLICATE,)),
        Case(
            name="dispatch: fallback",
            path=FALLBACK,
            event="news.published",
            expect=handled("other:1"),
            then=(DUPLICATE,),
        ),
        Case(
            name="dispatch: a handler fails and a retry runs",
            event="order.failing",
            expect=Expect(status=500, word="handler_failed", runs=("failing:1",)),
            then=(handled("failing:2"), DUPLICATE),
        ),
        Case(
            name="dispatch: a handler asks for a later retry",
            event="order.later",
            expect=Expect(status=503, word="unavailable", runs=("later:1",), header=("retry-after", "7")),
            then=(handled("later:2"), DUPLICATE),
        ),
        Case(
            name="dispatch: a handler drops it",
            event="order.dropped",
            expect=Expect(status=200, word="dropped", runs=("dropped:1",)),
            then=(DUPLICATE,),
        ),
        Case(
            name="dispatch: a handler's type refuses a genuine event",
            event="order.priced",
            expect=FAILED,
            then=(FAILED,),
        ),
        Case(
            name="dispatch: a handler raises an error of the tree",
            event="order.impostor",
            expect=Expect(status=500, word="handler_failed", runs=("impostor:1",)),
        ),
        Case(name="dispatch: a receiver without handlers", path=EMPTY, expect=NOT_READY),
    ]


CASES: tuple[Case, ...] = (
    *_methods(),
    *_media_types(),
    *_signatures(),
    *_bodies(),
    *_framings(),
    *_dispatch(),
)
