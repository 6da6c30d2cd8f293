"""A shop in Django that acts on the webhooks of Roovet.

Run it from the root of the repository::

    ROOVET_WEBHOOK_SECRET=whsec_example_5f2b8c1e9a7d .venv/bin/python examples/django_app/manage.py runserver

Deliveries go to ``/webhooks/roovet``; ``/ledger`` shows what the handlers have written. The development server runs a
worker in a thread. In production it is a process of its own: ``manage.py roovet_worker``.
"""

from __future__ import annotations

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    execute_from_command_line(sys.argv)
