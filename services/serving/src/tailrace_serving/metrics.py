"""The metrics that serving adds to the runtime's."""

from __future__ import annotations

from tailrace_runtime.metrics import Instrument

INSTRUMENTS: tuple[Instrument, ...] = (
    Instrument("tailrace_inferences_total", "counter", "Rows answered, by model and serving arm.", ("model", "arm")),
    Instrument("tailrace_requests_refused_total", "counter", "Requests without an answer, by reason.", ("reason",)),
    Instrument(
        "tailrace_inference_seconds",
        "histogram",
        "From the request's arrival to its answer, capture included where it is acknowledged.",
        ("model",),
        (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
    ),
    Instrument("tailrace_arm_failures_total", "counter", "Calls of a loaded model that failed.", ("model", "arm")),
    Instrument(
        "tailrace_shadows_shed_total",
        "counter",
        "Rows whose other arms were not asked, because too many were waiting; the rows' events are published.",
        ("model",),
    ),
    Instrument(
        "tailrace_explanations_total",
        "counter",
        "Explanations: asked by requests, made for live predictions that were drawn, shed (their events go without), failed.",
        ("model", "outcome"),
    ),
    Instrument("tailrace_captured_total", "counter", "Prediction events that the broker acknowledged.", ("model",)),
    Instrument("tailrace_capture_lost_total", "counter", "Prediction events given up, exactly.", ("model",)),
    Instrument("tailrace_capture_held", "gauge", "Prediction events in the buffer, those in flight included."),
    Instrument("tailrace_models_loaded", "gauge", "Artefacts that are loaded, of those deployed."),
    Instrument("tailrace_models_put_away_total", "counter", "Times that a model was put away to make room."),
    Instrument("tailrace_swaps_total", "counter", "Times that a model's arms were replaced.", ("model",)),
    Instrument("tailrace_artefact_failures_total", "counter", "Artefacts that could not be loaded.", ("model",)),
)
