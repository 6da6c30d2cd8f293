"""The command line by itself: `sign`, secrets, usage, and how every fault ends."""

from __future__ import annotations

import io
import pickle
import runpy
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from support import NOW, OTHER_SECRET, SECRET, payload
from support.cli import HEADER, RAW, complaint, run, verify_at

import roovet_webhooks
from roovet_webhooks import cli, sign, verify
from roovet_webhooks.cli.keyrings import GivenSecrets
from roovet_webhooks.cli.text import MAX_INPUT_BYTES, ago, plain, pretty, read_body

if TYPE_CHECKING:
    from types import ModuleType


@pytest.fixture(autouse=True)
def _secret_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOVET_WEBHOOK_SECRET", SECRET)


# sign


def test_sign_prints_what_verify_accepts() -> None:
    result = run("sign", "--timestamp", str(NOW))
    assert (result.exit_code, result.output) == (0, f"{HEADER}\n")


def test_sign_takes_the_time_of_the_clock() -> None:
    assert verify(RAW, run("sign").stdout.strip(), SECRET)


@pytest.mark.parametrize("raw", [b"", b"\n", b"{}\r\n", b"\x00\xff\xfe", payload(note="é") + b"\n"])
def test_sign_takes_the_body_byte_for_byte(raw: bytes, tmp_path: Path) -> None:
    file = tmp_path / "body"
    file.write_bytes(raw)
    expected = sign(raw, SECRET, timestamp=NOW)
    assert run("sign", str(file), "--timestamp", str(NOW)).output.strip() == expected
    assert run("sign", "-", "--timestamp", str(NOW), body=raw).output.strip() == expected


def test_sign_prints_all_headers() -> None:
    assert run("sign", "--headers", "--timestamp", str(NOW)).output.splitlines() == [
        "Content-Type: application/json",
        f"X-Roovet-Signature: {HEADER}",
        f"X-Roovet-Timestamp: {NOW}",
    ]


def test_a_person_at_the_keyboard_is_told_that_the_body_is_awaited(capsys: pytest.CaptureFixture[str]) -> None:
    class Keyboard(io.BytesIO):
        def isatty(self) -> bool:
            return True

    assert read_body(Keyboard(RAW)) == RAW
    assert "Reading from the keyboard" in capsys.readouterr().err


def test_what_is_too_long_for_a_delivery_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "body").open("wb") as file:
        file.truncate(MAX_INPUT_BYTES + 1)
    assert "which is no delivery" in complaint(run("sign", str(tmp_path / "body")))


# Secrets


def test_several_secrets_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOVET_WEBHOOK_SECRET", f"{OTHER_SECRET},{SECRET}")
    assert "'secret-2'" in verify_at(NOW).stdout
    # The first one signs.
    assert run("sign", "--timestamp", str(NOW)).stdout.strip() == sign(RAW, OTHER_SECRET, timestamp=NOW)


@pytest.mark.parametrize(
    "content",
    ["{}", "{}\n", "{}\r\n", "\n{}\n\n", "\ufeff{}\n", OTHER_SECRET + "\n{}\n"],
    ids=["bare", "line", "line of Windows", "empty lines", "byte order mark", "two secrets"],
)
def test_a_secret_file_wins_over_the_environment(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOVET_WEBHOOK_SECRET", "whsec_that_is_not_the_one_asked_for")
    file = tmp_path / "secret"
    file.write_bytes(content.replace("{}", SECRET).encode())
    assert verify_at(NOW, "--secret-file", str(file)).exit_code == 0
    assert verify_at(NOW).exit_code == 1


def test_the_secret_as_an_option_has_a_warning_in_its_help() -> None:
    assert verify_at(NOW, "--secret", SECRET, header=sign(RAW, SECRET, timestamp=NOW)).exit_code == 0
    assert verify_at(NOW, "--secret", f"{OTHER_SECRET},{SECRET}").exit_code == 0
    assert "process list" in " ".join(run("sign", "--help").stdout.split())


def test_a_short_secret_warns_in_one_line() -> None:
    result = run("sign", "--secret", "0123456789abcdef")
    assert result.exit_code == 0
    assert result.stderr == "Warning: the signing secret 'default' has 16 bytes; 24 or more are recommended\n"


@pytest.mark.parametrize("value", ["", ","])
def test_no_secret(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOVET_WEBHOOK_SECRET", value)
    assert "set ROOVET_WEBHOOK_SECRET" in complaint(run("sign"))


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ("tooshort-4711", "13 bytes"),
        ("rvpk_live_4711471147114711", "API key"),
        (" whsec_4711471147114711", "white space"),
        ("'whsec_4711471147114711'", "quotation marks"),
    ],
    ids=["short", "API key", "white space", "quotation marks"],
)
def test_a_bad_secret_is_not_repeated(secret: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secret"
    file.write_text(secret)
    given = [run("sign", "--secret", secret), run("sign", "--secret-file", str(file))]
    monkeypatch.setenv("ROOVET_WEBHOOK_SECRET", secret)
    for result in [*given, run("sign")]:
        assert words in complaint(result)
        assert "4711" not in result.output


def test_a_secret_given_as_the_path_of_its_file_is_not_repeated() -> None:
    words = complaint(run("sign", "--secret-file", OTHER_SECRET))
    assert "takes a path" in words
    assert OTHER_SECRET not in words


def test_an_empty_secret_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("\n\n")
    assert "is empty" in complaint(run("sign", "--secret-file", str(file)))


def test_a_secret_given_twice(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    assert "exclude each other" in complaint(run("sign", "--secret-file", str(file), "--secret", SECRET))


def test_given_secrets_do_not_show() -> None:
    given = GivenSecrets([SECRET, OTHER_SECRET])
    assert repr(given) == "GivenSecrets(2)"
    with pytest.raises(TypeError, match="refuses to be pickled"):
        pickle.dumps(given)


# Usage


@pytest.mark.parametrize(
    "arguments",
    [
        ["sing"],
        ["sign", "--nonsense"],
        ["sign", "/nonexistent/body"],
        ["sign", "/"],
        ["sign", "--timestamp", "-1"],
        ["sign", "--timestamp", "1000000000000"],
        ["verify", "--header", HEADER, "--tolerance", "nan"],
        ["verify", "--header", HEADER, "--tolerance", "-1"],
        ["verify", "--header", HEADER, "--now", "yesterday"],
    ],
)
def test_wrong_usage_ends_in_two_lines(arguments: list[str]) -> None:
    complaint(run(*arguments))


def test_no_command_shows_the_help() -> None:
    result = run()
    assert result.exit_code == 2
    assert "Usage: roovet-webhooks" in result.stderr


@pytest.mark.parametrize("command", ["sign", "verify", "send", "listen", "demo"])
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"Example: roovet-webhooks {command}" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_interrupted_at_the_keyboard(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_file: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr("roovet_webhooks.cli.signing.read_body", interrupt)
    result = run("sign")
    assert (result.exit_code, result.output.strip()) == (130, "")


def test_a_body_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_file: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("roovet_webhooks.cli.signing.read_body", fail)
    assert "Input/output error" in complaint(run("sign"))


# The entrance


def enter(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    monkeypatch.setattr(sys, "argv", ["roovet-webhooks", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert enter(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"roovet-webhooks {roovet_webhooks.__version__}\n"


@pytest.mark.parametrize("package", [cli, roovet_webhooks])
def test_as_a_module(package: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["roovet-webhooks", "--version"])
    with pytest.raises(SystemExit) as ended:
        # By its path: pytest loads the modules of a package that has a plugin, and runpy cannot run those by name.
        runpy.run_path(str(Path(str(package.__file__)).with_name("__main__.py")), run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("roovet-webhooks ")


def test_ctrl_c_while_it_is_loaded_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr("roovet_webhooks.cli.root.root.main", interrupted)
    assert enter(monkeypatch, "demo") == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["click", "rich", "uvicorn"])
def test_a_missing_extra_is_named_in_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    assert enter(monkeypatch, "--version") == 2
    assert capsys.readouterr().err == f"roovet-webhooks needs {name}; run: pip install 'roovet-webhooks[cli]'\n"


def test_streams_that_are_no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    assert enter(monkeypatch, "--version") == 0
    assert out.getvalue().startswith("roovet-webhooks ")


def test_the_package_does_not_need_the_command_line() -> None:
    code = (
        "import sys, roovet_webhooks.asgi, roovet_webhooks.flask, roovet_webhooks.receiving.receiver\n"
        "assert not any(name.startswith(('roovet_webhooks.cli', 'uvicorn')) for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)  # noqa: S603 - code of this test


# Text


def test_what_others_wrote_cannot_steer_the_terminal() -> None:
    assert plain("a\x1b[31m\r\n\x9b\u202eé\ud800") == "a\\x1b[31m\\r\n\\x9b\\u202eé\\ud800"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b'{"a":"\xc3\xa9\\u001b"}', '{\n  "a": "é\\u001b"\n}'),
        (b"\xff{", "\\xff{"),
        (b"[" * 100_000, "[" * 100_000),
        (b'"\\ud800"', '"\\ud800"'),
        (b"1" * 5000, "1" * 5000),
    ],
)
def test_any_body_can_be_shown(raw: bytes, shown: str) -> None:
    assert pretty(raw) == shown


def test_when() -> None:
    assert [ago(seconds) for seconds in (3, 0, -3)] == ["3 s ago", "0 s ago", "3 s in the future"]
