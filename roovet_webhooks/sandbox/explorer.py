"""The API explorer: Swagger UI on the OpenAPI document. All of it comes from this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from swagger_ui_bundle import swagger_ui_path  # pyright: ignore[reportMissingTypeStubs] - it has none

from roovet_webhooks.api.openapi import openapi_document

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.routing import BaseRoute

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Roovet API, sandbox</title>
<link rel="stylesheet" href="explorer/assets/swagger-ui.css">
</head>
<body>
<div id="explorer"></div>
<script src="explorer/assets/swagger-ui-bundle.js"></script>
<script src="explorer/start.js"></script>
</body>
</html>
"""
_START = """SwaggerUIBundle({url: "openapi.json", dom_id: "#explorer", deepLinking: true, validatorUrl: null});
"""
# Swagger UI sets styles by itself; scripts come from files alone.
_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"


def explorer_routes() -> list[BaseRoute]:
    """Return the routes of ``/explorer`` and ``/openapi.json``."""

    def page(_request: Request) -> Response:
        return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY})

    def start(_request: Request) -> Response:
        return Response(_START, media_type="text/javascript")

    def document(request: Request) -> Response:
        return JSONResponse(openapi_document(server=str(request.base_url).rstrip("/")))

    return [
        Route("/openapi.json", document),
        Route("/explorer", page),
        Route("/explorer/start.js", start),
        Mount("/explorer/assets", StaticFiles(directory=swagger_ui_path)),
    ]
