"""The schemas of the OpenAPI document: what is asked and answered, by the names that its routes refer to."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
TRUTH: Schema = {"type": "boolean"}
IDENTIFIER: Schema = {"type": "string", "minLength": 1, "maxLength": 128}
TIME: Schema = {
    "type": "string",
    "format": "date-time",
    "description": "event time, RFC 3339 with an offset; default: now",
}
ENTITY: Schema = {**IDENTIFIER, "description": "who the question is about; the same entity always meets the same arm"}
PARAMETERS: Schema = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}


def _list(items: Schema, **bounds: int) -> Schema:
    return {"type": "array", **bounds, "items": items}


def _object(required: tuple[str, ...] | None = None, /, **properties: Schema) -> Schema:
    """An object with these properties, all required unless only some are named."""
    names = properties if required is None else required
    return {"type": "object", "required": list(names), "properties": properties}


TENSOR: Schema = {"name": TEXT, "datatype": TEXT, "shape": _list(WHOLE), "data": {"type": "array"}}
DESCRIBED: Schema = _object(name=TEXT, datatype=TEXT, shape=_list(WHOLE))
FEATURES: Schema = {
    "type": "object",
    "additionalProperties": {"type": ["number", "string", "boolean", "null"]},
    "description": "one value for each feature of the model's spec",
}
ANSWER: Schema = {
    "prediction_id": TEXT,
    "prediction": {**NUMBER, "description": "one of the label's classes, or the number of a regression"},
    "probability": {
        **NUMBER,
        "minimum": 0,
        "maximum": 1,
        "description": "of the positive class; not of a regression",
    },
}

METADATA: dict[str, Schema] = {
    "Error": _object(error={**TEXT, "description": "one sentence: what, where, what was expected"}),
    "Server": _object(name=TEXT, version=TEXT, extensions=_list(TEXT)),
    "Live": _object(live=TRUTH),
    "Ready": _object(("ready",), ready=TRUTH, error=TEXT),
    "ModelReady": _object(name=TEXT, ready=TRUTH, parameters=PARAMETERS),
    "Model": _object(
        name=TEXT,
        versions=_list(TEXT),
        platform=TEXT,
        inputs=_list(DESCRIBED),
        outputs=_list(DESCRIBED),
        parameters=PARAMETERS,
    ),
}
"""What is said of the server and its models, and of an error."""

ASKED_WITH: Schema = {
    "type": "object",
    "properties": {
        "prediction_id": {**IDENTIFIER, "description": "for one row; default: made by the server"},
        "prediction_ids": {
            "anyOf": [{"type": "string", "description": "a JSON list in a string"}, _list(IDENTIFIER)],
            "description": "one for each row",
        },
        "entity": ENTITY,
        "time": TIME,
        "binary_data_output": {**TRUTH, "description": "all outputs behind the JSON, as bytes"},
    },
}
INPUT: Schema = _object(
    ("name", "datatype", "shape"),
    **TENSOR,
    parameters={"type": "object", "properties": {"binary_data_size": {**WHOLE, "minimum": 0}}},
)
WANTED_OUTPUT: Schema = _object(
    ("name",),
    name={"enum": ["prediction", "probability", "prediction_id"]},
    parameters={"type": "object", "properties": {"binary_data": TRUTH}},
)
OUTPUT: Schema = _object(("name", "datatype", "shape"), **TENSOR, parameters=PARAMETERS)

INFERENCE: dict[str, Schema] = {
    "InferRequest": _object(
        ("inputs",), id=TEXT, parameters=ASKED_WITH, inputs=_list(INPUT, minItems=1), outputs=_list(WANTED_OUTPUT)
    ),
    "InferResponse": _object(
        ("model_name", "model_version", "parameters", "outputs"),
        id=TEXT,
        model_name=TEXT,
        model_version=TEXT,
        parameters=PARAMETERS,
        outputs=_list(OUTPUT),
    ),
}
"""The Open Inference Protocol's question and answer."""

PREDICTION: dict[str, Schema] = {
    "PredictRequest": {
        **_object(
            (),
            features=FEATURES,
            rows=_list(FEATURES, minItems=1),
            prediction_id=IDENTIFIER,
            prediction_ids=_list(IDENTIFIER),
            entity=ENTITY,
            time=TIME,
        ),
        "oneOf": [{"required": ["features"]}, {"required": ["rows"]}],
        "additionalProperties": False,
    },
    "PredictResponse": _object(
        ("model", "arm", "version"),
        model=TEXT,
        arm={"enum": ["champion", "canary", "shadow"]},
        version=WHOLE,
        revision=WHOLE,
        **ANSWER,
        predictions=_list(_object(("prediction_id", "prediction"), **ANSWER)),
    ),
}
"""Rows of features by name, and their answers."""

SCHEMAS = METADATA | INFERENCE | PREDICTION
