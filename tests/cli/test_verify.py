"""`verify`: what it is given, what it says of it, and what it never says."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import traceback
from pathlib import Path
from typing import NoReturn

import pytest
from click.testing import CliRunner
from hypothesis import given, strategies as st
from support import NOW, OTHER_SECRET, SECRET
from support.cli import HEADER, RAW, complaint, run, verify_at

from roovet_webhooks import sign
from roovet_webhooks.cli.root import root

# Non-ASCII, an apostrophe, an exclamation mark and an escape: what quoting goes wrong with.
SPECIAL = '{"event":"order.created","id":"ord_1","ts":1762782800,"note":"it\'s caf\u00e9 \\n $5!"}'.encode()


@pytest.fixture(autouse=True)
def _secret_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOVET_WEBHOOK_SECRET", SECRET)


def saved(body: bytes = RAW, *, signed: bytes | None = None, length: int | None = None, end: str = "\r\n") -> bytes:
    """Return a request as a proxy saves it; its signature is over what was signed, and its length is what it says."""
    signature = sign(body if signed is None else signed, SECRET, timestamp=NOW)
    lines = ["POST /webhooks/roovet HTTP/1.1", "Host: shop.example", f"X-Roovet-Signature: {signature}"]
    if length is not None:
        lines.append(f"content-length: {length}")
    return (end.join(lines) + 2 * end).encode() + body


def copied(body: bytes = SPECIAL) -> bytes:
    """Return a request as Chrome copies it, as cURL (bash)."""
    text = body.decode().replace("\\", "\\\\").replace("'", "\\'").replace("!", "\\u0021")
    return (
        f"curl 'https://shop.example/webhooks/roovet' \\\n  -X 'POST' \\\n  -H 'content-type: application/json' \\\n"
        f"  -H 'X-Roovet-Signature: {sign(body, SECRET, timestamp=NOW)}' \\\n  --data-raw $'{text}' \\\n  --compressed"
    ).encode()


def told_of(content: bytes, *arguments: str) -> tuple[int, list[str], list[str]]:
    """Verify from standard input; return the exit status, the codes of the findings, and the notes."""
    result = run("verify", "--json", "--now", str(NOW + 10), *arguments, body=content)
    told = json.loads(result.stdout)
    assert told["verified"] == (result.exit_code == 0)
    return result.exit_code, [finding["code"] for finding in told["findings"]], told["notes"]


# A body and its header


@pytest.mark.parametrize("header", [HEADER, f"X-Roovet-Signature: {HEADER}", f"x-roovet-signature:{HEADER}"])
def test_a_good_delivery(header: str) -> None:
    result = verify_at(NOW + 10, "--timestamp-header", f"X-Roovet-Timestamp: {NOW}", header=header)
    assert (result.exit_code, result.output) == (0, "verified: signed 10 s ago with the signing secret 'default'\n")


def test_a_good_delivery_of_a_clock_that_runs_ahead() -> None:
    assert verify_at(NOW - 10).output == "verified: signed 10 s in the future with the signing secret 'default'\n"


def test_a_good_delivery_as_json() -> None:
    result = verify_at(NOW + 10, "--json")
    assert (result.exit_code, result.stdout.count("\n")) == (0, 1)
    told = json.loads(result.stdout)
    assert [finding.pop("code") for finding in told["findings"]] == ["ok"]
    assert told["findings"][0].keys() == {"message", "remedy", "evidence"}
    del told["findings"]
    assert told == {"verified": True, "timestamp": NOW, "secret_name": "default", "age": 10, "notes": []}


def test_it_goes_by_the_clock() -> None:
    result = run("verify", "--header", sign(RAW, SECRET), "--json")
    assert result.exit_code == 0
    assert abs(json.loads(result.stdout)["age"]) < 300


@pytest.mark.parametrize(
    ("now", "arguments", "header", "code", "words"),
    [
        (NOW, [], "", "missing_signature", "there is no X-Roovet-Signature"),
        (NOW, [], "t=1", "malformed_signature", "has no v1 digest"),
        (NOW, [], f"{HEADER}0", "malformed_signature", "item 2"),
        (NOW, [], HEADER[:48], "truncated_digest", "32 hex digits"),
        (NOW, [], HEADER.upper().replace("T=", "t=").replace("V1", "v1"), "uppercase_digest", "upper-case"),
        (NOW, [], sign(RAW, OTHER_SECRET, timestamp=NOW), "wrong_secret_or_altered_body", "body: 56 bytes"),
        (NOW + 301, [], HEADER, "stale", f"signed: 301 s ago, at {NOW} (2025-11-10 13:53:20 UTC)"),
        (NOW + 301, [], HEADER, "stale", f"hint: for a recorded delivery, say when it came: --now {NOW}"),
        (NOW + 11, ["--tolerance", "10"], HEADER, "stale", "signed 11 s ago; 10 s are"),
        (NOW - 301, [], HEADER, "future", f"--now {NOW}"),
        (NOW, ["--timestamp-header", "7"], HEADER, "timestamp_header_mismatch", "body: 56 bytes"),
    ],
)
def test_it_says_why(now: int, arguments: list[str], header: str, code: str, words: str) -> None:
    told = verify_at(now, *arguments, header=header)
    assert told.exit_code == 1
    assert told.stdout.startswith(f"refused: {code}\n")
    assert max(map(len, told.stdout.splitlines()[1:])) <= 80
    as_json = verify_at(now, "--json", *arguments, header=header)
    assert as_json.exit_code == 1
    content = json.loads(as_json.stdout)
    assert content["findings"][0]["code"] == code
    assert content.keys() == {"verified", "timestamp", "secret_name", "age", "findings", "notes"}
    assert words in told.stdout + content["findings"][0]["message"]
    # Every word of every finding stands in the table as well, in whatever lines.
    table = told.stdout.split()
    for finding in content["findings"]:
        assert {finding["code"], *finding["message"].split(), *finding["remedy"].split()} <= set(table)


def test_a_year_of_five_digits() -> None:
    told = verify_at(NOW, header=f"t=999999999999,v1={'0' * 64}").stdout
    assert told.startswith("refused: ")
    assert "at 999999999999\n" in told


def test_a_truncated_digest_is_taken_only_when_asked() -> None:
    header = HEADER[: len(f"t={NOW},v1=") + 32]
    assert verify_at(NOW, header=header).exit_code == 1
    assert verify_at(NOW, "--accept-truncated", header=header).exit_code == 0


def test_the_table_holds_its_columns_apart() -> None:
    table = verify_at(NOW, header=sign(RAW, OTHER_SECRET, timestamp=NOW)).stdout.splitlines()
    (heads,) = [line for line in table if "What was found" in line]
    (first,) = [line for line in table if "wrong_secret_or_altered_body" in line and "refused" not in line]
    for heading in ("What was found", "What to do"):
        assert first[heads.index(heading) - 1] == " "
        assert first[heads.index(heading)] != " "


# A whole request


@pytest.mark.parametrize("end", ["\r\n", "\n"])
@pytest.mark.parametrize("body", [RAW, SPECIAL, b"\xff\x00\xfe", b"", RAW + b"\r\n"])
def test_a_saved_request(body: bytes, end: str, tmp_path: Path) -> None:
    for length in (None, len(body)):
        content = saved(body, length=length, end=end)
        file = tmp_path / "saved.http"
        file.write_bytes(content)
        assert told_of(content)[0] == 0
        for arguments in (["-"], [str(file)], ["--request", "-"], ["--request", str(file)]):
            assert told_of(content, *arguments) == told_of(content)


def test_a_saved_request_whose_editor_has_added_a_line_break() -> None:
    # Where nothing says how long the body was, the line break is taken for a part of it, and named.
    assert told_of(saved() + b"\n")[:2] == (1, ["body_trailing_newline"])
    status, codes, notes = told_of(saved(length=len(RAW)) + b"\n")
    assert (status, codes) == (0, ["ok"])
    assert "line break beyond Content-Length" in notes[0]
    told = run("verify", "--now", str(NOW), body=saved(length=len(RAW)) + b"\n")
    assert told.stdout.splitlines()[1].startswith("  note: A line break beyond Content-Length")


def test_a_saved_request_whose_editor_has_taken_a_line_break_away() -> None:
    status, codes, notes = told_of(saved(RAW, signed=RAW + b"\n", length=len(RAW) + 1))
    assert (status, codes) == (1, ["body_trailing_newline"])
    assert f"has {len(RAW)} bytes, and Content-Length says {len(RAW) + 1}" in notes[0]


def test_a_saved_request_with_chunks() -> None:
    head, _, body = saved().partition(b"\r\n\r\n")
    framed = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    assert told_of(head + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + framed)[0] == 0


def test_the_headers_of_a_saved_request_count() -> None:
    other = b"X-Roovet-Signature: t=1,v1=" + b"0" * 64
    twice = saved().replace(b"Host: shop.example", other)
    assert told_of(twice)[1][0] == "duplicate_header"
    contradicted = saved().replace(b"Host: shop.example", b"x-roovet-TIMESTAMP: 7")
    assert told_of(contradicted)[1][0] == "timestamp_header_mismatch"
    assert told_of(saved().replace(b"X-Roovet-Signature", b"X-Other"))[1][0] == "missing_signature"


def test_what_a_browser_copies(tmp_path: Path) -> None:
    file = tmp_path / "copied"
    file.write_bytes(copied())
    assert told_of(copied()) == (0, ["ok"], [])
    for arguments in ([str(file)], ["--curl", str(file)], ["--curl", "-"], ["--curl", copied().decode()]):
        assert told_of(copied(), *arguments) == (0, ["ok"], [])


def test_a_curl_command_that_reads_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("body.json").write_bytes(RAW + b"\n")
    command = f"curl -H 'X-Roovet-Signature: {HEADER}' -d @body.json https://shop.example/"
    status, _, notes = told_of(b"", "--curl", command)
    assert status == 0
    assert "read from the file 'body.json' (57 bytes)" in notes[0]
    # As curl sends it, with the line break that was not signed.
    status, codes, notes = told_of(b"", "--curl", command.replace("-d", "--data-binary"))
    assert (status, codes) == (1, ["body_trailing_newline"])


def test_bytes_that_are_no_text_on_the_command_line() -> None:
    body = b'{"note":"\xe9"}'
    command = shlex.join(["curl", "-H", f"X-Roovet-Signature: {sign(body, SECRET, timestamp=NOW)}", "--data-raw"])
    assert told_of(b"", "--curl", f"{command} '{os.fsdecode(body)}'")[0] == 0


def test_a_whole_request_that_is_taken_for_a_body() -> None:
    for content in (saved(), copied()):
        status, _, notes = told_of(content, "--header", HEADER)
        assert status == 1
        assert "leave out --header" in notes[0]


@pytest.mark.parametrize(
    ("content", "arguments", "words"),
    [
        (RAW, [], "say how it was signed with --header"),
        (b"", [], "nothing in it"),
        (b"hello", [], "line 1 is neither a request line"),
        (copied(), ["--request", "-"], "line 1 is neither a request line"),
        (saved(), ["--curl", "-"], "has to begin with the word curl"),
        (b"curl --nonsense", [], "the option --nonsense"),
        (b"curl -d 'x", [], "is opened and not closed"),
        (b"curl -d @nowhere", [], "names the file 'nowhere', which is not there"),
        (b"", ["--curl", "nowhere"], "--curl takes a curl command, or the path of a file with one: No such file"),
        (b"", ["--curl", ""], "--curl takes a curl command"),
        (b"", ["--request", "nowhere"], "No such file"),
        (RAW, ["--header", HEADER, "--request", "-"], "the headers are those of the request"),
        (RAW, ["--header", HEADER, "--curl", "-"], "the headers are those of the request"),
        (RAW, ["--request", "-", "--curl", "-"], "exclude each other"),
        (RAW, ["-", "--curl", "-"], "exclude each other"),
        (RAW, ["--timestamp-header", "1"], "goes with --header"),
    ],
)
def test_what_cannot_be_tried(content: bytes, arguments: list[str], words: str) -> None:
    assert words in complaint(run("verify", *arguments, body=content))


def test_what_is_too_long_for_a_delivery(tmp_path: Path) -> None:
    file = tmp_path / "long"
    with file.open("wb") as content:
        content.truncate(17 * 1024 * 1024)
    assert "which is no delivery" in complaint(run("verify", str(file)))


# Secrets


@pytest.mark.parametrize(
    ("written", "code"),
    [
        (f" {SECRET}", "secret_has_whitespace"),
        (f"{SECRET}\t", "secret_has_whitespace"),
        (f"'{SECRET}'", "secret_is_quoted"),
        (f'"{SECRET}"', "secret_is_quoted"),
        ("rvpk_live_4711471147114711", "secret_is_api_key"),
    ],
    ids=["space", "tab", "quoted", "doubly quoted", "API key"],
)
def test_a_secret_that_is_none_is_named(
    written: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{written}\n")
    given = [told_of(saved(), "--secret", written), told_of(saved(), "--secret-file", str(file))]
    monkeypatch.setenv("ROOVET_WEBHOOK_SECRET", written)
    shown = run("verify", "--now", str(NOW), body=saved()).output
    for status, codes, _ in [*given, told_of(saved())]:
        assert (status, codes[0]) == (1, code)
    assert shown.startswith(f"refused: {code}\n")
    assert "4711" not in shown


def test_a_short_secret_warns_in_one_line() -> None:
    secret = "0123456789abcdef"
    result = run("verify", "--secret", secret, "--header", sign(RAW, SECRET, timestamp=NOW), "--now", str(NOW))
    assert result.exit_code == 1
    assert result.stderr == "Warning: the signing secret 'default' has 16 bytes; 24 or more are recommended\n"


def test_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROOVET_WEBHOOK_SECRET")
    assert "set ROOVET_WEBHOOK_SECRET" in complaint(run("verify", body=saved()))


@pytest.mark.parametrize("broken", ["explain", "_as_json"])
def test_no_frame_of_ours_holds_the_secret(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise RuntimeError

    monkeypatch.setattr(f"roovet_webhooks.cli.verifying.{broken}", fail)
    result = CliRunner().invoke(root, ["verify", "--json"], input=saved())
    assert isinstance(result.exception, RuntimeError)
    frames = traceback.TracebackException.from_exception(result.exception, capture_locals=True).stack
    # But for the one that is given it, which here stands for `explain`.
    assert SECRET not in str([frame.locals for frame in frames if frame.name != "fail"])


# What others wrote


def test_what_others_wrote_cannot_steer_the_terminal() -> None:
    evil = b"\x1b[31m\xc2\x9b"
    header = "X-Roovet-Signature: t=1" + evil.decode()
    results = [
        verify_at(NOW, header="t=1\x1b[31m,v1=\x1b"),
        run("verify", "--header", header),
        run("verify", body=b"POST / HTTP/1.1\r\nX-Roovet-Signature: " + evil + b"\r\n\r\n" + evil),
        run("verify", body=b"POST / HTTP/1.1\r\nX\x1b: \r\n\r\n"),
        run("verify", body=b"curl -H 'HTTP_X_ROOVET_SIGNATURE: \x1b' -d @\x1b"),
        run("verify", body=b"curl --" + evil),
    ]
    for result in results:
        assert result.exit_code in {1, 2}
        assert "\x1b" not in result.output
        assert "\x9b" not in result.output


@given(
    st.sampled_from([b"", b"curl -d ", b"POST / HTTP/1.1\r\nX-Roovet-Signature: ", saved()[:-40], copied()[:-40]]),
    st.binary(max_size=60),
    st.sampled_from([[], ["--json"], ["--header", HEADER], ["--request", "-"], ["--curl", "-"]]),
)
def test_whatever_is_given_ends_in_a_verdict_or_a_sentence(start: bytes, rest: bytes, arguments: list[str]) -> None:
    result = CliRunner().invoke(root, ["verify", "--secret", SECRET, *arguments], input=start + rest)
    assert isinstance(result.exception, SystemExit | None), result.exception
    assert result.exit_code in {0, 1, 2}
    assert result.exit_code != 2 or complaint(result)


# The command as it is installed


def installed(
    *arguments: str, body: bytes, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    command = Path(sys.executable).parent / ("roovet-webhooks.exe" if sys.platform == "win32" else "roovet-webhooks")
    return subprocess.run(  # noqa: S603 - the command that is tested
        [command, "verify", *arguments],
        input=body,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        timeout=60,
        check=False,
    )


def test_the_installed_command() -> None:
    body = b'{"note":"\xff\xfe"}\r\n'
    good = installed("--now", str(NOW), body=saved(body))
    assert (good.returncode, good.stderr) == (0, b"")
    assert good.stdout.startswith(b"verified: signed 0 s ago")
    bad = installed("--now", str(NOW), "--json", body=saved(body) + b"\n")
    assert (bad.returncode, bad.stderr) == (1, b"")
    assert json.loads(bad.stdout)["verified"] is False
    untried = installed(body=b"\xff")
    assert (untried.returncode, untried.stdout) == (2, b"")
    assert untried.stderr.startswith(b"Error: line 1 is neither")
    assert untried.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"},
        {"TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "40"},
        {"FORCE_COLOR": "1", "COLUMNS": "200"},
    ],
    ids=str,
)
def test_the_table_on_any_terminal(environment: dict[str, str]) -> None:
    ran = installed("--now", str(NOW + 600), body=saved(SPECIAL), environment=environment)
    assert (ran.returncode, ran.stderr) == (1, b"")
    for word in (b"stale", b"refused", b"Code", b"600 s ago"):
        assert word in ran.stdout
    if "ascii" in environment.values():
        assert ran.stdout.isascii()
    assert (b"\x1b[" in ran.stdout) == ("FORCE_COLOR" in environment)
