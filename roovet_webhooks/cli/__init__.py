"""The command line ``roovet-webhooks``: sign, verify, send and receive deliveries by hand.

Nothing at run time imports this package. It needs the extra ``cli``; `main` says so where it is missing.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import NoReturn

_NEEDED = ("click", "rich", "uvicorn")


def main() -> NoReturn:
    """Run the command line and exit."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        sys.stderr.write(f"roovet-webhooks needs {', '.join(missing)}; run: pip install 'roovet-webhooks[cli]'\n")
        sys.exit(2)
    # A terminal or pipe that cannot show a character gets an escape instead of a traceback.
    for stream in (sys.stdout, sys.stderr):
        if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
            reconfigure(errors="backslashreplace")
    try:
        from roovet_webhooks.cli.root import root  # noqa: PLC0415 - only now is it known that click is there

        root.main()
    except KeyboardInterrupt:
        # While modules are imported: click takes care of what comes after it.
        sys.exit(130)
