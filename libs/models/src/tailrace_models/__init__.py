"""Artefact formats: how a model is written, verified, loaded and called.

`load` turns an artefact's bytes into a `Predictor`. `RiverModel` also learns; it and `OnnxModel` are imported when
first used, because river and onnxruntime are heavy and few processes need both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tailrace_models.answers import ONNX, RIVER, SAFETENSORS, Answer, Predictor
from tailrace_models.encoding import Encoder, column_names, encode_rows
from tailrace_models.errors import ArtefactCorrupt, ArtefactError, ArtefactIncompatible, SignatureInvalid
from tailrace_models.explaining import Explained, Explainer, Reference
from tailrace_models.loading import load

if TYPE_CHECKING:
    from tailrace_models.onnx_model import OnnxModel
    from tailrace_models.river_model import RiverModel

__all__ = [
    "ONNX",
    "RIVER",
    "SAFETENSORS",
    "Answer",
    "ArtefactCorrupt",
    "ArtefactError",
    "ArtefactIncompatible",
    "Encoder",
    "Explained",
    "Explainer",
    "OnnxModel",
    "Predictor",
    "Reference",
    "RiverModel",
    "SignatureInvalid",
    "column_names",
    "encode_rows",
    "load",
]


def __getattr__(name: str) -> Any:
    if name == "RiverModel":
        from tailrace_models.river_model import RiverModel

        return RiverModel
    if name == "OnnxModel":
        from tailrace_models.onnx_model import OnnxModel

        return OnnxModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
