"""Each known mistake is made for real, and `explain` names it first."""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import io
import json
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import django.http.request
import httpx
import pytest
import starlette.datastructures
import werkzeug.datastructures
from support import NOW, OTHER_SECRET, SECRET, headers_of

from roovet_webhooks import ConfigurationError, Keyring, Secret, sign
from roovet_webhooks.explain import CODES, Diagnosis, explain
from roovet_webhooks.explain.codes import remedies_of

if TYPE_CHECKING:
    from collections.abc import Mapping

HEX_SECRET = "5f2b8c1e9a7d4036b1c2d3e4f50617285f2b8c1e9a7d4036"
BASE64_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
API_KEY = "rvpk_live_5f2b8c1e9a7d4036b1c2d3e4"

# What Roovet sends: compact JSON, all but ASCII escaped, slashes as they are.
RAW = b'{"event":"order.created","id":"ord_123","ts":1762782800}'
RICH = json.dumps(
    {"event": "order.created", "id": "ord_123", "ts": NOW, "url": "https://example.org/o/1", "note": "Grüße, 5 €"},
    separators=(",", ":"),
).encode()
FRENCH = json.dumps({"event": "order.created", "id": "ord_1", "ts": NOW, "note": "à côté"}, ensure_ascii=False)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A mistake, made.

    Attributes:
        codes: What is found, in this order.
        raw: The body that is held.
        headers: The headers.
        secret: The secret that is held.
        options: Further arguments of `explain`.
        evidence: Of the first finding.
        reproduces: Whether the digest is reproduced, so that the secret is known to be the one.
    """

    codes: tuple[str, ...]
    raw: bytes = RAW
    headers: Any = field(default_factory=lambda: headers_of(RAW))
    secret: Any = SECRET
    options: dict[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, object] = field(default_factory=dict)
    reproduces: bool = True

    def explained(self) -> Diagnosis:
        return explain(self.raw, self.headers, self.secret, **{"now": NOW, **self.options})


def digest_of(content: bytes, secret: bytes | str = SECRET, algorithm: str = "sha256") -> str:
    key = secret.encode() if isinstance(secret, str) else secret
    return hmac.new(key, content, algorithm).hexdigest()


def signed(digest: str, t: object = NOW) -> dict[str, str]:
    """Return the headers of a sender who computed a digest in a way of their own."""
    return {"X-Roovet-Signature": f"t={t},v1={digest}", "X-Roovet-Timestamp": str(t)}


def sent(raw: bytes, secret: bytes | str = SECRET) -> dict[str, str]:
    """Return the headers of a sender whose secret is what no `Secret` may be."""
    return signed(digest_of(b"%d." % NOW + raw, secret))


GOOD = digest_of(b"%d." % NOW + RAW)
BINARY = hmac.digest(SECRET.encode(), b"%d." % NOW + RAW, "sha256")
MILLISECONDS = NOW * 1000 + 123


def headers() -> dict[str, Case]:
    header = f"t={NOW},v1={GOOD}"
    shouted = f"t={NOW},v1={GOOD.upper()}"
    environ = {"HTTP_X_ROOVET_SIGNATURE": header, "HTTP_X_ROOVET_TIMESTAMP": str(NOW), "PATH_INFO": "/"}
    spaced = f"t={NOW}, v1={GOOD}"
    malformed = ("malformed_signature",)
    return {
        "no header": Case(codes=("missing_signature",), headers={"Host": "example.org"}, reproduces=False),
        "no headers": Case(codes=("missing_signature",), headers=None, reproduces=False),
        "an empty header": Case(codes=("missing_signature",), headers="", reproduces=False),
        "an environ in place of headers": Case(
            codes=("missing_signature",), headers=environ, evidence={"found": "HTTP_X_ROOVET_SIGNATURE"}
        ),
        "white space after the comma": Case(codes=malformed, headers=spaced, evidence={"item": 2, "position": 14}),
        "white space at the end": Case(codes=malformed, headers=f"{header}\t", evidence={"item": 2, "position": 14}),
        "quotation marks": Case(codes=malformed, headers=f'"{header}"', evidence={"item": 1, "position": 1}),
        "pasted with its name": Case(codes=malformed, headers=f"X-Roovet-Signature: {header}", evidence={"item": 1}),
        "semicolons": Case(codes=malformed, headers=header.replace(",", ";"), evidence={"item": 1}),
        "t with a fraction": Case(
            codes=malformed, headers=signed(digest_of(b"%d.5." % NOW + RAW), f"{NOW}.5"), evidence={"item": 1}
        ),
        "t that is a date": Case(
            codes=malformed,
            headers=f"t=2025-11-10T13:53:20Z,v1={digest_of(b'2025-11-10T13:53:20Z.' + RAW)}",
            evidence={"item": 1},
        ),
        "the digest alone": Case(codes=malformed, headers={"X-Roovet-Signature": GOOD, "X-Roovet-Timestamp": str(NOW)}),
        "another scheme": Case(codes=malformed, headers=f"t={NOW},sha256={GOOD}"),
        "a digest cut short": Case(codes=malformed, headers=header[:-1], evidence={"item": 2}, reproduces=False),
        "a digest that is none": Case(
            codes=malformed, headers=f"t={NOW},v1={'g' * 64}", evidence={"item": 2}, reproduces=False
        ),
        "a list in place of a text": Case(
            codes=malformed, headers={"X-Roovet-Signature": [header]}, evidence={"type": "list"}
        ),
        "over 2 KiB": Case(codes=malformed, headers=f"{header},v0={'a' * 2048}"),
        "32 digits": Case(codes=("truncated_digest",), headers=header[:-32], evidence={"item": 2, "position": 14}),
        "32 digits in upper case": Case(codes=("truncated_digest", "uppercase_digest"), headers=shouted[:-32]),
        "upper case": Case(codes=("uppercase_digest",), headers=shouted, evidence={"item": 2, "position": 14}),
        "base64": Case(
            codes=("base64_digest",),
            headers=f"t={NOW},v1={base64.b64encode(BINARY).decode()}",
            evidence={"form": "base64", "item": 2},
        ),
        "base64 for URLs, unpadded": Case(
            codes=("base64_digest",), headers=f"t={NOW},v1={base64.urlsafe_b64encode(BINARY).decode().rstrip('=')}"
        ),
        "base64 of the hex digits": Case(
            codes=("base64_digest",),
            headers=f"t={NOW},v1={base64.b64encode(GOOD.encode()).decode()}",
            evidence={"form": "base64 of its hex digits"},
        ),
        "signed in milliseconds": Case(
            codes=("timestamp_in_milliseconds",),
            headers=signed(digest_of(b"%d." % MILLISECONDS + RAW), MILLISECONDS),
            evidence={"item": 1, "position": 1},
        ),
        "milliseconds in the header only": Case(
            codes=("timestamp_in_milliseconds",), headers=f"t={MILLISECONDS},v1={GOOD}"
        ),
        "twice": Case(
            codes=("duplicate_header",),
            headers=[*headers_of(RAW).items(), ("x-roovet-signature", header)],
            evidence={"header": "X-Roovet-Signature", "count": 2, "same": True},
        ),
        "twice, one forged": Case(
            codes=("duplicate_header",),
            headers=[(b"X-Roovet-Signature", b"t=1,v1=" + b"0" * 64), *headers_of(RAW).items()],
            evidence={"count": 2, "same": False},
        ),
        "the timestamp twice": Case(
            codes=("duplicate_header",),
            headers=[*headers_of(RAW).items(), ("x-roovet-timestamp", str(NOW))],
            evidence={"header": "X-Roovet-Timestamp"},
        ),
        "joined by a WSGI server": Case(
            codes=("duplicate_header",),
            headers=f"{header},{header}",
            evidence={"header": "X-Roovet-Signature", "joined": True, "count": 2},
        ),
        "the timestamp joined by a WSGI server": Case(
            codes=("duplicate_header",),
            headers={**headers_of(RAW), "X-Roovet-Timestamp": f"{NOW}, {NOW}"},
            evidence={"header": "X-Roovet-Timestamp", "joined": True},
        ),
    }


def times() -> dict[str, Case]:
    altered = f"t={NOW},v1={digest_of(b'%d.' % (NOW - 3600) + RAW)}"
    return {
        "ten minutes old": Case(
            codes=("stale",), options={"now": NOW + 600}, evidence={"skew": -600, "tolerance": 300.0}
        ),
        "ten minutes ahead": Case(codes=("future",), options={"now": NOW - 600}, evidence={"skew": 600}),
        "beyond a tolerance of its own": Case(codes=("stale",), options={"now": NOW + 11.5, "tolerance": 10}),
        "no number for a clock": Case(codes=("future",), options={"now": float("nan")}, evidence={"tolerance": 300.0}),
        "two times": Case(
            codes=("timestamp_header_mismatch",),
            headers={**headers_of(RAW), "X-Roovet-Timestamp": str(NOW + 1)},
            evidence={"difference": 1},
        ),
        "a time in milliseconds beside t": Case(
            codes=("timestamp_header_mismatch",),
            headers={**headers_of(RAW), "X-Roovet-Timestamp": str(NOW * 1000)},
            evidence={"difference": 0},
        ),
        "a time with white space": Case(
            codes=("timestamp_header_mismatch",), headers={**headers_of(RAW), "X-Roovet-Timestamp": f" {NOW}"}
        ),
        "a time that is a date": Case(
            codes=("timestamp_header_mismatch",), headers={**headers_of(RAW), "X-Roovet-Timestamp": "today"}
        ),
        "t altered to be fresh": Case(
            codes=("timestamp_altered", "timestamp_header_mismatch"),
            headers={"X-Roovet-Signature": altered, "X-Roovet-Timestamp": str(NOW - 3600)},
            evidence={"signed": "the one in X-Roovet-Timestamp"},
        ),
        "the time of the event signed for t": Case(
            codes=("timestamp_altered",),
            headers=signed(digest_of(b"%d." % NOW + RAW), NOW + 7),
            evidence={"signed": "the ts of the event"},
        ),
        "the clock asked twice": Case(
            codes=("timestamp_altered",),
            raw=b"[]",
            headers=signed(digest_of(b"%d.[]" % NOW), NOW + 1),
            evidence={"signed": "-1 s"},
        ),
    }


def keys() -> dict[str, Case]:
    retired = Keyring([Secret(OTHER_SECRET, name="new"), Secret(SECRET, name="old", expires=NOW - 60)])
    early = Keyring([Secret(OTHER_SECRET, name="old"), Secret(SECRET, name="new", not_before=NOW + 60)])
    decoded = {"form": "hex", "decoded": "by the sender"}
    return {
        "a line break in the file": Case(codes=("secret_has_whitespace",), secret=f"{SECRET}\n"),
        "white space around bytes": Case(codes=("secret_has_whitespace",), secret=b" " + SECRET.encode()),
        "a byte order mark in the file": Case(
            codes=("secret_has_whitespace",), secret="\ufeff" + SECRET, evidence={"invisible": True}
        ),
        "a line break at the sender": Case(
            codes=("secret_has_whitespace",),
            headers=sent(RAW, f"{SECRET}\n"),
            evidence={"where": "at the sender", "secret": "default"},
        ),
        "quotation marks of the shell": Case(codes=("secret_is_quoted",), secret=f'"{SECRET}"'),
        "quotation marks and white space": Case(
            codes=("secret_has_whitespace", "secret_is_quoted"), secret=f"' {SECRET}'\n"
        ),
        "quotation marks at the sender": Case(codes=("secret_is_quoted",), headers=sent(RAW, f"'{SECRET}'")),
        "an API key": Case(
            codes=("secret_is_api_key", "wrong_secret_or_altered_body"), secret=API_KEY, reproduces=False
        ),
        "an API key at the sender as well": Case(
            codes=("secret_is_api_key",), secret=API_KEY, headers=sent(RAW, API_KEY)
        ),
        "a short secret": Case(codes=("secret_too_short",), secret="short", headers=sent(RAW, "short")),
        "one of a list": Case(
            codes=("secret_has_whitespace",), secret=[OTHER_SECRET, f"{SECRET}\n"], evidence={"secret": "secret-2"}
        ),
        "a good one beside a bad one": Case(
            codes=("secret_is_quoted",), secret=(Secret(SECRET, name="good"), f'"{OTHER_SECRET}"')
        ),
        "several in one text": Case(
            codes=("secrets_joined",), secret=f"{OTHER_SECRET},{SECRET}", evidence={"place": 2, "count": 2}
        ),
        "expired": Case(
            codes=("secret_retired",), secret=retired, evidence={"secret": "old", "state": "expired", "at": NOW - 60}
        ),
        "not yet in use": Case(codes=("secret_retired",), secret=early, evidence={"state": "not yet in use"}),
        "a variable that nothing has expanded": Case(
            codes=("secret_is_placeholder", "wrong_secret_or_altered_body"),
            secret="${ROOVET_WEBHOOK_SECRET}",
            reproduces=False,
        ),
        "with a line break in it": Case(
            codes=("secret_has_whitespace", "secret_has_whitespace", "wrong_secret_or_altered_body"),
            secret=f"{OTHER_SECRET}\n{OTHER_SECRET[::-1]}\n",
            reproduces=False,
        ),
        "without its prefix here": Case(codes=("secret_without_prefix",), secret=SECRET.removeprefix("whsec_")),
        "decoded from hex by the sender": Case(
            codes=("secret_decoded",),
            secret=HEX_SECRET,
            headers=sent(RAW, bytes.fromhex(HEX_SECRET)),
            evidence=decoded,
        ),
        "decoded from hex by the sender, without its prefix": Case(
            codes=("secret_decoded",), headers=sent(RAW, bytes.fromhex(SECRET.removeprefix("whsec_"))), evidence=decoded
        ),
        "decoded from base64 by the sender, as other libraries do": Case(
            codes=("secret_decoded",),
            secret=BASE64_SECRET,
            headers=sent(RAW, base64.b64decode(BASE64_SECRET.removeprefix("whsec_"))),
            evidence={"form": "base64"},
        ),
        "decoded from hex here": Case(
            codes=("secret_decoded",),
            secret=bytes.fromhex(HEX_SECRET),
            headers=sent(RAW, HEX_SECRET),
            evidence={"form": "hex", "decoded": "here"},
        ),
        "decoded from base64 here": Case(
            codes=("secret_decoded",),
            secret=base64.b64decode(BASE64_SECRET.removeprefix("whsec_")),
            headers=sent(RAW, BASE64_SECRET),
            evidence={"form": "base64", "decoded": "here"},
        ),
    }


def recipes() -> dict[str, Case]:
    t = b"%d" % NOW
    joined = {
        "nothing": (t + RAW, {"joiner": "", "order": "t, body"}),
        "a colon": (t + b":" + RAW, {"joiner": ":"}),
        "a line break": (t + b"\n" + RAW, {"joiner": "\n"}),
        "the backslash of a PHP string": (t + rb"\n" + RAW, {"joiner": "\\n"}),
        "t= before it": (b"t=" + t + b"." + RAW, {"before": "t=", "joiner": "."}),
        "the body first": (RAW + b"." + t, {"joiner": ".", "order": "body, t"}),
        "the body first, and nothing": (RAW + t, {"joiner": "", "order": "body, t"}),
    }
    algorithms = {"md5": "MD5", "sha1": "SHA-1", "sha224": "SHA-224", "sha384": "SHA-384", "sha512": "SHA-512"}
    return {
        "the body alone": Case(codes=("timestamp_not_signed",), headers=signed(digest_of(RAW))),
        "the body alone, and no t": Case(
            codes=("malformed_signature", "timestamp_not_signed"), headers={"X-Roovet-Signature": digest_of(RAW)}
        ),
        **{
            f"joined with {name}": Case(codes=("joiner_wrong",), headers=signed(digest_of(content)), evidence=evidence)
            for name, (content, evidence) in joined.items()
        },
        **{
            name: Case(
                codes=("wrong_algorithm",),
                headers=signed(digest_of(t + b"." + RAW, algorithm=algorithm)),
                evidence={"algorithm": name},
            )
            for algorithm, name in algorithms.items()
        },
        "SHA-1 of something else": Case(
            codes=("malformed_signature", "wrong_secret_or_altered_body"),
            headers=signed(hashlib.sha1(RAW).hexdigest()),  # noqa: S324 - the mistake
            evidence={"digits": 40, "item": 2},
            reproduces=False,
        ),
    }


def read_in_text_mode(raw: bytes, encoding: str = "utf-8") -> bytes:
    return io.TextIOWrapper(io.BytesIO(raw), encoding).read().encode()


def bodies() -> dict[str, Case]:
    indented = json.dumps(json.loads(RICH), indent=2).encode() + b"\n"
    crlf = indented.replace(b"\n", b"\r\n")
    windows = FRENCH.replace("à", "“à”")
    return {
        "an editor adds a line break": Case(
            codes=("body_trailing_newline",), raw=RAW + b"\n", evidence={"change": "added"}
        ),
        "$(cat file) removes it": Case(
            codes=("body_trailing_newline",), headers=headers_of(RAW + b"\n"), evidence={"change": "removed"}
        ),
        "the line break at the end becomes another": Case(
            codes=("body_crlf",), raw=RAW + b"\r\n", headers=headers_of(RAW + b"\n"), evidence={"signed": "LF"}
        ),
        "strip()": Case(
            codes=("body_trimmed",),
            raw=(b"\n" + RAW + b" \n").strip(),
            headers=headers_of(b"\n" + RAW + b" \n"),
            evidence={"change": "removed"},
        ),
        "rstrip()": Case(codes=("body_trimmed",), raw=RAW, headers=headers_of(RAW + b"    ")),
        "padded here": Case(codes=("body_trimmed",), raw=RAW + b" \t ", evidence={"change": "added"}),
        "white space before it": Case(codes=("body_trimmed",), raw=b"\n" + RAW, evidence={"change": "added"}),
        "written with a byte order mark": Case(
            codes=("body_bom",), raw=RAW.decode().encode("utf-8-sig"), evidence={"change": "added"}
        ),
        "read without its byte order mark": Case(
            codes=("body_bom",),
            raw=RAW,
            headers=headers_of(b"\xef\xbb\xbf" + RAW),
            evidence={"change": "removed"},
        ),
        "read in text mode": Case(
            codes=("body_crlf",),
            raw=read_in_text_mode(crlf),
            headers=headers_of(crlf),
            evidence={"signed": "CRLF"},
        ),
        "checked out with CRLF": Case(
            codes=("body_crlf",), raw=crlf, headers=headers_of(indented), evidence={"signed": "LF"}
        ),
        "checked out with CRLF, and the last one lost": Case(
            codes=("body_crlf", "body_trailing_newline"), raw=crlf.rstrip(), headers=headers_of(indented)
        ),
        "consumed": Case(codes=("body_empty",), raw=b"", evidence={"length": 0}, reproduces=False),
        "decoded as Latin-1": Case(
            codes=("body_reencoded",),
            raw=read_in_text_mode(FRENCH.encode(), "latin-1"),
            headers=headers_of(FRENCH.encode()),
            evidence={"taken_for": "latin-1", "side": "here"},
        ),
        "decoded as cp1252": Case(
            codes=("body_reencoded",),
            raw=read_in_text_mode("5 €".encode(), "cp1252"),
            headers=headers_of("5 €".encode()),
            evidence={"taken_for": "cp1252"},
        ),
        "encoded as Latin-1": Case(
            codes=("body_reencoded",),
            raw=FRENCH.encode("latin-1"),
            headers=headers_of(FRENCH.encode()),
            evidence={"held": "latin-1", "signed": "utf-8"},
        ),
        "encoded as cp1252": Case(
            codes=("body_reencoded",),
            raw=windows.encode("cp1252"),
            headers=headers_of(windows.encode()),
            evidence={"held": "cp1252"},
        ),
        "encoded twice by the sender": Case(
            codes=("body_reencoded",),
            raw=FRENCH.encode(),
            headers=headers_of(FRENCH.encode().decode("latin-1").encode()),
            evidence={"side": "sender"},
        ),
        "saved by PowerShell": Case(
            codes=("body_reencoded",), raw=RAW.decode().encode("utf-16"), evidence={"held": "utf-16"}
        ),
        "saved by PowerShell, with a line break": Case(
            codes=("body_reencoded",), raw=(RAW.decode() + "\r\n").encode("utf-16"), headers=headers_of(RAW)
        ),
        "in UTF-16 without a mark": Case(codes=("body_reencoded",), raw=RAW.decode().encode("utf-16-le")),
        "in UTF-16 from the other end": Case(codes=("body_reencoded",), raw=RAW.decode().encode("utf-16-be")),
        "still in base64": Case(codes=("body_base64",), raw=base64.b64encode(RAW)),
        "still in base64, in lines": Case(
            codes=("body_base64",), raw=base64.encodebytes(RICH), headers=headers_of(RICH)
        ),
        "still in gzip": Case(
            codes=("body_compressed",), raw=gzip.compress(RAW), evidence={"encoding": "gzip", "held": "compressed"}
        ),
        "still deflated": Case(codes=("body_compressed",), raw=zlib.compress(RAW), evidence={"encoding": "deflate"}),
        "still deflated, without a head": Case(
            codes=("body_compressed",), raw=zlib.compress(RAW, wbits=-15), evidence={"encoding": "deflate"}
        ),
        "decompressed after it was signed": Case(
            codes=("body_compressed",),
            headers=sent(gzip.compress(RAW, mtime=NOW)),
            evidence={"encoding": "gzip", "held": "plain"},
        ),
        "decompressed from what PHP and Node write": Case(
            codes=("body_compressed",), headers=sent(zlib.compress(RAW, 6, wbits=31)), evidence={"held": "plain"}
        ),
        "inflated after it was signed": Case(
            codes=("body_compressed",), headers=sent(zlib.compress(RAW)), evidence={"encoding": "deflate"}
        ),
        "declared as compressed, and altered": Case(
            codes=("body_compressed", "wrong_secret_or_altered_body"),
            raw=RAW + b"x",
            headers={**headers_of(RAW), "Content-Encoding": "br"},
            evidence={"encoding": "br"},
            reproduces=False,
        ),
        "in a compression that is not known here": Case(
            codes=("body_compressed", "wrong_secret_or_altered_body"),
            raw=b"\x28\xb5\x2f\xfd\x04\x00",
            evidence={"encoding": "zstd"},
            reproduces=False,
        ),
        "altered, with white space around it": Case(
            codes=("wrong_secret_or_altered_body",), raw=b"\n" + RAW.replace(b"123", b"124") + b"\n", reproduces=False
        ),
        "altered": Case(
            codes=("wrong_secret_or_altered_body",),
            raw=RAW.replace(b"123", b"124"),
            evidence={"json": True},
            reproduces=False,
        ),
        "cut short": Case(
            codes=("wrong_secret_or_altered_body",), raw=RAW[:-3], evidence={"json": False}, reproduces=False
        ),
    }


CASES = {
    f"{group.__name__}: {name}": case
    for group in (headers, times, keys, recipes, bodies)
    for name, case in group().items()
}

GENUINE = Case(codes=("ok",), evidence={"secret": "default", "skew": 0.0})


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_mistake_is_named_first(case: Case) -> None:
    found = case.explained()
    assert found.verdict == "refused"
    assert found.codes == case.codes
    assert case.evidence.items() <= found.findings[0].evidence.items()
    assert (found.secret_name is not None) == case.reproduces
    for finding in found.findings:
        assert finding.remedy in remedies_of(finding.code)
        assert len(finding.message) < 200


def test_every_code_is_named_first_by_some_mistake() -> None:
    written_again = {"body_reserialized"}  # in test_explain_forms.py
    assert {case.codes[0] for case in CASES.values()} | {"ok"} | written_again == set(CODES)


def test_a_genuine_delivery() -> None:
    found = GENUINE.explained()
    assert (found.verdict, found.codes, found.secret_name) == ("verified", ("ok",), "default")
    assert GENUINE.evidence.items() <= found.findings[0].evidence.items()


def test_the_genuine_delivery_of_any_secret_of_a_keyring() -> None:
    found = explain(RAW, headers_of(RAW), Keyring([OTHER_SECRET, SECRET]), now=NOW)
    assert (found.verdict, found.codes, found.secret_name) == ("verified", ("ok",), "secret-2")


def test_truncated_digests_are_genuine_where_they_are_accepted() -> None:
    header = f"t={NOW},v1={GOOD[:32]}"
    assert explain(RAW, header, SECRET, now=NOW, accept_truncated=True).codes == ("ok",)
    found = explain(RAW + b"\n", header.upper().replace("T=", "t=").replace("V1=", "v1="), SECRET, now=NOW)
    assert found.codes == ("truncated_digest", "uppercase_digest", "body_trailing_newline")
    both = explain(RAW, header.replace("v1=", "v1=A"), SECRET, now=NOW, accept_truncated=True)
    assert both.codes == ("malformed_signature",)


# Several mistakes at once: what has to be mended comes first


SEVERAL = {
    "late to look at": Case(
        codes=("body_trailing_newline", "stale"),
        raw=RAW + b"\n",
        options={"now": NOW + 7200},
        evidence={"change": "added"},
    ),
    "late, and nothing known": Case(
        codes=("stale", "wrong_secret_or_altered_body"), raw=b"{}", options={"now": NOW + 600}, reproduces=False
    ),
    "late, and the body consumed": Case(
        codes=("body_empty", "stale"), raw=b"", options={"now": NOW + 600}, reproduces=False
    ),
    "written again, under a secret with a line break": Case(
        codes=("secret_has_whitespace", "body_reserialized"),
        raw=json.dumps(json.loads(RAW)).encode(),
        secret=f"{SECRET}\n",
    ),
    "written again, and the digest cut": Case(
        codes=("truncated_digest", "body_reserialized"),
        raw=json.dumps(json.loads(RAW)).encode(),
        headers=f"t={NOW},v1={GOOD[:32]}",
    ),
    "in base64, under a secret that has expired": Case(
        codes=("secret_retired", "body_base64"),
        raw=base64.b64encode(RAW),
        secret=[OTHER_SECRET, Secret(SECRET, name="old", expires=NOW - 1)],
    ),
    "a secret that was in use when it was signed": Case(
        codes=("stale", "secret_retired"),
        secret=[Secret(SECRET, name="old", expires=NOW + 60), OTHER_SECRET],
        options={"now": NOW + 7200},
    ),
    "a secret that had expired when it was signed": Case(
        codes=("secret_retired", "stale"),
        secret=[Secret(SECRET, name="old", expires=NOW - 60), OTHER_SECRET],
        options={"now": NOW + 7200},
    ),
    "a secret that was not in use yet when it was signed": Case(
        codes=("secret_retired", "stale"),
        secret=Keyring([Secret(SECRET, name="new", not_before=NOW + 60, expires=NOW + 120), OTHER_SECRET]),
        options={"now": NOW + 7200},
    ),
    "without t, under a secret that is not in use": Case(
        codes=("malformed_signature", "secret_retired", "timestamp_not_signed"),
        headers={"X-Roovet-Signature": digest_of(RAW)},
        secret=Secret(SECRET, not_before=NOW + 60),
    ),
    "joined, and one of them late": Case(
        codes=("duplicate_header", "stale"),
        headers=f"t={NOW},v1={GOOD},t=1,v1={'0' * 64}",
        options={"now": NOW + 600},
        evidence={"joined": True},
    ),
    "two digests, one of them in base64": Case(
        codes=("base64_digest",), headers=f"t={NOW},v1={'0' * 64},v1={base64.b64encode(BINARY).decode()}"
    ),
    "two digests, of which the second holds for another body": Case(
        codes=("body_trailing_newline",), raw=RAW + b"\n", headers=f"t={NOW},v1={'0' * 64},v1={GOOD}"
    ),
    "an MD5 and a digest cut short": Case(
        codes=("wrong_algorithm",),
        headers=f"t={NOW},v1={digest_of(b'%d.' % NOW + RAW, algorithm='md5')},v1={'0' * 32}",
    ),
    "an unsigned time only, and another body": Case(
        codes=("malformed_signature", "wrong_secret_or_altered_body"),
        raw=b"{}",
        headers={"X-Roovet-Signature": GOOD, "X-Roovet-Timestamp": str(NOW)},
        reproduces=False,
    ),
    "32 digits of another secret, where they are accepted": Case(
        codes=("wrong_secret_or_altered_body",),
        headers=f"t={NOW},v1={digest_of(b'', OTHER_SECRET)[:32]}",
        options={"accept_truncated": True},
        reproduces=False,
    ),
    "32 digits beside a fault, where they are accepted": Case(
        codes=("malformed_signature",), headers=f"t=0{NOW},v1={GOOD[:32]}", options={"accept_truncated": True}
    ),
    "no signature, and no body": Case(codes=("missing_signature",), raw=b"", headers={}, reproduces=False),
    "no signature, and a secret in quotation marks": Case(
        codes=("secret_is_quoted", "missing_signature"), headers={}, secret=f'"{SECRET}"', reproduces=False
    ),
    "read in text mode and written by PowerShell": Case(
        codes=("body_reencoded",), raw=(RAW.decode() + "\r\n").encode("utf-16"), headers=headers_of(RAW + b"\n")
    ),
    "a JSON string that holds the JSON": Case(
        codes=("body_reserialized",),
        raw=json.dumps(RAW.decode()).encode(),
        evidence={"form": "not wrapped in a JSON string"},
    ),
    "an unsigned time, and the digest alone": Case(
        codes=("malformed_signature", "body_trailing_newline"),
        raw=RAW + b"\n",
        headers={"X-Roovet-Signature": GOOD, "X-Roovet-Timestamp": str(NOW)},
    ),
    "both headers twice": Case(
        codes=("duplicate_header", "duplicate_header"), headers=[*headers_of(RAW).items(), *headers_of(RAW).items()]
    ),
    "an empty line beside the signature": Case(
        codes=("duplicate_header",), headers=[*headers_of(RAW).items(), ("X-Roovet-Signature", "")]
    ),
}


@pytest.mark.parametrize("case", SEVERAL.values(), ids=SEVERAL)
def test_what_has_to_be_mended_comes_first(case: Case) -> None:
    test_a_mistake_is_named_first(case)


# What is no mistake of a delivery


@pytest.mark.parametrize(
    "secret",
    ["", "  ", b"", None, 5, [], [""], ["good_5f2b8c1e9a7d4036b1c2d3e4", None], "\u00a0"],
    ids=["empty", "blank", "no bytes", "None", "number", "none", "an empty one", "one is None", "no-break space"],
)
def test_no_secret(secret: Any) -> None:  # noqa: ANN401 - any secret is the point
    with pytest.raises(ConfigurationError):
        explain(RAW, headers_of(RAW), secret, now=NOW)


def test_two_secrets_of_one_name() -> None:
    twins = [Secret(SECRET), Secret(OTHER_SECRET)]
    with pytest.raises(ConfigurationError, match="names of their own"):
        explain(RAW, headers_of(RAW), twins, now=NOW)


@pytest.mark.parametrize("raw", ["{}", {}, None, bytearray(RAW)], ids=repr)
def test_a_body_that_is_no_bytes(raw: Any) -> None:  # noqa: ANN401 - any body is the point
    with pytest.raises(TypeError, match="raw must be the body's bytes"):
        explain(raw, headers_of(RAW), SECRET, now=NOW)


@pytest.mark.parametrize("given", [5, ["X-Roovet-Signature"], [("a", "b", "c")], print], ids=repr)
def test_headers_that_are_none(given: Any) -> None:  # noqa: ANN401 - any headers are the point
    with pytest.raises(ConfigurationError, match="headers must be a mapping"):
        explain(RAW, given, SECRET, now=NOW)


@pytest.mark.parametrize(
    "options", [{"now": "today"}, {"now": 10**400}, {"tolerance": -1}, {"tolerance": float("inf")}]
)
def test_options_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="must be a number of"):
        explain(RAW, headers_of(RAW), SECRET, **options)


def test_the_clock_is_the_system_s_unless_one_is_given() -> None:
    assert explain(RAW, sign(RAW, SECRET), SECRET).codes == ("ok",)
    assert explain(RAW, headers_of(RAW), SECRET).codes == ("stale",)


def test_names_of_headers_that_are_no_text_are_passed_over() -> None:
    odd: Any = {5: "x", None: "y", **headers_of(RAW)}
    assert explain(RAW, odd, SECRET, now=NOW).codes == ("ok",)


def test_a_header_that_is_none_is_absent() -> None:
    odd: Any = {**headers_of(RAW), "X-Roovet-Timestamp": None}
    assert explain(RAW, odd, SECRET, now=NOW).codes == ("ok",)
    assert explain(RAW, {"X-Roovet-Signature": odd.get("x")}, SECRET, now=NOW).codes == ("missing_signature",)


def test_the_headers_of_the_frameworks() -> None:
    pairs = headers_of(RAW)
    environ = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in pairs.items()}
    for given in (
        starlette.datastructures.Headers(pairs),
        httpx.Headers(pairs),
        werkzeug.datastructures.Headers(pairs),
        werkzeug.datastructures.EnvironHeaders(environ),
        django.http.request.HttpHeaders(environ),
    ):
        assert explain(RAW, given, SECRET, now=NOW).codes == ("ok",)
