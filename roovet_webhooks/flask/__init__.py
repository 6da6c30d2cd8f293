"""Mount a receiver in a Flask application; guard a view of your own."""

from __future__ import annotations

from roovet_webhooks.flask.mounts import verified_webhook, webhook_blueprint

__all__ = ["verified_webhook", "webhook_blueprint"]
