"""`verify` beside what others offer, by pytest-benchmark; `ratios.py` takes the same calls in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from contenders import SIZES, contenders

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("name", list(contenders(300)))
def test_verify(benchmark: BenchmarkFixture, name: str, size: int) -> None:
    benchmark.group = f"a body of {size} bytes"
    benchmark(contenders(size)[name])
