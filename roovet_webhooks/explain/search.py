"""The search for the mistake: which key, over which bytes, by which algorithm, gives the digest that was sent.

From the likely to the unlikely, and it ends with the first that agrees. Each body is made once and fed to one MAC for
each key; what may have stood at its end goes into copies of that MAC, which costs next to nothing.
"""

from __future__ import annotations

from hmac import compare_digest
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from roovet_webhooks.explain.bodies import end_finding, ends_of, reserialized, variants
from roovet_webhooks.explain.codes import finding
from roovet_webhooks.explain.forms import HUGE, Document
from roovet_webhooks.signing.header import DIGEST_BYTES, TRUNCATED_DIGEST_BYTES
from roovet_webhooks.signing.mac import OTHERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cryptography.hazmat.primitives.hmac import HMAC

    from roovet_webhooks.explain.header import Reading
    from roovet_webhooks.explain.secrets import Key
    from roovet_webhooks.findings import Finding

# What stands between t and the body, where somebody has read the recipe in haste, and what before t.
_JOINERS = ("", ":", "\n", ",", "|", " ", "-", "_", ";", "&", "/", "\r\n", "\\n", "\t")
_JOINTS = (*(("", joiner) for joiner in _JOINERS), ("t=", "."), ("t=", ","), ("v1:", ":"))
_LIKELY_JOINTS = _JOINTS[:2]


class Match(NamedTuple):
    """What reproduces the digest.

    Attributes:
        key: The key.
        findings: What is wrong beside what the key itself says: none where the digest is as it should be.
        length: Bytes of the digest.
        literal: The text of ``t`` in the header, as far as that was signed.
    """

    key: Key
    findings: tuple[Finding, ...]
    length: int
    literal: bytes | None = None


class Search:
    """One search, of one body.

    Args:
        raw: The body.
        reading: What the headers say.
        keys: The keys of the secrets that are held.

    Attributes:
        document: The body as JSON.
        tried: How many keys and bodies were tried together.
    """

    def __init__(self, raw: bytes, reading: Reading, keys: Sequence[Key]) -> None:
        self._raw = raw
        self._huge = len(raw) > HUGE
        self.document: Document = Document(raw)
        self._reading = reading
        self._keys = keys
        self._digests = [digest for digest in reading.digests if len(digest) in {DIGEST_BYTES, TRUNCATED_DIGEST_BYTES}]
        self.tried: int = 0

    def run(self) -> Match | None:
        """Return the first that reproduces a digest; ``None`` when nothing does."""
        steps = [self._other_algorithms()]
        if self._digests:
            steps += [self._bodies(), self._near_keys(), self._body_alone(), self._joined(), self._other_times()]
            steps.append(self._orders())
        return next(chain.from_iterable(steps), None)

    def _agreed(self, mac: HMAC) -> int | None:
        """Return the length of the digest that a MAC agrees with."""
        self.tried += 1
        for digest in self._digests:
            # The right digest of what is not verified is held by no variable that a traceback could show.
            if compare_digest(mac.copy().finalize()[: len(digest)], digest):
                return len(digest)
        return None

    def _over(self, key: Key, *parts: bytes) -> HMAC:
        mac = key.mac()
        for part in parts:
            mac.update(part)
        return mac

    def _bodies(self) -> Iterator[Match]:
        tried: list[tuple[bytes, bytes]] = []
        for variant in variants(self._raw, self.document, self._reading.seconds()):
            # Comparing bytes is cheap: most differ in their length or near their beginning.
            if (variant.lead, variant.core) in tried:
                continue
            tried.append((variant.lead, variant.core))
            ends = list(dict.fromkeys(ends_of(variant.end, padded=variant.finding is None)))
            for key in self._keys:
                for literal in self._reading.literals:
                    mac = self._over(key, literal, b".", variant.lead, variant.core)
                    for end in ends:
                        ended = mac.copy()
                        ended.update(end)
                        if (length := self._agreed(ended)) is not None:
                            findings = [] if variant.finding is None else [variant.finding]
                            if end != variant.end and not variant.any_end:
                                findings.append(end_finding(variant.end, end))
                            yield Match(key, tuple(findings), length, literal)

    def _orders(self) -> Iterator[Match]:
        """Return matches of the same JSON with its keys in another order than the usual ones."""
        for text, words in self.document.orders():
            for key in self._keys:
                for literal in self._reading.literals:
                    if (length := self._agreed(self._over(key, literal, b".", text))) is not None:
                        yield Match(key, (reserialized(self.document, words),), length, literal)

    def _near_keys(self) -> Iterator[Match]:
        for key in self._keys:
            for near in key.near(thorough=not self._huge):
                for literal in self._reading.literals:
                    if (length := self._agreed(self._over(near, literal, b".", self._raw))) is not None:
                        yield Match(near, (), length, literal)

    def _body_alone(self) -> Iterator[Match]:
        """Return matches without t, or with it after the body: one MAC of the body serves for all."""
        for key in self._keys:
            mac = self._over(key, self._raw)
            if (length := self._agreed(mac)) is not None:
                yield Match(key, (finding("timestamp_not_signed", "the digest is that of the body alone"),), length)
            for literal in self._reading.literals:
                for joiner in (".", *_JOINERS):
                    ended = mac.copy()
                    ended.update(joiner.encode() + literal)
                    if (length := self._agreed(ended)) is not None:
                        message = f"the digest is that of the body, {joiner!r} and t, in this order"
                        found = finding("joiner_wrong", message, joiner=joiner, order="body, t")
                        yield Match(key, (found,), length, literal)

    def _joined(self) -> Iterator[Match]:
        for before, joiner in _LIKELY_JOINTS if self._huge else _JOINTS:
            for key in self._keys:
                for literal in self._reading.literals:
                    mac = self._over(key, before.encode() + literal + joiner.encode(), self._raw)
                    if (length := self._agreed(mac)) is not None:
                        first = f"{before!r}, t" if before else "t"
                        message = f"the digest is that of {first}, {joiner!r} and the body; it is t, '.' and the body"
                        found = finding("joiner_wrong", message, joiner=joiner, before=before, order="t, body")
                        yield Match(key, (found,), length, literal)

    def _other_times(self) -> Iterator[Match]:
        for literal, source in dict(self._times()).items():
            if literal in self._reading.literals:
                continue
            for key in self._keys:
                if (length := self._agreed(self._over(key, literal, b".", self._raw))) is not None:
                    message = f"the digest is that of another t than the header has: {source}"
                    yield Match(key, (finding("timestamp_altered", message, signed=source),), length)

    def _times(self) -> Iterator[tuple[bytes, str]]:
        if self._reading.unsigned:
            yield self._reading.unsigned, "the one in X-Roovet-Timestamp"
        moment = self.document.time
        if moment is not None:
            yield b"%d" % moment, "the ts of the event"
        seconds = self._reading.seconds()
        if seconds is not None and not self._huge:
            for difference in (-1, 1, -2, 2):
                yield b"%d" % (seconds + difference), f"{difference:+d} s"

    def _other_algorithms(self) -> Iterator[Match]:
        """Return matches of another algorithm, which the length of a digest names."""
        for digest in self._reading.digests:
            for key in self._keys:
                for literal in self._reading.literals:
                    mac = key.other(len(digest))
                    if mac is not None:
                        self.tried += 1
                        mac.update(literal + b".")
                        mac.update(self._raw)
                        if compare_digest(mac.finalize(), digest):
                            name = OTHERS[len(digest)][0]
                            message = f"the digest is HMAC-{name}'s"
                            found = finding("wrong_algorithm", message, algorithm=name)
                            yield Match(key, (found,), len(digest), literal)
