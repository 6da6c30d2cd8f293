"""The page on refusals: its code runs, and its table is the table of codes."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import test_docs
from support import SECRET

from roovet_webhooks.explain import CODES

if TYPE_CHECKING:
    from pathlib import Path

PAGE = "docs/how-to/debug-a-refusal.md"


def test_its_code_runs(tmp_path: Path) -> None:
    ran = subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-W", "error", test_docs.__file__, PAGE],
        cwd=tmp_path,
        env={**os.environ, "ROOVET_WEBHOOK_SECRET": SECRET},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    printed = ran.stdout.splitlines()
    # What a comment says is printed, up to its dots.
    text = test_docs.text_of(PAGE)
    said = [line.partition("  # ")[2] for line in text.splitlines() if line.startswith("print(first")]
    assert len(said) == 4
    for line, comment in zip(printed, said, strict=False):
        assert line.startswith(comment.strip().removesuffix("…"))


def test_its_table_is_the_table_of_codes() -> None:
    rows = test_docs.rows_of(test_docs.section_of(PAGE, "The codes"), 3)
    assert rows == [[f"`{code}`", told.meaning, told.remedy] for code, told in CODES.items()]
