"""Collected only when this folder is named: ``python -m pytest tests/benchmarks``."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # the scripts here import each other as top-level modules, and so do the tests


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Overrule the project's ``--ignore``, which keeps this folder out of a run of all tests."""
    return False if collection_path == HERE or HERE in collection_path.parents else None
