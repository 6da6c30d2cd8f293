"""A shop in Flask that acts on the webhooks of Roovet.

Run it from the root of the repository::

    ROOVET_WEBHOOK_SECRET=whsec_example_5f2b8c1e9a7d .venv/bin/flask --app examples/flask_app run --port 8000

Deliveries go to ``/webhooks/roovet``; ``/ledger`` shows what the handlers have written.
"""

from __future__ import annotations

from pathlib import Path

from flask import Flask

from flask_app import ledger, webhooks
from roovet_webhooks import WebhookReceiver
from roovet_webhooks.flask import webhook_blueprint

# Not in create_app: the tests have to find it.
receiver = WebhookReceiver(router=webhooks.router)


def create_app() -> Flask:
    """Put the application together; ``FLASK_LEDGER`` says where the ledger is kept."""
    app = Flask(__name__)
    app.config["LEDGER"] = str(Path(__file__).with_name("ledger.sqlite3"))
    app.config.from_prefixed_env()
    ledger.create(app.config["LEDGER"])

    # Flask has no start-up hook, so the receiver is asked here whether it could do its work.
    receiver.check()
    app.register_blueprint(webhook_blueprint(receiver, path="/webhooks/roovet"))
    app.add_url_rule("/ledger", view_func=ledger.show)
    return app
