"""The part of the OpenAPI document that is about explanations: the schemas of the same questions, with more in them."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from tailrace_serving.domain.explained_form import OUTPUTS
from tailrace_serving.domain.explanation import LEAST_PERMUTATIONS, MOST_PERMUTATIONS

_MORE = {
    "permutations": {
        "type": "integer",
        "minimum": LEAST_PERMUTATIONS,
        "maximum": MOST_PERMUTATIONS,
        "description": "orders walked where contributions are sampled; default: the model's spec",
    },
    "record": {
        "type": "boolean",
        "description": "false: no prediction event is made, as for a question of what would be; default: true",
    },
}


def with_explaining(schemas: dict[str, Any]) -> dict[str, Any]:
    """The schemas of inference, and those of explanations made from them."""
    tensors, rows = deepcopy(schemas["InferRequest"]), deepcopy(schemas["PredictRequest"])
    tensors["properties"]["parameters"]["properties"] |= _MORE
    tensors["properties"]["outputs"]["items"]["properties"]["name"]["enum"] += OUTPUTS
    rows["properties"] |= _MORE
    answers = deepcopy(schemas["PredictResponse"])
    explanation = {"$ref": "#/components/schemas/Explanation"}
    answers["properties"]["explanation"] = explanation
    answers["properties"]["predictions"]["items"]["properties"]["explanation"] = explanation
    more = {
        "ExplainRequest": tensors,
        "ExplainRowsRequest": rows,
        "ExplainRowsResponse": answers,
        "Explanation": _explanation(),
    }
    return schemas | more


def _explanation() -> dict[str, Any]:
    number, by_feature = {"type": "number"}, {"type": "object", "additionalProperties": {"type": "number"}}
    whole = {"type": "integer", "minimum": 0}
    properties: dict[str, Any] = {
        "method": {"enum": ["linear-exact", "sampling-shapley"]},
        "scale": {"enum": ["log-odds", "probability", "value"]},
        "base_value": {**number, "description": "the mean output over the reference rows"},
        "output": {**number, "description": "base_value and all contributions together"},
        "contributions": by_feature,
        "standard_errors": {**by_feature, "description": "empty where the method is exact"},
        "permutations": whole,
        "seed": whole,
        "reference_rows": whole,
        "reference_sha256": {"type": "string"},
    }
    return {"type": "object", "required": list(properties), "properties": properties}
