"""The page on refusals: what its code prints is what it says, and its table is the table of codes."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from support import SECRET

from documentation.pages import ROOT, rows_of, section_of, text_of
from roovet_webhooks.explain import CODES

if TYPE_CHECKING:
    from pathlib import Path

PAGE = "docs/how-to/debug-a-refusal.md"


def test_what_its_code_prints_is_what_it_says(tmp_path: Path) -> None:
    ran = subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-W", "error", "-m", "documentation.run_page", PAGE],
        cwd=tmp_path,
        env={**os.environ, "ROOVET_WEBHOOK_SECRET": SECRET, "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    printed = ran.stdout.splitlines()
    # What a comment says is printed, up to its dots.
    said = [line.partition("  # ")[2] for line in text_of(PAGE).splitlines() if line.startswith("print(first")]
    assert len(said) == 4
    for line, comment in zip(printed, said, strict=False):
        assert line.startswith(comment.strip().removesuffix("…"))


def test_its_table_is_the_table_of_codes() -> None:
    rows = rows_of(section_of(PAGE, "The codes"), 3)
    assert rows == [[f"`{code}`", told.meaning, told.remedy] for code, told in CODES.items()]
