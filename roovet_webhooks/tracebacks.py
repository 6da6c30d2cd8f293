"""What may be kept or shown of an exception: its class, its message without secrets, and where it was raised."""

from __future__ import annotations

import re
import sysconfig
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

MESSAGE_CHARACTERS = 500
_FRAMES = 5
_LINE_CHARACTERS = 300
_SUB_EXCEPTIONS = 3
_SHORTEST_BODY = 8

_PACKAGE = str(Path(__file__).parent)
_LIBRARIES = (_PACKAGE, sysconfig.get_path("stdlib"), "<frozen ")

_SECRETS = (
    (re.compile(r"\bwhsec_[\w\-+/=]+"), "whsec_…"),
    (re.compile(r"\brvpk_[\w\-+/=]+"), "rvpk_…"),
    (re.compile(r"(://[^\s/:@]*):[^\s/@]+@"), r"\1:…@"),
    (re.compile(r"\bv1=[0-9a-fA-F]{16,}"), "v1=…"),
)


def is_library(filename: str) -> bool:
    """Return whether a traceback's file is none of the user's: this package, an installed one, or Python itself."""
    return filename.startswith(_LIBRARIES) or "site-packages" in filename


def own_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """Return the frames of an exception that are in the user's files, the innermost last."""
    return [frame for frame in traceback.extract_tb(error.__traceback__) if not is_library(frame.filename)]


def short_traceback(error: BaseException) -> str:
    """Return where an exception was raised: its last frames in the user's code, one a line, without variables.

    Where an application is itself installed as a package none of its files looks like the user's; then the last frames
    outside of this package are taken.
    """
    error = _innermost(error)
    frames = own_frames(error) or [
        frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_LIBRARIES)
    ]
    lines = (f"{frame.filename}:{frame.lineno} in {frame.name}: {frame.line or ''}" for frame in frames[-_FRAMES:])
    return "\n".join(shortened(line.removesuffix(": "))[:_LINE_CHARACTERS] for line in lines)


def message_of(error: BaseException, raw: bytes = b"") -> str:
    """Return an exception's message, cut short: without secrets, API keys, passwords of URLs, signatures or the body.

    Parts of the body may still be in it: a validation error quotes the value that it refuses.

    Args:
        error: The exception; of a group, its exceptions are named too.
        raw: The body of the delivery that was handled.
    """
    text = "; ".join(_messages(error))
    if len(raw) >= _SHORTEST_BODY:
        for body in (raw.decode("utf-8", "replace"), repr(raw)[2:-1]):
            text = text.replace(body, "(body)")
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return shortened(text)


def shortened(text: str) -> str:
    """Return a text cut to 500 characters, without the characters that no store holds."""
    text = text[:MESSAGE_CHARACTERS].replace("\x00", "\N{REPLACEMENT CHARACTER}")
    return text.encode("utf-8", "replace").decode()


def _messages(error: BaseException) -> Iterator[str]:
    try:
        yield str(error)
    except Exception:  # noqa: BLE001 - the user's own class
        yield "(its message cannot be read)"
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        for each in group.exceptions[:_SUB_EXCEPTIONS]:
            yield f"{type(each).__name__}: {'; '.join(_messages(each))}"


def _innermost(error: BaseException) -> BaseException:
    """Return the first exception of a group that is no group, which says more than the group."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error
