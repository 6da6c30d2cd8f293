"""``python -m roovet_webhooks``: the command line where its script is not on the path."""

from __future__ import annotations

from roovet_webhooks.cli import main

main()
