"""The OpenAPI document against the routes: generated requests, good and bad, get answers that the document allows."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from starlette.types import ASGIApp

from tailrace_serving.answering import STATUS, Front, Limits
from tailrace_serving.app import capture_of, explanations_of
from tailrace_serving.domain.arms import Arms, Loaded, Table
from tailrace_serving.domain.features import FeatureRules
from tailrace_serving.handlers import Desk
from tailrace_serving.http import application
from tailrace_serving.settings import ServingSettings
from tailrace_serving.testing import (
    RAIN,
    FakeArtefacts,
    FakeEventLog,
    FakeMeter,
    FakePredictor,
    FixedClock,
    claim_check,
    rain_spec,
)

IDLE = "snow"
"""A model whose champion cannot answer."""


def serving() -> ASGIApp:
    """The application with one champion, and a model without."""
    spec, meter, table = rain_spec(), FakeMeter(), Table()
    artefacts, reference = FakeArtefacts(), claim_check("reference")
    artefacts.references[reference.sha256] = [RAIN]
    table.swap(Arms("rain", spec, FeatureRules(spec), Loaded(1, None, "torch", "1", FakePredictor(), reference)))
    idle = rain_spec(model=IDLE)
    table.swap(Arms(IDLE, idle, FeatureRules(idle), deployed_champion=1, problems={1: "its artefact is missing"}))
    explanations = explanations_of(ServingSettings(), artefacts, meter)
    capture = capture_of(ServingSettings(), FakeEventLog(), meter, explanations)
    desk = Desk(FixedClock(), lambda: "made", meter)
    return application(Front(table, lambda: None, capture, desk, Limits(100_000, 50), explanations))


REFUSALS = [*sorted(set(STATUS.values())), 405]
"""Every answer to a bad request; 503 is that of the model that cannot answer (`no_fault` says where)."""

config = schemathesis.Config.from_dict({"checks": {"negative_data_rejection": {"expected-statuses": REFUSALS}}})
schema = schemathesis.openapi.from_asgi("/openapi.json", serving(), config=config)

PLACES: tuple[dict[str, str], ...] = (
    {"model": "rain", "version": "1"},
    {"model": "rain", "version": "1"},
    {"model": "rain"},
    {"model": IDLE, "version": "1"},
    {},
)
"""Models and versions that requests go to; what is not named here stays as it was generated, and names nothing."""


@schema.hook
def map_path_parameters(_: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Ask for the model that is there, for one that cannot answer, and for models and versions that nobody knows."""
    if not path_parameters:
        return path_parameters
    place = PLACES[crc32(repr(path_parameters).encode()) % len(PLACES)]
    return {name: place.get(name, value) for name, value in path_parameters.items()}


def no_fault(context: Any, response: Any, case: Case[Any]) -> bool | None:
    """Nothing fails. A 503 of the model whose champion cannot answer is no fault: it is documented, and says who waits."""
    if response.status_code == 503 and (case.path_parameters or {}).get("model") == IDLE:
        return None
    found: bool | None = not_a_server_error(context, response, case)
    return found


@schema.parametrize()
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_answers_are_as_documented(case: Case[Any]) -> None:
    """If it failed, a client made from the document would meet answers that it does not know, or faults."""
    case.call_and_validate(
        checks=[
            no_fault,
            content_type_conformance,
            negative_data_rejection,
            response_schema_conformance,
            status_code_conformance,
            unsupported_method,
        ]
    )


def test_requests_go_to_models_that_are_there_and_that_are_not() -> None:
    """If it failed, the test above would prove less than it says."""
    generated = [{"model": f"model-{number}", "version": str(number)} for number in range(100)]
    asked = {(made["model"], made["version"]) for each in generated if (made := map_path_parameters(None, each))}
    assert {("rain", "1"), (IDLE, "1")} <= asked
    assert any(model == "rain" and version != "1" for model, version in asked)
    assert any(model not in {"rain", IDLE} for model, _ in asked)
