"""Keep secrets and bodies out of pickles, tracebacks and warnings."""

from __future__ import annotations

import functools
import inspect
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, NoReturn, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

P = ParamSpec("P")
R = TypeVar("R")

OUR_MODULES = "roovet_webhooks."
"""What the names of this package's modules begin with."""


class Unpicklable:
    """Refuses to be pickled, so that no secret travels in a task queue, a cache or a crash report."""

    __slots__ = ()

    _holds: ClassVar[str] = "signing secrets"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse.

        Raises:
            TypeError: Always.
        """
        message = f"{type(self).__name__} holds {self._holds} and refuses to be pickled or copied out"
        raise TypeError(message)


def forget_variables(error: BaseException, *, libraries: tuple[str, ...] = ()) -> None:
    """Clear the variables of our own frames in an error's traceback, and in the errors that caused it.

    Crash reports, debug pages and some logs print the variables of every frame: a secret or a body must not be there.

    Args:
        error: The exception.
        libraries: Prefixes of other modules' names; their frames are cleared too.
    """
    chain: list[BaseException] = [error]
    for link in chain:
        for before in (link.__cause__, link.__context__):
            if before is not None and all(before is not known for known in chain):
                chain.append(before)
        traceback = link.__traceback__
        while traceback is not None:
            if traceback.tb_frame.f_globals.get("__name__", "").startswith((OUR_MODULES, *libraries)):
                with suppress(RuntimeError):  # the frame is still running
                    traceback.tb_frame.clear()
            traceback = traceback.tb_next


def forgets_secret(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that takes a secret or a body: if it raises, none of our frames keeps either."""

    @functools.wraps(function)
    def forgetting(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            forget_variables(error)
            del args, kwargs
            raise

    return forgetting


def warn_caller(message: str) -> None:
    """Warn at the application's line that led here, however many frames of this package lie between.

    Args:
        message: The warning, without a secret.
    """
    level = 1
    frame: FrameType | None = inspect.currentframe()
    # The standard library's stands between a `with` statement and what it enters.
    while frame is not None and frame.f_globals.get("__name__", "").startswith((OUR_MODULES, "contextlib")):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
