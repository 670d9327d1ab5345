"""The OpenAPI document of the HTTP front, written by hand because the busy routes are plain ASGI."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from tailrace_serving.openapi_explaining import with_explaining
from tailrace_serving.openapi_schemas import SCHEMAS

VERSION = version("tailrace-serving")

_MODEL = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}, "example": "rain"}
_VERSION = {
    "name": "version",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "a version that is served now, such as `7`, or one revision of a continual version, such as `7.12`",
}

_REFUSALS = {
    400: "not a request of this form: broken JSON, a wrong name, shape or datatype",
    404: "no such model, or the version is not served",
    408: "the body did not arrive in time",
    413: "the body or the number of rows is over the limit",
    415: "the body has a content encoding",
    422: "a value that the model's spec refuses: missing, not finite, out of limits, unseen",
    429: "too many requests at once; `Retry-After` says when to try again",
    409: "the version has no reference rows to explain an answer against",
    503: "no champion yet, or it cannot answer, or the prediction could not be recorded as the model requires",
}

_EXPLAINING = (409,)
"""Refusals of explanations only."""

_BINARY = "application/octet-stream"
_HEADER_LENGTH = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "required": False,
    "schema": {"type": "integer", "minimum": 1},
    "description": "binary tensors follow the JSON, which has so many bytes; without it the body is JSON",
}


def document(max_body_bytes: int, max_rows: int) -> dict[str, Any]:
    """The document, with this deployment's limits in it."""
    infer = _with_binary(_answering("Answer an inference request", "InferRequest", "InferResponse"))
    predict = _answering("Answer rows of features by name", "PredictRequest", "PredictResponse")
    explain = _with_binary(
        _answering("Answer, and say what each feature contributed", "ExplainRequest", "InferResponse", *_EXPLAINING)
    )
    explain_rows = _answering(
        "Answer rows by name, and say what each feature contributed",
        "ExplainRowsRequest",
        "ExplainRowsResponse",
        *_EXPLAINING,
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tailrace serving",
            "version": VERSION,
            "summary": "Answers inference requests in the Open Inference Protocol and captures every answer.",
            "description": f"At most {max_body_bytes} bytes and {max_rows} rows for one request.",
        },
        "paths": {
            "/v2": {"get": _reading("The server's metadata", "Server")},
            "/v2/health/live": {"get": _reading("Whether the server is alive", "Live")},
            "/v2/health/ready": {"get": _reading("Whether every deployed champion answers", "Ready", (503,))},
            "/v2/models/{model}": {"get": _reading("The model's metadata", "Model", (404,), _MODEL)},
            "/v2/models/{model}/ready": {
                "get": _reading("Whether the model answers", "ModelReady", (404, 503), _MODEL)
            },
            "/v2/models/{model}/versions/{version}": {
                "get": _reading("The version's metadata", "Model", (404,), _MODEL, _VERSION)
            },
            "/v2/models/{model}/versions/{version}/ready": {
                "get": _reading("Whether the version answers", "ModelReady", (404, 503), _MODEL, _VERSION)
            },
            "/v2/models/{model}/infer": {"post": {**infer, "parameters": [_MODEL, _HEADER_LENGTH]}},
            "/v2/models/{model}/versions/{version}/infer": {
                "post": {**infer, "parameters": [_MODEL, _VERSION, _HEADER_LENGTH]}
            },
            "/v1/models/{model}/predict": {"post": {**predict, "parameters": [_MODEL]}},
            "/v2/models/{model}/explain": {"post": {**explain, "parameters": [_MODEL, _HEADER_LENGTH]}},
            "/v2/models/{model}/versions/{version}/explain": {
                "post": {**explain, "parameters": [_MODEL, _VERSION, _HEADER_LENGTH]}
            },
            "/v1/models/{model}/explain": {"post": {**explain_rows, "parameters": [_MODEL]}},
        },
        "components": {"schemas": with_explaining(SCHEMAS)},
    }


def _reading(summary: str, schema: str, refusals: tuple[int, ...] = (), *parameters: dict[str, Any]) -> dict[str, Any]:
    answers = {"200": _content("the answer", schema)}
    for status in refusals:
        same = status == 503
        answers[str(status)] = _content(_REFUSALS[status] if not same else "not ready", schema if same else "Error")
    return {"summary": summary, "parameters": list(parameters), "responses": answers}


def _answering(summary: str, request: str, response: str, *more: int) -> dict[str, Any]:
    refusals = {
        str(status): _content(meaning, "Error")
        for status, meaning in _REFUSALS.items()
        if status not in _EXPLAINING or status in more
    }
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": _reference(request)}}},
        "responses": {"200": _content("the answers", response), **refusals},
    }


def _with_binary(operation: dict[str, Any]) -> dict[str, Any]:
    """The same, with the binary tensor extension: JSON and then bytes, both ways."""
    both = {"description": "the JSON of an inference, then the binary tensors", "schema": {"format": "binary"}}
    operation["requestBody"]["content"][_BINARY] = both
    operation["responses"]["200"]["content"][_BINARY] = both
    operation["responses"]["200"]["headers"] = {
        "Inference-Header-Content-Length": {"schema": {"type": "integer"}, "description": "where binary outputs follow"}
    }
    return operation


def _content(description: str, schema: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _reference(schema)}}}


def _reference(schema: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{schema}"}
