"""The Flask adapter: blueprints, guards. What is refused, and how, is in the conformance suite."""

from __future__ import annotations

import importlib
import logging
import sys
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest
from flask import Blueprint, Flask, Response, current_app, g, jsonify, request
from support import OTHER_SECRET, PATH, REFUSED, SECRET, clock, headers_of, payload

from roovet_webhooks import (
    ConfigurationError,
    Delivery,
    Event,
    MissingExtraError,
    Tenant,
    WebhookReceiver,
    WebhookRequest,
)
from roovet_webhooks.flask import verified_webhook, webhook_blueprint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flask.typing import ResponseReturnValue
    from werkzeug.test import TestResponse


def make_receiver(endpoint: str = "default", secret: Any = SECRET) -> WebhookReceiver:  # noqa: ANN401 - whatever the constructor takes
    receiver = WebhookReceiver(secret, endpoint=endpoint, clock=clock)
    receiver.fallback(lambda _event: None)
    return receiver


def make_app(*blueprints: Blueprint) -> Flask:
    app = Flask("shop")
    app.testing = True
    for blueprint in blueprints:
        app.register_blueprint(blueprint)
    return app


def post(
    app: Flask, path: str = PATH, raw: bytes | None = None, headers: Mapping[str, str] | None = None
) -> TestResponse:
    raw = payload() if raw is None else raw
    return app.test_client().post(path, data=raw, headers=headers_of(raw) if headers is None else headers)


def post_chunked(app: Flask, path: str = PATH, *, body: bytes | None = None) -> TestResponse:
    """Post without a length, to a server that tells the end of the body itself."""
    raw = payload()
    environ = {"wsgi.input": BytesIO(raw if body is None else body), "wsgi.input_terminated": True}
    return app.test_client().post(path, headers=headers_of(raw), environ_overrides=environ)


# Blueprints


def test_a_blueprint_is_named_after_its_endpoint() -> None:
    blueprint = webhook_blueprint(make_receiver("shop-1"))
    assert blueprint.name == "roovet_shop-1"
    app = make_app(blueprint)
    assert "roovet_shop-1.receive" in app.view_functions
    with app.test_request_context():
        assert app.url_for("roovet_shop-1.receive", _external=False) == PATH


def test_the_documented_path_answers_without_a_redirect() -> None:
    app = make_app(webhook_blueprint(make_receiver()))
    assert post(app).json == {"status": "handled"}
    assert post(app, PATH + "/").status_code == 404


def test_a_path_may_end_with_a_slash() -> None:
    app = make_app(webhook_blueprint(make_receiver(), path="/hooks/"))
    assert post(app, "/hooks/").status_code == 200


@pytest.mark.parametrize("method", ["OPTIONS", "GET", "HEAD", "PUT", "BREW"])
def test_no_method_is_answered_by_flask_itself(method: str) -> None:
    app = make_app(webhook_blueprint(make_receiver()))
    answer = app.test_client().open(PATH, method=method)
    assert (answer.status_code, answer.headers.getlist("Allow")) == (405, ["POST"])


def test_two_receivers_live_in_one_application() -> None:
    first, second = make_receiver("shop"), make_receiver("wallet", OTHER_SECRET)
    app = make_app(webhook_blueprint(first), webhook_blueprint(second, path="/webhooks/wallet"))
    raw = payload()
    other = headers_of(raw, secret=OTHER_SECRET)
    assert post(app, raw=raw).status_code == 200
    assert post(app, "/webhooks/wallet", raw, other).status_code == 200
    assert post(app, PATH, raw, other).json == REFUSED


def test_a_url_prefix_comes_first() -> None:
    app = Flask("shop")
    app.register_blueprint(webhook_blueprint(make_receiver()), url_prefix="/api/")
    assert post(app, "/api" + PATH).status_code == 200
    assert post(app).status_code == 404


def test_a_blueprint_may_be_nested() -> None:
    outer = Blueprint("outer", __name__, url_prefix="/outer")
    outer.register_blueprint(webhook_blueprint(make_receiver()), url_prefix="/inner")
    app = make_app(outer)
    assert post(app, "/outer/inner" + PATH).status_code == 200
    with app.test_request_context():
        assert app.url_for("outer.roovet_default.receive") == "/outer/inner" + PATH


def test_a_blueprint_may_be_registered_under_another_name() -> None:
    app = Flask("shop")
    app.register_blueprint(webhook_blueprint(make_receiver()), name="hooks")
    assert "hooks.receive" in app.view_functions
    assert post(app).status_code == 200


def test_hooks_of_the_application_and_of_the_blueprint_run() -> None:
    blueprint = webhook_blueprint(make_receiver())
    order: list[str] = []
    blueprint.before_request(lambda: order.append("blueprint"))
    app = make_app(blueprint)
    app.before_request(lambda: order.append("application"))
    assert post(app).status_code == 200
    assert order == ["application", "blueprint"]


def test_a_path_begins_with_a_slash() -> None:
    with pytest.raises(ConfigurationError, match="'hooks'"):
        webhook_blueprint(make_receiver(), path="hooks")


def test_a_receiver_without_a_secret_is_refused_at_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = make_receiver(secret=None)
    for mount in (webhook_blueprint, verified_webhook):
        with pytest.raises(ConfigurationError, match="has no signing secret"):
            mount(receiver)
    monkeypatch.setenv("ROOVET_WEBHOOK_SECRET", SECRET)
    assert post(make_app(webhook_blueprint(receiver))).status_code == 200


def test_a_resolver_finds_the_tenant_in_the_path() -> None:
    def tenant(incoming: WebhookRequest) -> Tenant | None:
        name = str(incoming.path_params["tenant"])
        # The application's context is there, for a look at its database.
        assert current_app.name == "shop"
        return {"acme": Tenant("acme", SECRET)}.get(name)

    app = make_app(webhook_blueprint(make_receiver(secret=tenant), path="/hooks/<tenant>"))
    assert post(app, "/hooks/acme").status_code == 200
    assert post(app, "/hooks/nobody").json == REFUSED


def test_handlers_have_the_context_of_the_application() -> None:
    receiver = WebhookReceiver(SECRET, clock=clock)
    seen: list[tuple[str, str, str]] = []

    @receiver.on("order.*")
    def sync(event: Event) -> None:
        g.order = event.id
        seen.append(("sync", current_app.name, request.path))

    @receiver.on("order.*")
    async def coroutine(event: Event) -> None:
        seen.append(("async", current_app.name, request.path))
        assert g.order == event.id

    app = make_app(webhook_blueprint(receiver))
    assert post(app).status_code == 200
    assert seen == [("sync", "shop", PATH), ("async", "shop", PATH)]


# Bodies that were read first


@pytest.mark.parametrize("read", ["get_data", "get_json"])
def test_the_raw_copy_of_a_body_that_was_read_first_is_used(read: str) -> None:
    app = make_app(webhook_blueprint(make_receiver()))

    @app.before_request
    def read_first() -> None:
        getattr(request, read)()

    assert post(app).json == {"status": "handled"}


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("looked_at", ["form", "values", "files", "args", "stream"])
@pytest.mark.parametrize("path", [PATH, "/own"])
def test_a_body_that_was_looked_at_and_not_read_is_there(path: str, looked_at: str, *, chunked: bool) -> None:
    app = make_app(webhook_blueprint(make_receiver()))

    @app.before_request
    def look() -> None:
        getattr(request, looked_at)

    @app.post("/own")
    @verified_webhook(make_receiver())
    def own(delivery: Delivery) -> ResponseReturnValue:
        assert request.get_data() == delivery.raw
        return {"status": "handled"}

    answer = post_chunked(app, path) if chunked else post(app, path)
    assert answer.json == {"status": "handled"}


@pytest.mark.parametrize("looked_at", ["form", "stream"])
def test_a_chunked_body_with_nothing_in_it_is_the_senders_fault_where_nobody_took_the_stream(looked_at: str) -> None:
    app = make_app(webhook_blueprint(make_receiver()))

    @app.before_request
    def look() -> None:
        getattr(request, looked_at)

    assert post_chunked(app, body=b"").status_code == (400 if looked_at == "form" else 500)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("consumed", [-1, 1])
@pytest.mark.parametrize("path", [PATH, "/own"])
def test_a_body_that_was_consumed_first_is_reported(
    path: str, consumed: int, caplog: pytest.LogCaptureFixture, *, chunked: bool
) -> None:
    if chunked and consumed == 1:
        pytest.skip("a chunked body has no count of what was read of it, and what is left does not verify")
    app = make_app(webhook_blueprint(make_receiver()))

    @app.before_request
    def consume() -> None:
        request.stream.read(consumed)

    @app.post("/own")
    @verified_webhook(make_receiver())
    def own(delivery: Delivery) -> ResponseReturnValue:
        return delivery.id

    answer = post_chunked(app, path) if chunked else post(app, path)
    assert answer.status_code == 500
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "code='body_already_read'" in record.getMessage()
    assert "request.get_data()" in record.getMessage()


def test_a_body_that_wsgi_middleware_consumed_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    app = make_app(webhook_blueprint(make_receiver()))
    inner = app.wsgi_app

    def consuming(environ: dict[str, Any], start_response: Any) -> Any:  # noqa: ANN401 - WSGI's own
        environ["wsgi.input"].read()
        return inner(environ, start_response)

    app.wsgi_app = consuming  # type: ignore[method-assign]  # the documented way to put middleware in front
    # From here this cannot be told from a sender that has gone, so it is no 5xx that a stranger could cause.
    assert post(app).status_code == 400
    assert "a WSGI middleware consumed the body" in caplog.text


def test_what_reads_after_the_receiver_finds_an_end() -> None:
    app = make_app(webhook_blueprint(make_receiver()))
    found: list[bytes] = []

    @app.after_request
    def read_again(response: Response) -> Response:
        found.append(request.get_data())
        return response

    assert post(app).status_code == 200
    assert found == [b""]


# Guards


def guarded_app() -> Flask:
    receiver = WebhookReceiver(SECRET, clock=clock)  # without a handler: a guard dispatches nothing
    app = make_app()

    @app.post("/sync/<int:number>")
    @verified_webhook(receiver)
    def sync(delivery: Delivery, number: int) -> ResponseReturnValue:
        assert request.json is not None
        return jsonify(delivery.event.id, number, request.get_data() == delivery.raw, request.json["id"])

    @app.post("/async/<int:number>")
    @verified_webhook(receiver)
    async def coroutine(delivery: Delivery, number: int) -> ResponseReturnValue:
        assert request.json is not None
        return jsonify(delivery.event.id, number, request.get_data() == delivery.raw, request.json["id"])

    assert app.view_functions["sync"].__name__ == "sync"
    return app


@pytest.mark.parametrize("path", ["/sync/3", "/async/3"])
def test_a_guard_hands_over_a_verified_delivery(path: str) -> None:
    app = guarded_app()
    raw = payload(id="ord_7")
    for _ in range(2):  # nothing is recorded, so nothing is a duplicate
        assert post(app, path, raw).json == ["ord_7", 3, True, "ord_7"]
    forged = post(app, path, raw, headers_of(raw, secret=OTHER_SECRET))
    assert (forged.status_code, forged.json, forged.mimetype) == (400, REFUSED, "application/json")


def test_a_guard_gives_a_resolver_what_the_route_captured() -> None:
    def tenant(incoming: WebhookRequest) -> Tenant | None:
        return Tenant("acme", SECRET) if incoming.path_params == {"name": "acme"} else None

    app = make_app()

    @app.post("/<name>")
    @verified_webhook(WebhookReceiver(tenant, clock=clock))
    def own(delivery: Delivery, name: str) -> ResponseReturnValue:
        return f"{delivery.tenant} {name}"

    assert post(app, "/acme").text == "acme acme"
    assert post(app, "/bolt").json == REFUSED


def test_without_flask_the_module_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flask", None)
    for name in ("roovet_webhooks.flask", "roovet_webhooks.flask.mounts"):
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingExtraError, match=r"pip install 'roovet-webhooks\[flask\]'") as caught:
        importlib.import_module("roovet_webhooks.flask")
    assert caught.value.extra == "flask"
