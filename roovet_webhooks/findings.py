"""A problem with its remedy, wherever one is found: in a delivery, an inbox, a task queue, a database, an endpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

Level: TypeAlias = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem, or the statement that there is none.

    Attributes:
        code: Stable identifier of the cause, such as ``body_trailing_newline`` or ``dead_letters``.
        message: What was found, in a sentence. It holds no secret and no digest.
        remedy: What to do about it, in a sentence; empty if there is no problem.
        evidence: Facts behind it, such as ``skew`` (seconds) or ``item`` (place in the header, from 1). They are safe
            to log, and plain enough for JSON.
        level: ``ok`` if there is no problem, and ``warning`` if nothing is lost.
        subject: What was examined, such as ``store`` or ``workers of default``; empty for a delivery.
    """

    code: str
    message: str
    remedy: str = ""
    evidence: Mapping[str, object] = field(default_factory=dict[str, object])
    level: Level = "error"
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What `explain` found.

    Attributes:
        verdict: What `verify` says of the same request: ``verified`` or ``refused``.
        findings: At least one, the most likely cause first. The only one is ``ok`` when it is verified.
        secret_name: Name of the secret that reproduces the given digest, under the mistake or without one; ``None``
            when none does.
    """

    verdict: Literal["verified", "refused"]
    findings: tuple[Finding, ...]
    secret_name: str | None = None

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of the findings, in their order."""
        return tuple(finding.code for finding in self.findings)
