"""Bad input: every mistake is refused with one sentence that says what, where, and what was expected."""

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tailrace_contracts.events import ArmOutput, LabelGiven, PredictionMade, decode
from tailrace_contracts.ranges import Log
from tailrace_ingestion.domain import wire
from tailrace_ingestion.domain.folding import SourceBook
from tailrace_ingestion.domain.reasons import Reason
from tailrace_ingestion.handlers import validate_labels, validate_predictions
from tailrace_ingestion.testing import START, FixedSpecs, applied, label, prediction, rain_spec, record_of
from tailrace_runtime.consumer import Outcome
from tailrace_runtime.records import Record

TOPIC = "prediction-events"


async def checked(*records: Record, specs: FixedSpecs | None = None, book: SourceBook | None = None) -> Outcome:
    """What becomes of these records, the model being `rain`."""
    numbered = [record._replace(offset=offset) for offset, record in enumerate(records)]
    book = book or SourceBook(Log(TOPIC, 0))
    book.begin(0, {})
    return await validate_predictions(numbered, specs or FixedSpecs(applied()), book, "predictions")


def raw(document: dict[str, Any] | bytes, key: str = "p1") -> Record:
    """A record with any value, under the key `p1`."""
    value = document if isinstance(document, bytes) else json.dumps(document).encode()
    return Record(TOPIC, 0, 0, 0, key.encode(), value, ())


def features(**changes: Any) -> dict[str, Any]:
    """Prediction `p1` as a document, with some features changed; `...` takes one away."""
    document: dict[str, Any] = json.loads(prediction(1).encode())
    document["features"] = {k: v for k, v in (document["features"] | changes).items() if v is not ...}
    return document


BAD = [
    (raw(b'{"prediction_id": "p1",'), Reason.BROKEN_JSON, "the value is not JSON"),
    (raw(b"\xff\xfe"), Reason.BROKEN_JSON, "the value is not JSON"),
    (raw(b"[" * 100_000), Reason.BROKEN_JSON, "nested too deeply"),
    (raw(b"[]"), Reason.NOT_AN_EVENT, "the value is an array, expected a prediction-made event as a JSON object"),
    (raw(features() | {"time": "yesterday"}), Reason.NOT_AN_EVENT, "time: "),
    (raw(features() | {"time": "2024-01-02T00:00:00"}), Reason.NOT_AN_EVENT, "timezone"),
    (raw(features() | {"prediction_id": ""}), Reason.NOT_AN_EVENT, "prediction_id: "),
    (raw(features() | {"type": "label-given"}), Reason.NOT_AN_EVENT, "type: "),
    (raw(features() | {"served": {"arm": "best", "prediction": 1}}), Reason.NOT_AN_EVENT, "served.arm: "),
    (raw(features(), key="p2"), Reason.WRONG_KEY, "the record's key is p2, expected the prediction_id p1"),
    (raw(features() | {"model": "snow"}), Reason.UNKNOWN_MODEL, "model snow is unknown"),
    (raw(features(wind=...)), Reason.MISSING_FEATURE, "feature wind of model rain is missing"),
    (raw(features(gust=1)), Reason.EXTRA_FEATURE, "feature gust is not in the spec of model rain"),
    (
        raw(features(wind="strong")),
        Reason.WRONG_TYPE,
        "feature wind of model rain is a string strong, expected a number",
    ),
    (raw(features(wind=True)), Reason.WRONG_TYPE, "feature wind of model rain is a boolean true, expected a number"),
    (raw(features(sky=1)), Reason.WRONG_TYPE, "feature sky of model rain is a number 1, expected a string"),
    (raw(features() | {"features": [1]}), Reason.WRONG_TYPE, "features of model rain is an array"),
    (raw(features(wind=float("nan"))), Reason.NOT_FINITE, "features.wind is NaN, expected a finite number"),
    (raw(features(wind=float("inf"))), Reason.NOT_FINITE, "features.wind is infinite"),
    (raw(json.dumps(features(wind=7)).replace("7", "1e999").encode()), Reason.NOT_FINITE, "features.wind is infinite"),
    (
        raw(features(wind=294)),
        Reason.OUT_OF_LIMITS,
        "feature wind of model rain is 294, expected a number from 0 to 200",
    ),
    (raw(features(wind=None)), Reason.MISSING_VALUE, "feature wind of model rain is null, expected a value"),
    (
        raw(features() | {"served": {"arm": "external", "prediction": 7}}),
        Reason.WRONG_PREDICTION,
        "prediction 7 of arm",
    ),
]


@pytest.mark.parametrize(("record", "code", "sentence"), BAD, ids=[f"{code}-{n}" for n, (_, code, _) in enumerate(BAD)])
async def test_a_mistake_is_parked_with_its_sentence(record: Record, code: Reason, sentence: str) -> None:
    """A producer could not tell from the dead letter what is wrong with an event, or the mistake would pass."""
    outcome = await checked(record)
    assert outcome.emitted == []
    assert [(parked.code, parked.record.value) for parked in outcome.parked] == [(code, record.value)]
    assert sentence in outcome.parked[0].reason


async def test_a_bad_event_takes_no_good_one_with_it() -> None:
    """One broken event in a batch would stop, or swallow, its neighbours."""
    records = [record_of(prediction(1), TOPIC, 0), raw(b"{"), raw(features() | {"model": "snow"})]
    outcome = await checked(*records, record_of(prediction(2), TOPIC, 3))
    assert [out.key for out in outcome.emitted] == [b"p1", b"p2"]
    assert [parked.code for parked in outcome.parked] == ["broken-json", "unknown-model"]


async def test_what_is_valid_is_forwarded_byte_for_byte() -> None:
    """Fields that a newer producer added would be lost, or bytes that an auditor compares would change."""
    value = json.dumps(json.loads(prediction(1).encode()) | {"new": [1, {"a": None}]}, indent=1).encode()
    outcome = await checked(Record(TOPIC, 3, 0, 0, b"p1", value, (("ce_id", b"x"),)))
    (out,) = outcome.emitted
    assert (out.topic, out.partition, out.key, out.value) == ("predictions", 3, b"p1", value)
    assert out.headers == (("trigger-offset", b"0"), ("ce_id", b"x"))


async def test_a_timestamp_ten_years_off_is_parked() -> None:
    """One broken clock would close every window, or open one in the far future that never closes."""
    far = timedelta(days=3652)
    outcome = await checked(
        record_of(prediction(1), TOPIC, 0),
        record_of(prediction(2, time=START + far), TOPIC, 1),
        record_of(prediction(3, time=START - far), TOPIC, 2),
        record_of(prediction(4), TOPIC, 3),
    )
    assert [out.key for out in outcome.emitted] == [b"p1", b"p4"]
    assert [parked.code for parked in outcome.parked] == ["time-out-of-range"] * 2
    assert "3651.0 days ahead of the newest event of its partition" in outcome.parked[0].reason
    assert "expected at most 60 days" in outcome.parked[1].reason


async def test_wall_clock_times_are_compared_with_the_arrival() -> None:
    """A live model would take events of last year, or refuse those of today."""
    spec = rain_spec(time={"clock": "wall", "max_ahead_days": 1, "max_behind_days": 7})
    arrived = int((START + timedelta(days=10)).timestamp() * 1000)
    records = [record_of(prediction(day), TOPIC, 0, timestamp_ms=arrived) for day in (2, 4, 10, 12)]
    outcome = await checked(*records, specs=FixedSpecs(applied(spec)))
    assert [out.key for out in outcome.emitted] == [b"p4", b"p10"]
    assert ["of its arrival" in p.reason or "behind its arrival" in p.reason for p in outcome.parked] == [True, True]


async def test_a_spec_applied_a_moment_ago_is_looked_for() -> None:
    """The first events after `tailrace apply` would be parked as events of an unknown model."""
    specs = FixedSpecs(later=[applied()])
    outcome = await checked(record_of(prediction(1), TOPIC, 0), specs=specs)
    assert (len(outcome.emitted), specs.refreshes) == (1, 1)


def with_policy(policy: str, **more: str) -> FixedSpecs:
    """The model with one policy for values that are out of limits or unseen."""
    wind = {"type": "numerical", "name": "wind", "limits": {"min": 0, "max": 200}, "on_out_of_limits": policy}
    seen = {"clip": "null"}.get(policy, policy)
    sky = {"type": "categorical", "name": "sky", "categories": ["clear", "grey"], "on_unseen": seen} | more
    return FixedSpecs(applied(rain_spec(features=[wind, {"type": "numerical", "name": "pressure"}, sky])))


@pytest.mark.parametrize(
    ("policy", "wind", "sky"), [("clip", 200.0, None), ("null", None, None), ("flag", 294, "pink")]
)
async def test_policies_change_the_value_and_nothing_else(policy: str, wind: float | None, sky: str | None) -> None:
    """A sensor fault would go on into training although the spec says how to handle it."""
    document = features(wind=294, sky="pink") | {"extra": 1}
    outcome = await checked(raw(document), specs=with_policy(policy))
    (out,) = outcome.emitted
    found = json.loads(out.value or b"")
    assert found["features"] == {"wind": wind, "pressure": 1000.5, "sky": sky}
    assert {k: v for k, v in found.items() if k != "features"} == {k: v for k, v in document.items() if k != "features"}


async def test_an_unseen_category_can_be_refused() -> None:
    """A model that knows two skies would be asked about a third, against its spec."""
    outcome = await checked(raw(features(sky="pink")), specs=with_policy("reject"))
    assert [parked.code for parked in outcome.parked] == ["unseen-category"]
    assert "'pink', expected one of its 2 categories, such as 'clear'" in outcome.parked[0].reason


@pytest.mark.parametrize("policy", ["reject", "null", "flag"])
@pytest.mark.parametrize("name", ["pressure", "sky"])
async def test_a_missing_value_meets_its_policy(name: str, policy: str) -> None:
    """Values that the spec takes as missing would be parked, or counted as something else; or the spec's refusal be ignored."""
    pressure = {"type": "numerical", "name": "pressure", "on_missing": policy}
    sky = {"type": "categorical", "name": "sky", "categories": ["clear", "grey"], "on_missing": policy}
    spec, document = rain_spec(features=[pressure, sky]), features(wind=..., **{name: None})
    book = SourceBook(Log(TOPIC, 0))
    outcome = await checked(raw(document), specs=FixedSpecs(applied(spec)), book=book)
    assert [parked.code for parked in outcome.parked] == (["missing-value"] if policy == "reject" else [])
    assert [out.value for out in outcome.emitted] == ([] if policy == "reject" else [raw(document).value])
    ((part, *_), *_) = [each.slices for each in book.publish() if each.slices]
    assert (part.events, part.columns[name].missing, part.columns[name].count) == (policy != "reject", 1, 0)


@pytest.mark.parametrize("policy", ["reject", "null", "flag"])
async def test_a_feature_that_is_not_named_is_a_mistake_under_every_policy(policy: str) -> None:
    """A producer that lost a field would go on for weeks as one whose sensor is silent."""
    sky = {"type": "categorical", "name": "sky", "categories": ["clear", "grey"], "on_missing": policy}
    document = features(wind=..., pressure=..., sky=...)
    outcome = await checked(raw(document), specs=FixedSpecs(applied(rain_spec(features=[sky]))))
    assert [parked.code for parked in outcome.parked] == ["missing-feature"]


async def test_an_event_without_its_type_gets_it() -> None:
    """Producers may leave `type` out; readers of `predictions` need it to know what they read."""
    document = {k: v for k, v in features().items() if k != "type"}
    (out,) = (await checked(raw(document))).emitted
    assert isinstance(decode(out.value or b""), PredictionMade)


async def test_a_structured_cloud_event_is_unwrapped() -> None:
    """Producers who use CloudEvents in structured mode, which the public topics promise to take, would be refused."""
    envelope = {"specversion": "1.0", "id": "1", "source": "/x", "type": "tailrace.prediction-made"}
    good, bad = envelope | {"data": features()}, envelope | {"data": features() | {"time": 1}}
    outcome = await checked(raw(good), raw(bad))
    assert [decode(out.value or b"") for out in outcome.emitted] == [prediction(1)]
    assert [parked.code for parked in outcome.parked] == ["not-an-event"]


async def test_labels_are_checked_against_classes_and_times() -> None:
    """A label that is no class, or of a broken clock, would be learned as the truth."""
    far = START + timedelta(days=3652)
    labels = [label(1), label(2, 5), label(3, time=far), label(4, model="snow"), label(5, 0)]
    records = [record_of(each, "label-events", offset) for offset, each in enumerate(labels)]
    outcome = await validate_labels(records, FixedSpecs(applied()), {}, "labels")
    assert [out.key for out in outcome.emitted] == [b"p1", b"p5"]
    assert [parked.code for parked in outcome.parked] == ["unknown-class", "time-out-of-range", "unknown-model"]
    assert outcome.parked[0].reason == "label 5 for model rain, expected one of its classes 0 and 1"


MILLIMETRES = FixedSpecs(applied(rain_spec(task="regression", label={"name": "mm", "limits": {"min": 0, "max": 200}})))


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (b"0", None),
        (b"12.75", None),
        (b"200", None),
        (b"-0.5", "label -0.5 for model rain, expected a number from 0 to 200"),
        (b"201", "label 201 for model rain, expected a number from 0 to 200"),
        (b"1" + b"0" * 400, "label 1000"),
        (b"true", "label: expected int | float, got bool"),
        (b"1e999", "label is infinite, expected a finite number"),
    ],
)
async def test_labels_of_a_regression_are_numbers_within_limits(value: bytes, sentence: str | None) -> None:
    """A number that cannot be the truth would be learned, or one that can be would be refused."""
    record = record_of(label(1), "label-events", 0)
    record = record._replace(value=(record.value or b"").replace(b'"label":1', b'"label":' + value))
    outcome = await validate_labels([record], MILLIMETRES, {}, "labels")
    assert [out.value for out in outcome.emitted] == ([record.value] if sentence is None else [])
    assert [sentence in parked.reason for parked in outcome.parked if sentence] == ([True] if sentence else [])


@pytest.mark.parametrize(
    ("served", "sentence"),
    [
        ({"prediction": 3}, None),
        ({"prediction": -3.25}, None),
        ({"prediction": 3.5, "probability": 0.5}, "prediction 3.5 with probability 0.5 of arm external"),
        ({"prediction": 10**400}, "expected a number of double precision"),
    ],
)
async def test_predictions_of_a_regression_are_numbers(served: dict[str, Any], sentence: str | None) -> None:
    """A classifier's answers would be scored as a regression's, or a number that no float holds stop the readers."""
    outcome = await checked(raw(features() | {"served": {"arm": "external"} | served}), specs=MILLIMETRES)
    assert len(outcome.emitted) == (sentence is None)
    assert [sentence in parked.reason for parked in outcome.parked if sentence] == ([True] if sentence else [])


async def test_a_class_is_an_integer() -> None:
    """The class 1.0 would be counted beside the class 1."""
    outcome = await checked(raw(features() | {"served": {"arm": "external", "prediction": 1.0}}))
    assert [parked.code for parked in outcome.parked] == ["wrong-prediction"]
    record = record_of(label(1), "label-events", 0)
    record = record._replace(value=(record.value or b"").replace(b'"label":1', b'"label":1.0'))
    outcome = await validate_labels([record], FixedSpecs(applied()), {}, "labels")
    assert [parked.code for parked in outcome.parked] == ["unknown-class"]


values = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=4)
documents = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["prediction-made", "label-given"]) | values,
        "prediction_id": st.sampled_from(["a", "a" * 128, "a" * 129]) | values,
        "model": st.sampled_from(["rain", "Rain", "r" * 63]) | values,
        "time": st.sampled_from(["2024-01-01T00:00:00Z", "2024-01-01 00:00:00+02:00", "0001-01-01T00:00:00Z"]) | values,
        "features": st.dictionaries(st.text(max_size=3), values, max_size=2) | values,
        "label": values,
        "served": st.fixed_dictionaries(
            {"arm": st.sampled_from(["champion", "x"]), "prediction": values}, optional={"probability": values}
        )
        | values,
        "latency_ms": values,
        "explanation": st.fixed_dictionaries(
            {
                "method": st.sampled_from(["linear-exact", "x"]),
                "scale": st.sampled_from(["value", "x"]),
                "base_value": values,
                "output": values,
                "contributions": st.dictionaries(st.text(max_size=3), values, max_size=2) | values,
                "reference_rows": st.sampled_from([0, 1]) | values,
                "reference_sha256": st.sampled_from(["0" * 64, "0" * 65]),
            },
            optional={"permutations": values, "seed": values, "standard_errors": values},
        )
        | values,
    },
)


@given(documents)
def test_what_the_fast_decoder_takes_is_an_event_of_the_contract(document: dict[str, Any]) -> None:
    """The hot path would forward values that every reader behind it chokes on."""
    value = json.dumps(document).encode()
    for fast, contract in ((wire.decode_prediction, PredictionMade), (wire.decode_label, LabelGiven)):
        try:
            fast(value)
        except ValueError:
            continue
        try:
            contract.model_validate_json(value)
        except ValidationError as error:
            # the features' values are the model's own decoder's business
            assert {issue["loc"][0] for issue in error.errors()} == {"features"}  # noqa: PT017


async def test_an_explanation_goes_on_as_it_came() -> None:
    """A decision could not be explained later: its reasons would be lost, or changed, between two topics."""
    explanation = {
        "method": "linear-exact",
        "scale": "log-odds",
        "base_value": -0.1,
        "output": 1.2345678901234567,
        "contributions": {"wind": 1.0, "a feature that is called otherwise by now": 0.1},
        "reference_rows": 3,
        "reference_sha256": "0" * 64,
        "of a later release": [1, 2],
    }
    outcome = await checked(raw(features() | {"explanation": explanation}))
    (forwarded,) = outcome.emitted
    assert json.loads(forwarded.value or b"")["explanation"] == explanation
    broken = await checked(raw(features() | {"explanation": explanation | {"output": "much"}}))
    assert [parked.code for parked in broken.parked] == [Reason.NOT_AN_EVENT]


@given(st.integers(0, 10**6), st.floats(0, 1), st.sampled_from([None, 1, 7]))
def test_the_fast_decoder_takes_every_event_of_the_contract(
    number: int, probability: float, version: int | None
) -> None:
    """Valid events would be refused by the hot path."""
    served = ArmOutput(arm="external", prediction=0, probability=probability, version=version)
    event = prediction(number % 10_000, served=served, shadows=(served,), entity="e", latency_ms=probability * 1e3)
    found = wire.decode_prediction(event.encode())
    assert (found.prediction_id, found.time, found.served and found.served.probability) == (
        event.prediction_id,
        event.time,
        probability,
    )
