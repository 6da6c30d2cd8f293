"""A shop's back office in Django: an order comes in as a thin event, is looked up at Roovet, and is fulfilled once.

Run it from the root of the repository, beside the sandbox (README, "Examples")::

    ROOVET_API_KEY=rvpk_test_example_0000 ROOVET_WEBHOOK_SECRET=whsec_example_5f2b8c1e9a7d .venv/bin/python examples/django_app/manage.py runserver

Deliveries go to ``/webhooks/roovet``. ``/`` shows the orders, and ``/orders.json`` the same as JSON. The development
server runs a worker in a thread. In production it is a process of its own: ``manage.py roovet_worker``.
"""  # noqa: E501 - a command is one line

from __future__ import annotations

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    execute_from_command_line(sys.argv)
