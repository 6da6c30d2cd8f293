"""Takes a pasted command apart into its words, as the shell would that it was written for. No shell is run.

Two ways of quoting are read, both of which browsers write ("Copy as cURL"): that of bash with its ``$'…'``, and
that of Windows' ``cmd`` with the rules of Microsoft's C runtime behind it. Nothing is expanded.
"""

from __future__ import annotations

import re
import sys
from typing import NoReturn

from roovet_webhooks.cli.pasted import Unreadable

# Repetitions are possessive (++, *+): what is not closed must not be tried in every way.
_BASH = re.compile(
    rb"""
      (?P<blank>     [ \t]+ (?: (?: \\ \r?\n )*+ \# [^\r\n]* )? )
    | (?P<continued> \\ (?: \r?\n | \Z ) )
    | (?P<escaped>   \\ . )
    | (?P<single>    ' [^']*+ ' )
    | (?P<ansi>      \$' (?: [^'\\]++ | \\. )*+ ' )
    | (?P<double>    \$?" (?: [^"\\]++ | \\. )*+ " )
    | (?P<unclosed>  \$?['"] )
    | (?P<end>       \r?\n | [|&;<>()] )
    | (?P<caret>     \^ (?= " | \r?\n ) )
    | (?P<plain>     [^ \t\r\n'"\\|&;<>()^$`]+ | . )
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_IN_DOUBLE_QUOTES = {b"\\\r\n": b"", b"\\\n": b"", b"\\$": b"$", b"\\`": b"`", b'\\"': b'"'}
_ANSI = re.compile(
    rb"""\\(?:
      (?P<letter>  [abeEfnrtv\\'"?] )
    | (?P<octal>   [0-7]{1,3} )
    | x(?P<byte>   [0-9A-Fa-f]{1,2} )
    | u(?P<high>   [Dd][89ABab][0-9A-Fa-f]{2} ) \\u (?P<low> [Dd][C-Fc-f][0-9A-Fa-f]{2} )
    | u(?P<short>  [0-9A-Fa-f]{1,4} )
    | U(?P<long>   [0-9A-Fa-f]{1,8} )
    | c(?P<control> \\\\ | . )
    )""",
    re.VERBOSE | re.DOTALL,
)
_LETTERS = dict(zip(b"abeEfnrtv\\'\"?", b"\a\b\x1b\x1b\f\n\r\t\v\\'\"?", strict=True))

# A body has tens of thousands of escapes: each pattern takes as many of them at a time as follow each other.
_CMD = re.compile(rb'(?P<escaped>(?:\^\n?+.|[^^"\n|&<>])++)|\^\n?+|(?P<quote>")|(?P<end>[\n|&<>])', re.DOTALL)
_CARET = re.compile(rb"\^\n?+(.)", re.DOTALL)
# Between quotation marks a caret is a caret.
_CMD_QUOTED = re.compile(rb'(?P<quote>")|(?P<end>\n)|[^"\n]+')
# For the C runtime, backslashes are special only before a quotation mark, and two marks within marks are one.
_ARGUMENTS = re.compile(
    rb'(?P<blank>[ \t]+)|(?P<plain>(?:[^ \t"\\]|\\(?:\\\\)*+"|\\++(?!"))++)|(?P<slashes>\\*)(?P<quote>")'
)
_QUOTED_ARGUMENTS = re.compile(rb'(?P<plain>(?:[^"\\]|\\(?:\\\\)*+"|\\++(?!"))++)|(?P<slashes>\\*)(?P<quote>")')
_QUOTE = re.compile(rb'\\((?:\\\\)*+)"')

_BASH_EXPANSION = re.compile(rb"\$[A-Za-z_({]|`")
_CMD_EXPANSION = re.compile(rb"%[A-Za-z_]\w*%")


class _WrittenForCmd(Exception):
    """The command turned out to be in the quoting of Windows' cmd."""


def words_of(command: bytes, notes: list[str]) -> list[bytes]:
    r"""Return the words of a command.

    Args:
        command: One command, over several lines where each but the last ends in ``\`` (under cmd: ``^``).
        notes: Gets sentences on how it was read.

    Raises:
        Unreadable: A quotation mark is not closed, or more than one command is there.
    """
    try:
        words, expansion = _bash_words(command)
    except _WrittenForCmd:
        words, expansion = _cmd_words(command.replace(b"\r\n", b"\n"))
        notes.append("Read as a command for Windows' cmd.")
        if any(b"\\\\" in word for word in words):
            notes.append(
                "It has doubled backslashes: Chrome doubles them for cmd, and Windows does not undo it. Where the body "
                "has single ones, copy as cURL (bash)."
            )
    if expansion:
        notes.append(
            "No shell was run: what looks like a variable or a command to be replaced stayed as it stands. Where your "
            "shell put something else in its place, paste that."
        )
    return words


def _bash_words(command: bytes) -> tuple[list[bytes], bool]:
    words: list[bytearray] = []
    within = False
    before = None
    expansion = False
    for token in _BASH.finditer(command):
        kind = token.lastgroup
        if kind == "caret" or kind == before == "double":
            # cmd's escape and its continuation; and its way to write a quotation mark within quotation marks.
            raise _WrittenForCmd
        before = kind
        if kind == "end":
            _check_nothing_follows(command, token)
            break
        if kind == "unclosed":
            _refuse_unclosed(command, token.start())
        if kind == "blank":
            within = False
        elif kind != "continued":
            if not within:
                words.append(bytearray())
                within = True
            words[-1] += _meant(kind, token[0])
            expansion |= _would_expand(kind, command, token)
    return [bytes(word) for word in words], expansion


def _meant(kind: str | None, text: bytes) -> bytes:
    """Return what a piece of a word stands for."""
    if kind == "escaped":
        return text[1:]
    if kind == "single":
        return text[1:-1]
    if kind == "ansi":
        return _ANSI.sub(_ansi, text[2:-1])
    if kind == "double":
        return _without_escapes(text.removeprefix(b"$")[1:-1])
    return text


def _without_escapes(text: bytes) -> bytes:
    """Return what double quotes hold for bash.

    It replaces all escapes of a kind at once, since a body has tens of thousands of them. Between two escaped
    backslashes each backslash begins an escape.
    """
    parts = text.split(rb"\\")
    for escape, meant in _IN_DOUBLE_QUOTES.items():
        parts = [part.replace(escape, meant) for part in parts]
    return b"\\".join(parts)


def _would_expand(kind: str | None, command: bytes, token: re.Match[bytes]) -> bool:
    if kind == "double":
        return _BASH_EXPANSION.search(_ESCAPED.sub(b"", token[0])) is not None
    return kind == "plain" and _BASH_EXPANSION.match(command, token.start()) is not None


def _ansi(escape: re.Match[bytes]) -> bytes:
    kind = escape.lastgroup
    if kind == "letter":
        return bytes((_LETTERS[escape[kind][0]],))
    if kind == "control":
        return b"\x7f" if escape[kind] == b"?" else bytes((escape[kind][0] & 0x1F,))
    if kind == "octal":
        return bytes((int(escape[kind], 8) & 0xFF,))
    if kind == "byte":
        return bytes((int(escape[kind], 16),))
    if kind == "low":
        # bash would write each half by itself, which is no UTF-8; the browser meant the one character.
        pair = bytes.fromhex((escape["high"] + escape["low"]).decode())
        return pair.decode("utf-16-be").encode()
    point = int(escape[kind or 0], 16)
    if point > sys.maxunicode:
        message = f"\\U{point:x} is no character: Unicode ends at 10ffff"
        raise Unreadable(message)
    return chr(point).encode("utf-8", "surrogatepass")


def _cmd_words(command: bytes) -> tuple[list[bytes], bool]:
    line = _without_carets(command)
    words: list[bytearray] = []
    within = quoted = False
    at = 0
    while token := (_QUOTED_ARGUMENTS if quoted else _ARGUMENTS).match(line, at):
        at = token.end()
        if token.lastgroup == "blank":
            within = False
            continue
        if not within:
            words.append(bytearray())
            within = True
        if token["quote"] is None:
            words[-1] += _without_slashes(token[0])
            continue
        words[-1] += token["slashes"][::2]
        if quoted and line.startswith(b'"', at):
            words[-1] += b'"'
            at += 1
        else:
            quoted = not quoted
    if quoted:
        _refuse_unclosed(command, 0)
    return [bytes(word) for word in words], _CMD_EXPANSION.search(line) is not None


def _without_slashes(text: bytes) -> bytes:
    """Return what stands for escaped quotation marks, and for the backslashes before them."""
    if b"\\\\" not in text:
        return text.replace(b'\\"', b'"')
    return _QUOTE.sub(lambda escape: escape[1][::2] + b'"', text)


def _without_carets(command: bytes) -> bytes:
    """Return the line that cmd hands to a program."""
    line = bytearray()
    quoted = False
    at = 0
    while token := (_CMD_QUOTED if quoted else _CMD).match(command, at):
        at = token.end()
        kind = token.lastgroup
        if kind == "end":
            _check_nothing_follows(command, token)
            break
        quoted = quoted != (kind == "quote")
        if kind == "escaped":
            line += _unescaped(token[0])
        elif kind is not None or quoted:  # a caret at the very end stands for nothing
            line += token[0]
    return bytes(line)


def _unescaped(text: bytes) -> bytes:
    """Return what stands for escapes of cmd."""
    if b"^\n^" in text:
        return _CARET.sub(lambda escape: escape[1], text)
    return b"^".join(part.replace(b"^\n", b"").replace(b"^", b"") for part in text.split(b"^^"))


def _check_nothing_follows(command: bytes, end: re.Match[bytes]) -> None:
    """Check that what ends the command in a shell is the end of what was pasted.

    Raises:
        Unreadable: More follows, or what ends it joins it to something.
    """
    ends = end[0] in {b"\n", b"\r\n", b";", b"&"}
    if ends and not command[end.end() :].strip():
        return
    what = "the line break" if end[0].strip() == b"" else f"the {end[0].decode()}"
    _refuse(
        command,
        end.start(),
        f"{what} ends the command for a shell, and more follows; give one curl command alone, quoted as it was, "
        "each line but the last ending as the shell wants it",
    )


def _refuse_unclosed(command: bytes, at: int) -> NoReturn:
    _refuse(command, at, "a quotation mark is opened and not closed; is the command whole?")


def _refuse(command: bytes, at: int, fault: str) -> NoReturn:
    number = command.count(b"\n", 0, at) + 1
    message = f"line {number} of the command: {fault}"
    raise Unreadable(message)
