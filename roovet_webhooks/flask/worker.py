"""``flask roovet worker``: run what the receivers of a Flask application have recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import click
from flask import current_app

from roovet_webhooks.cli.working import work, worker_options
from roovet_webhooks.errors import ConfigurationError
from roovet_webhooks.worker import Worker

if TYPE_CHECKING:
    from flask import Flask

    from roovet_webhooks.cli.targets import Receivers


@click.command()
@worker_options
@click.pass_obj
def worker(mounted: Receivers, *, concurrency: int, grace: float, poll: float, log_level: str) -> int:
    """Run the deliveries that the application's receivers have recorded, each handler in its own application context.

    SIGTERM or Ctrl-C ends it in order: it takes no more, lets running handlers end for the time of --grace, gives the
    rest back and exits with 0. A second signal ends it at once. Any number of workers may share an inbox.
    """
    if not mounted.receivers:
        message = "the application mounts no receiver: app.register_blueprint(webhook_blueprint(receiver))"
        raise ConfigurationError(message)
    application = cast("Flask", cast("Any", current_app)._get_current_object())
    made = Worker(*mounted.receivers, concurrency=concurrency, grace=grace, poll=poll, around=application.app_context)
    return work(made, log_level)
