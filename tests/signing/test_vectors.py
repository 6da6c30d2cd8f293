"""Others computed these: RFC 4231 for the MAC, PHP for whole deliveries."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import b64decode
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.exceptions import UnsupportedAlgorithm

from roovet_webhooks import MalformedSignature, Secret, SignatureMismatch, Verified, Verifier, sign, verify
from roovet_webhooks.errors import TimestampError
from roovet_webhooks.signing.mac import OTHERS, fresh, keyed, other

VECTORS = Path(__file__).parent / "vectors"


def _load(name: str) -> list[dict[str, Any]]:
    vectors: list[dict[str, Any]] = json.loads((VECTORS / name).read_text("utf-8"))
    assert vectors
    return vectors


RFC = _load("rfc4231_hmac_sha256.json")
PHP = _load("php_sender.json")


def _raw(vector: dict[str, Any]) -> bytes:
    return b64decode(vector["raw_base64"]) if "raw_base64" in vector else str(vector["raw"]).encode()


rfc = pytest.mark.parametrize("vector", RFC, ids=[f"case-{vector['tc']}" for vector in RFC])
php = pytest.mark.parametrize("vector", PHP, ids=[f"{number}-{vector['name']}" for number, vector in enumerate(PHP)])


class _AnyKey:
    """A key of any length: RFC 4231 has keys that `Secret` refuses."""

    def __init__(self, key: bytes) -> None:
        self.keyed = None
        self._key = key

    def reveal(self) -> bytes:
        return self._key


@rfc
def test_rfc_4231(vector: dict[str, Any]) -> None:
    mac = keyed(cast("Secret", _AnyKey(bytes.fromhex(vector["key"])))).copy()
    mac.update(bytes.fromhex(vector["data"]))
    digest = mac.finalize()
    expected = bytes.fromhex(vector["mac"])
    assert len(expected) * 8 == vector["bits"]
    assert digest[: len(expected)] == expected


def test_a_secret_is_keyed_once_and_stays_good() -> None:
    secret = Secret("whsec_5f2b8c1e9a7d4036b1c2d3e4f5061728")
    mac = keyed(secret)
    assert keyed(secret) is mac is secret.keyed
    copy = mac.copy()
    copy.update(b"something")
    assert copy.finalize() != keyed(secret).copy().finalize() == fresh(secret.reveal()).finalize()


@pytest.mark.parametrize("shown", ["MD5", "SHA-1", "SHA-224", "SHA-384", "SHA-512"])
def test_the_other_algorithms_are_what_the_standard_library_computes(shown: str) -> None:
    name = shown.lower().replace("-", "")
    key, length = b"a key of some length", hashlib.new(name).digest_size
    assert OTHERS[length][0] == shown
    mac = other(key, length)
    assert mac is not None
    mac.update(b"a message")
    assert mac.finalize() == hmac.digest(key, b"a message", name)


def test_an_algorithm_that_openssl_does_not_have_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        message = "not in FIPS mode"
        raise UnsupportedAlgorithm(message)

    monkeypatch.setattr("roovet_webhooks.signing.mac.HMAC", refuse)
    assert other(b"a key", 16) is None


def test_no_algorithm_verifies_by_another_name() -> None:
    assert [length for length in range(100) if other(b"a key", length)] == [16, 20, 28, 48, 64]
    assert fresh(b"a key").finalize() == hmac.digest(b"a key", b"", "sha256")


def test_rfc_4231_has_a_truncated_case_of_the_leftmost_128_bits() -> None:
    assert [vector["tc"] for vector in RFC if vector["bits"] == 128] == [5]


@php
def test_a_digest_cut_to_128_bits_is_refused_unless_asked_for(vector: dict[str, Any]) -> None:
    raw, secret = _raw(vector), vector["secret"]
    cut = vector["header"][:-32]
    with pytest.raises(MalformedSignature, match="accept_truncated"):
        verify(raw, cut, secret, now=vector["t"])
    assert verify(raw, cut, secret, now=vector["t"], accept_truncated=True).timestamp == vector["t"]
    rightmost = f"t={vector['t']},v1={vector['header'][-32:]}"
    with pytest.raises(SignatureMismatch):
        verify(raw, rightmost, secret, now=vector["t"], accept_truncated=True)


@php
def test_what_php_signed_is_accepted(vector: dict[str, Any]) -> None:
    raw, secret = _raw(vector), vector["secret"]
    assert verify(raw, vector["header"], secret, now=vector["t"]) == Verified(vector["t"], "default")
    assert Verifier(secret.encode()).verify(raw, vector["header"].encode(), now=vector["t"]).timestamp == vector["t"]


@php
def test_we_sign_as_php_does(vector: dict[str, Any]) -> None:
    assert sign(_raw(vector), vector["secret"], timestamp=vector["t"]) == vector["header"]


@php
def test_a_changed_body_is_refused(vector: dict[str, Any]) -> None:
    raw = bytearray(_raw(vector))
    verifier = Verifier(vector["secret"])
    for place in {0, len(raw) // 2, len(raw) - 1} & set(range(len(raw))):
        raw[place] ^= 1
        with pytest.raises(SignatureMismatch):
            verifier.verify(bytes(raw), vector["header"], now=vector["t"])
        raw[place] ^= 1
    for changed in (bytes(raw) + b"\n", b" " + bytes(raw), bytes(raw)[:-1] or b"x"):
        with pytest.raises(SignatureMismatch):
            verifier.verify(changed, vector["header"], now=vector["t"])


@php
def test_a_changed_t_is_refused(vector: dict[str, Any]) -> None:
    raw = _raw(vector)
    t = str(vector["t"])
    for place in range(len(t)):
        digit = "1" if t[place] != "1" else "2"
        header = vector["header"].replace(f"t={t}", f"t={t[:place]}{digit}{t[place + 1 :]}", 1)
        with pytest.raises((SignatureMismatch, TimestampError)):
            verify(raw, header, vector["secret"], now=vector["t"])
        # With our clock moved along, what refuses it is the MAC alone.
        moved = int(header[2 : header.index(",")])
        with pytest.raises(SignatureMismatch):
            verify(raw, header, vector["secret"], now=moved)


@php
def test_a_changed_digest_is_refused(vector: dict[str, Any]) -> None:
    raw, header = _raw(vector), vector["header"]
    verifier = Verifier(vector["secret"])
    for place in range(header.index("v1=") + 3, len(header)):
        digit = "0" if header[place] != "0" else "1"
        with pytest.raises(SignatureMismatch):
            verifier.verify(raw, header[:place] + digit + header[place + 1 :], now=vector["t"])


@php
def test_another_secret_is_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(SignatureMismatch) as caught:
        verify(_raw(vector), vector["header"], vector["secret"] + "x", now=vector["t"])
    assert caught.value.secrets_tried == ("default",)
