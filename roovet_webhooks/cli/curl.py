"""Reads a curl command that was pasted: the headers and the body that it would send. Nothing is run or fetched.

The meaning of the options is that of curl's manual page. What does not change headers or body is passed over by
name; an option that is not known is refused, because it might.
"""

from __future__ import annotations

import os
import re
from codecs import BOM_UTF8
from pathlib import Path
from typing import TYPE_CHECKING

from roovet_webhooks.cli.pasted import Pasted, Unreadable, about_method, without_mark
from roovet_webhooks.cli.shell_words import words_of
from roovet_webhooks.cli.text import MAX_INPUT_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

# A prompt may stand before it, and a path.
_COMMAND = re.compile(rb"\s*(?:[$%#>] +)?(?:[^\s'\"]*[/\\])?curl(?:\.exe)?(?=[\s^]|\\\r?\n|\Z)")
_OPTION_NAME = re.compile(rb"-[-A-Za-z0-9.:#]{1,40}")

_DATA = frozenset({"data", "data-ascii", "data-binary", "data-raw", "json"})
_REFUSED = {
    "config": "its other options are in a file: put them into the command",
    "data-urlencode": "it makes a form, which no delivery is",
    "form": "it makes a form, which no delivery is",
    "form-string": "it makes a form, which no delivery is",
    "get": "it puts the body into the URL, and a delivery has a body",
    "head": "it sends no body, and a delivery has one",
    "next": "it begins a second request: give the one that is meant",
    "upload-file": "give the file with --data-binary @FILE, which sends the same body",
}
_SHORT = {
    "d": "data", "F": "form", "G": "get", "H": "header", "I": "head", "K": "config", "T": "upload-file", "X": "request",
    ":": "next",
    "#": "progress-bar", "0": "http1.0", "1": "tlsv1", "4": "ipv4", "6": "ipv6", "f": "fail", "g": "globoff",
    "i": "include", "j": "junk-session-cookies", "J": "remote-header-name", "k": "insecure", "L": "location",
    "n": "netrc", "N": "no-buffer", "O": "remote-name", "p": "proxytunnel", "q": "disable", "R": "remote-time",
    "s": "silent", "S": "show-error", "v": "verbose", "Z": "parallel",
    "A": "user-agent", "b": "cookie", "c": "cookie-jar", "D": "dump-header", "e": "referer", "E": "cert",
    "m": "max-time", "o": "output", "u": "user", "U": "proxy-user", "w": "write-out", "x": "proxy",
    "y": "speed-time", "Y": "speed-limit",
}  # fmt: skip
_FLAGS = frozenset({
    "anyauth", "basic", "compressed", "create-dirs", "digest", "disable", "fail", "fail-early", "fail-with-body",
    "false-start", "globoff", "http0.9", "http1.0", "http1.1", "http2", "http2-prior-knowledge", "http3",
    "http3-only", "include", "insecure", "ipv4", "ipv6", "junk-session-cookies", "location", "location-trusted",
    "negotiate", "netrc", "netrc-optional", "ntlm", "parallel", "parallel-immediate", "path-as-is", "post301",
    "post302", "post303", "progress-bar", "proxy-insecure", "proxytunnel", "raw", "remote-header-name",
    "remote-name", "remote-name-all", "remote-time", "remove-on-error", "retry-all-errors", "retry-connrefused",
    "show-error", "silent", "ssl", "ssl-no-revoke", "ssl-reqd", "ssl-revoke-best-effort", "styled-output",
    "tcp-fastopen", "tcp-nodelay", "tlsv1", "tlsv1.0", "tlsv1.1", "tlsv1.2", "tlsv1.3", "tr-encoding", "trace-time",
    "verbose", "no-alpn", "no-buffer", "no-clobber", "no-keepalive", "no-npn", "no-progress-meter", "no-sessionid",
})  # fmt: skip
_VALUES = frozenset({
    "cacert", "capath", "cert", "cert-type", "ciphers", "connect-timeout", "connect-to", "cookie", "cookie-jar",
    "curves", "dns-servers", "doh-url", "dump-header", "expect100-timeout", "happy-eyeballs-timeout-ms",
    "interface", "keepalive-time", "key", "key-type", "limit-rate", "local-port", "max-filesize", "max-redirs",
    "max-time", "netrc-file", "noproxy", "oauth2-bearer", "output", "output-dir", "parallel-max", "pass",
    "pinnedpubkey", "preproxy", "proto", "proto-default", "proto-redir", "proxy", "proxy-cacert", "proxy-header",
    "proxy-user", "rate", "referer", "request-target", "resolve", "retry", "retry-delay", "retry-max-time",
    "socks4", "socks4a", "socks5", "socks5-hostname", "speed-limit", "speed-time", "stderr", "tls-max",
    "tls13-ciphers", "trace", "trace-ascii", "unix-socket", "url-query", "user", "user-agent", "write-out",
})  # fmt: skip


def is_curl(content: bytes) -> bool:
    """Say whether a text begins as a curl command does; no request and no JSON does."""
    return _COMMAND.match(content.removeprefix(BOM_UTF8)) is not None


def read_curl(content: bytes) -> Pasted:
    """Read a curl command.

    Args:
        content: The command, in the quoting of bash or of Windows' ``cmd``. A file that it names for its body
            (``@FILE``) is read, from the working directory unless the path is absolute; a note says so.

    Raises:
        Unreadable: It is no curl command, an option is not known or makes no delivery, or a file cannot be read.
    """
    notes: list[str] = []
    content = without_mark(content, notes)
    command = _COMMAND.match(content)
    if command is None:
        message = "this is no curl command: it has to begin with the word curl (in a browser: Copy as cURL)"
        raise Unreadable(message)
    given = list(_options(words_of(content[command.end() :], notes)))
    headers = [header for option, value in given if option == "header" for header in _header(value, notes)]
    body = _body([(option, value) for option, value in given if option in _DATA], notes)
    for method in [value for option, value in given if option == "request"][-1:]:
        notes += about_method(method)
    urls = sum(option == "url" for option, _ in given)
    if urls > 1:
        notes.append(f"{urls} words are URLs to curl: a header or a body falls apart like this without its quotes.")
    return Pasted(headers, body, notes)


def _options(words: list[bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield the options that take a value, with it; a word that is no option is a ``url``."""
    rest = iter(words)
    for word in rest:
        if word == b"--":
            yield from (("url", url) for url in rest)
        elif word.startswith(b"--"):
            name = word[2:].decode("latin-1")
            if _takes_value(name, word):
                yield name, _value(rest, word)
        elif word.startswith(b"-") and word != b"-":
            yield from _short_options(word, rest)
        else:
            yield "url", word


def _short_options(word: bytes, rest: Iterator[bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield what a word of short options holds, such as ``-sSXPOST``: the first that takes a value takes the rest."""
    for at in range(1, len(word)):
        letter = b"-" + word[at : at + 1]
        name = _SHORT.get(chr(word[at]), "")
        if _takes_value(name, letter):
            yield name, word[at + 1 :] or _value(rest, letter)
            return


def _takes_value(name: str, word: bytes) -> bool:
    """Say whether an option takes a value.

    Raises:
        Unreadable: It is not known, or makes no delivery.
    """
    if name in _DATA or name in _VALUES or name in {"header", "request", "url"}:
        return True
    if name in _FLAGS or name.removeprefix("no-") in _FLAGS:
        return False
    unknown = "is not known here, and it might change what is sent; leave it out if it does not"
    raise _refusal(word, f"cannot be followed here: {_REFUSED[name]}" if name in _REFUSED else unknown)


def _value(rest: Iterator[bytes], word: bytes) -> bytes:
    value = next(rest, None)
    if value is None:
        raise _refusal(word, "has no value; is the command whole?")
    return value


def _refusal(word: bytes, fault: str) -> Unreadable:
    # What does not look like an option is not quoted: it may be anything.
    name = word.decode() if _OPTION_NAME.fullmatch(word) else "(with a strange name)"
    return Unreadable(f"the option {name} of the curl command {fault}")


def _header(value: bytes, notes: list[str]) -> list[tuple[bytes, bytes]]:
    """Return the header of ``-H``, if it sends one: ``Name;`` is an empty one, and ``Name:`` takes one away."""
    if value.startswith(b"@"):
        message = "the headers of the curl command are in a file (-H @FILE): put them into the command"
        raise Unreadable(message)
    if re.search(rb"[\r\n\x00]", value):
        message = "a header of the curl command has a line break or a NUL inside; it was torn when it was copied"
        raise Unreadable(message)
    name, colon, content = value.partition(b":")
    content = content.strip(b" \t")
    if not colon and value.endswith(b";"):
        return [(value[:-1], b"")]
    if not colon:
        notes.append("A -H without a colon sends no header.")
    return [(name, content)] if content else []


def _body(given: list[tuple[str, bytes]], notes: list[str]) -> bytes:
    if not given:
        notes.append("The command sends no body.")
    body = bytearray()
    for place, (option, value) in enumerate(given):
        # What is given several times is joined as the fields of a form are; --json joins as it is.
        if place and option != "json":
            body += b"&"
        body += _piece(option, value, notes)
        _check_size(len(body), "the body of the curl command")
    return bytes(body)


def _piece(option: str, value: bytes, notes: list[str]) -> bytes:
    if option == "data-raw" or not value.startswith(b"@"):
        return value
    content = _read(value[1:], f"--{option}", notes)
    if option in {"data", "data-ascii"}:
        kept = content.translate(None, b"\r\n\x00")
        if kept != content:
            notes.append(f"As curl's --{option} does, line breaks of the file were left out; --data-binary keeps them.")
        return kept
    return content


def _read(path: bytes, option: str, notes: list[str]) -> bytes:
    """Read a file that the command names, as curl would."""
    name = os.fsdecode(path)
    if name == "-":
        message = f"{option} @- takes the body from standard input; save it, and name the file: {option} @FILE"
        raise Unreadable(message)
    try:
        # Only a plain file: a pipe or a device may never end.
        if not Path(name).is_file():
            message = f"{option} names the file {name!r}, which is not there (or is no plain file)"
            raise Unreadable(message)
        with Path(name).open("rb") as file:
            content = file.read(MAX_INPUT_BYTES + 1)
    except OSError as error:
        message = f"{option} names the file {name!r}, which cannot be read: {error.strerror}"
        raise Unreadable(message) from None
    _check_size(len(content), f"the file {name!r}")
    notes.append(f"The body was read from the file {name!r} ({len(content)} bytes).")
    return content


def _check_size(size: int, what: str) -> None:
    if size > MAX_INPUT_BYTES:
        message = f"{what} has more than {MAX_INPUT_BYTES} bytes, which is no delivery"
        raise Unreadable(message)
