"""The console over HTTP: one page, two JSON endpoints that it polls, and its two files. Everything else is refused.

The page is read-only and holds nothing secret beyond what the topics say; who may see it is decided in front of it. It
loads nothing from anywhere else and runs no inline script (see `HEADERS`).
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.middleware.base import RequestResponseEndpoint

from tailrace_monitoring.ports import Page
from tailrace_runtime.errors import RetryLater

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}
"""On every answer."""

FILES = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "mark.svg": "image/svg+xml",
}
"""The static files that there are."""


def create_app(page: Page) -> FastAPI:
    """The console on this read model."""
    app = FastAPI(title="Tailrace console", docs_url=None, redoc_url=None, openapi_url=None)
    templates = Environment(
        loader=PackageLoader("tailrace_monitoring"), autoescape=True, undefined=StrictUndefined, enable_async=False
    )
    static = files("tailrace_monitoring") / "static"
    contents = {name: (static / name).read_bytes() for name in FILES}

    @app.get("/")
    async def console(model: str | None = None) -> Response:
        models = await page.models()
        chosen = model if model is not None else (models[0]["model"] if models else None)
        found = await page.model(chosen) if chosen is not None else None
        data = json.dumps({"models": models, "model": found})
        text = templates.get_template("console.html").render(models=models, chosen=chosen, data=script_safe(data))
        return Response(text, status_code=404 if model is not None and found is None else 200, media_type="text/html")

    @app.get("/static/{name}")
    async def static_file(name: str) -> Response:
        if name not in contents:
            raise HTTPException(404, f"there is no file {name!r}")
        return Response(contents[name], media_type=FILES[name], headers={"cache-control": "max-age=300"})

    @app.get("/api/models")
    async def models() -> dict[str, Any]:
        return {"models": await page.models()}

    @app.get("/api/models/{name}")
    async def one_model(name: str) -> dict[str, Any]:
        found = await page.model(name)
        if found is None:
            raise HTTPException(404, f"there is no model {name!r}; /api/models lists those there are")
        return found

    _guard(app)
    return app


def _guard(app: FastAPI) -> None:
    """Safe headers on every answer, and every error as one sentence."""

    @app.middleware("http")
    async def headers(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        standard = error.detail in {"Not Found", "Method Not Allowed"}
        sentence = f"{request.method} {request.url.path} is not served here" if standard else str(error.detail)
        return JSONResponse({"error": sentence}, status_code=error.status_code, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return JSONResponse({"error": f"{request.url.path}: {where}: {first['msg']}"}, status_code=422)

    @app.exception_handler(RetryLater)
    async def away(request: Request, error: RetryLater) -> JSONResponse:
        del request
        return JSONResponse({"error": f"{error}; try again"}, status_code=503, headers={"retry-after": "1"})


def script_safe(data: str) -> str:
    """JSON that may stand in a `script` element: nothing in it can end the element or begin a comment."""
    return data.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
