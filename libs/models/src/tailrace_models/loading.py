"""From an artefact's bytes to something that answers."""

from __future__ import annotations

from tailrace_contracts.spec import ModelSpec
from tailrace_models.answers import ONNX, RIVER, Predictor
from tailrace_models.errors import ArtefactIncompatible


def load(media_type: str, data: bytes, *, signing_key: bytes, spec: ModelSpec) -> Predictor:
    """The model in an artefact, ready to answer for the spec's features.

    Raises ArtefactCorrupt, SignatureInvalid or ArtefactIncompatible. The caller has verified the claim check's sha256.
    """
    if media_type == ONNX:
        from tailrace_models.onnx_model import OnnxModel

        return OnnxModel.from_bytes(data, spec)
    if media_type == RIVER:
        from tailrace_models.river_predictor import RiverPredictor

        return RiverPredictor.from_envelope(data, signing_key, spec)
    raise ArtefactIncompatible(f"artefact of media type {media_type!r} cannot answer; expected {ONNX} or {RIVER}")
