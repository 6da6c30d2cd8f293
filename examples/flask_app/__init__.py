"""A shop's back office in Flask: an order comes in as a thin event, is looked up at Roovet, and is fulfilled once.

Run it from the root of the repository, beside the sandbox (README, "Examples")::

    ROOVET_API_KEY=rvpk_test_example_0000 ROOVET_WEBHOOK_SECRET=whsec_example_5f2b8c1e9a7d .venv/bin/flask --app 'examples/flask_app:create_app(worker=True)' run --port 8000

Deliveries go to ``/webhooks/roovet``. ``/`` shows the orders, and ``/orders.json`` the same as JSON. The development
server runs a worker in a thread. In production it is a process of its own: ``flask --app … roovet worker``.
"""  # noqa: E501 - a command is one line

from __future__ import annotations

import logging

from flask import Flask, render_template

from flask_app import orders, webhooks
from roovet_webhooks import WebhookReceiver
from roovet_webhooks.flask import webhook_blueprint
from roovet_webhooks.worker import Worker

# Not in create_app: the tests have to find it.
receiver = WebhookReceiver(inbox=orders.inbox, router=webhooks.router)


def create_app(*, worker: bool = False) -> Flask:
    """Put the application together.

    Args:
        worker: Whether to run the handlers in this process as well.
    """
    app = Flask(__name__)
    # What becomes of each delivery is shown on the terminal.
    logging.basicConfig()
    logging.getLogger("roovet_webhooks").setLevel(logging.INFO)
    orders.create_table()
    # Flask has no start-up hook, so the receiver is asked here whether it could do its work.
    receiver.check()
    app.register_blueprint(webhook_blueprint(receiver, path="/webhooks/roovet"))
    app.add_url_rule("/", "page", lambda: render_template("orders.html", orders=orders.list_orders()))
    app.add_url_rule("/orders.json", "json", orders.list_orders)
    if worker:
        Worker(receiver, around=app.app_context).start()
    return app
