"""Programs that tests run, and what happens to a test whose program is missing."""

from __future__ import annotations

import os
import shutil

import pytest


def program(name: str) -> str:
    """Return the path of a program.

    Where it is not installed, the test is skipped; if ``CI`` is set, it fails.
    """
    path = shutil.which(name)
    if path is None:
        message = f"no {name}: install it"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path
