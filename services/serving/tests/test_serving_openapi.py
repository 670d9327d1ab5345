"""The OpenAPI document against the routes: generated requests, good and bad, get answers that the document allows."""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from starlette.types import ASGIApp

from tailrace_serving.answering import Front, Limits
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


def serving() -> ASGIApp:
    """The application with one champion."""
    spec, meter, table = rain_spec(), FakeMeter(), Table()
    artefacts, reference = FakeArtefacts(), claim_check("reference")
    artefacts.references[reference.sha256] = [RAIN]
    table.swap(Arms("rain", spec, FeatureRules(spec), Loaded(1, None, "torch", "1", FakePredictor(), reference)))
    explanations = explanations_of(ServingSettings(), artefacts, meter)
    capture = capture_of(ServingSettings(), FakeEventLog(), meter, explanations)
    desk = Desk(FixedClock(), lambda: "made", meter)
    return application(Front(table, lambda: None, capture, desk, Limits(100_000, 50), explanations))


schema = schemathesis.openapi.from_asgi("/openapi.json", serving())


@schema.hook
def map_path_parameters(_: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Ask for the model that is there."""
    return path_parameters and {name: {"model": "rain", "version": "1"}[name] for name in path_parameters}


@schema.parametrize()
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_answers_are_as_documented(case: Case[Any]) -> None:
    """If it failed, a client made from the document would meet answers that it does not know."""
    case.call_and_validate(
        checks=[
            content_type_conformance,
            negative_data_rejection,
            response_schema_conformance,
            status_code_conformance,
            unsupported_method,
        ]
    )
