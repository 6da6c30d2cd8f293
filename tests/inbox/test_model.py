"""Any order of anything, against the model. ``ROOVET_TEST_MODEL_EXAMPLES`` makes it longer."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from inbox import model
from inbox.model import EXAMPLES, INVARIANTS, STEPS
from inbox.worlds import WORLDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inbox.worlds import World


def test_each_invariant_has_its_check() -> None:
    assert list(INVARIANTS) == list(range(1, 15))
    assert all((check.__doc__ or "").startswith(f"{number}. ") for number, check in INVARIANTS.items())


@pytest.fixture(params=list(WORLDS))
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """Yield a world whose files lie in memory, where there is such a folder: no power cut is played here."""
    shared = Path("/dev/shm")  # noqa: S108 - a folder of our own in it
    folder = Path(tempfile.mkdtemp(dir=shared if shared.is_dir() else tmp_path))
    world = WORLDS[request.param](folder)
    yield world
    world.close()
    shutil.rmtree(folder)


@pytest.mark.timeout(60 + 15 * EXAMPLES)
def test_the_inbox_is_what_the_model_says(world: World) -> None:
    class Machine(model.Machine):
        def __init__(self) -> None:
            super().__init__(world)

    run_state_machine_as_test(Machine, settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS))
