"""A request that somebody saved or pasted: what its readers make of it, and what they say when they cannot.

The readers never quote what they read: it may be a secret that was saved or pasted in the wrong place.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Unreadable(click.ClickException):
    """What was given is not the request that was asked for; the message says where and why."""


@dataclass(frozen=True, slots=True, repr=False)
class Pasted:
    """A request as far as its signature is concerned.

    Attributes:
        headers: Pairs of name and value, in their order, each as often as it stands.
        body: The body as it was sent.
        notes: What a person should know of how it was read, in sentences.
    """

    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    notes: Sequence[str]


def without_mark(content: bytes, notes: list[str]) -> bytes:
    """Return a saved text without the byte order mark that an editor put before it, and note that.

    Raises:
        Unreadable: It is UTF-16, so that no byte of it is as it was sent.
    """
    if content.startswith(_UTF16):
        message = (
            "this is UTF-16, as PowerShell's > and some editors write: the bytes that were signed are gone; "
            "save the request as it came, or as UTF-8"
        )
        raise Unreadable(message)
    if content.startswith(codecs.BOM_UTF8):
        notes.append("A byte order mark before the request was left out: an editor put it there.")
        return content.removeprefix(codecs.BOM_UTF8)
    return content


def about_method(method: bytes) -> list[str]:
    """Note a method that no receiver accepts."""
    return [] if method == b"POST" else ["The method is not POST, so a receiver answers 405 before it looks further."]
