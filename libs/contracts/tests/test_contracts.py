"""The contracts as other people rely on them: old events stay readable, generated files are fresh, errors are sentences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tailrace_contracts import Log, LogRange, LogRanges, SpecError, Trigger, load_spec, parse_spec, topics
from tailrace_contracts.cloudevents import headers, is_structured, unwrap
from tailrace_contracts.events import EVENTS, LabelGiven, decode
from tailrace_contracts.export import differing, documents, write
from tailrace_contracts.spec import NumericalLabel

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "schemas" / "examples").glob("*/*.json"))

SPEC: dict[str, Any] = {
    "model": "rain",
    "owner": "weather",
    "features": [
        {"name": "temperature", "type": "numerical"},
        {"name": "wind", "type": "categorical", "categories": ["calm"]},
    ],
    "label": {"name": "rain"},
}
MILLIMETRES: dict[str, Any] = {"task": "regression", "label": {"name": "mm", "limits": {"min": 0, "max": 200}}}


def holds(newer: Any, older: Any) -> bool:
    """Whether everything that was published is still said; new fields may stand beside it at any depth."""
    if isinstance(older, dict):
        return isinstance(newer, dict) and all(key in newer and holds(newer[key], older[key]) for key in older)
    if isinstance(older, list):
        return len(newer) == len(older) and all(map(holds, newer, older))
    return bool(newer == older)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_published_examples_stay_readable(path: Path) -> None:
    """An auditor years later could not read an event that was published once."""
    text = path.read_bytes()
    event = decode(text)
    assert event.type == path.parent.name
    assert holds(json.loads(event.encode()), json.loads(text))
    schema = json.loads((ROOT / "schemas" / "events" / f"{event.type}.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(json.loads(text))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_old_reader_reads_new_event(path: Path) -> None:
    """A service that is upgraded last would stop at the first event with a new field."""
    document = json.loads(path.read_bytes())
    newer = decode(json.dumps(document | {"field_of_tomorrow": {"x": 1}}).encode())
    assert newer == decode(path.read_bytes())


def test_every_event_has_an_example() -> None:
    """An event without an example could change its shape unseen."""
    assert {path.parent.name for path in EXAMPLES} == {event.type_name() for event in EVENTS}


def test_every_topic_names_known_events_and_every_event_has_a_topic() -> None:
    """A topic would carry values that nobody can decode."""
    named = {name for topic in topics().values() for name in topic.events}
    assert named == {event.type_name() for event in EVENTS}
    for name, topic in topics().items():
        assert topic.name == name
        assert topic.event_types
        assert topic.written_by
        assert topic.read_by


def test_generated_files_are_fresh() -> None:
    """The published schemas would say something else than the code does."""
    assert differing(ROOT) == []


def test_a_stale_generated_file_is_named(tmp_path: Path) -> None:
    """The freshness check itself would pass whatever the files say."""
    write(tmp_path)
    assert differing(tmp_path) == []
    (tmp_path / "schemas" / "asyncapi.yaml").write_text("asyncapi: 3.0.0\n")
    assert differing(tmp_path) == ["schemas/asyncapi.yaml"]


def test_asyncapi_references_resolve() -> None:
    """A generator of client code could not follow the document's references."""
    document = yaml.safe_load(documents()["schemas/asyncapi.yaml"])
    assert set(document["channels"]) == set(topics())
    for channel in document["channels"].values():
        for message in channel["messages"].values():
            assert message["$ref"].removeprefix("#/components/messages/") in document["components"]["messages"]
    for message in document["components"]["messages"].values():
        assert f"schemas/{message['payload']['$ref'].removeprefix('./')}" in documents()
    for operation in document["operations"].values():
        assert operation["channel"]["$ref"].removeprefix("#/channels/") in document["channels"]


def test_topics_have_sane_kafka_settings() -> None:
    """A compacted topic with a time limit would forget a model's spec."""
    for topic in topics().values():
        config = topic.config()
        assert config["cleanup.policy"] == topic.cleanup
        assert ("retention.ms" in config) == ("delete" in topic.cleanup)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"oener": "x"}, "x.yaml: oener: unknown field; remove it or correct its name"),
        ({"owner": 7}, "x.yaml: owner: Input should be a valid string, found 7"),
        ({"owner": None}, "x.yaml: owner: Input should be a valid string, found None"),
        ({"features": SPEC["features"] * 2}, "x.yaml: the spec: feature named twice: temperature, wind"),
        ({"label": {"name": "wind"}}, "x.yaml: the spec: the label 'wind' is among the features"),
        ({"protected": ["sex"]}, "x.yaml: the spec: protected attribute sex is not a feature"),
        ({"features": [{"name": "a", "type": "number"}]}, "x.yaml: features.0: Input tag 'number'"),
        (
            {"features": [{"name": "a", "type": "numerical", "limits": {"min": 3, "max": 1}}]},
            "min 3.0 must lie below max 1.0",
        ),
        ({"task": "ranking"}, "x.yaml: task: Input should be 'binary' or 'regression', found 'ranking'"),
        ({"model": "Rain Model"}, "x.yaml: model: String should match pattern"),
        ({"task": "regression"}, "x.yaml: label: a number needs limits with min and max, or a loss_scale"),
        ({"task": "regression", "label": {"name": "mm", "positive": 1, "loss_scale": 2}}, "label.positive: unknown"),
        ({"label": {"name": "mm", "loss_scale": 2}}, "x.yaml: label.loss_scale: unknown field"),
        (
            {"task": "regression", "label": {"name": "mm", "loss_scale": -2}},
            "label.loss_scale: Input should be greater",
        ),
        (MILLIMETRES | {"learners": {"online": {"algorithm": "logistic-regression"}}}, "name linear-regression"),
        ({"learners": {"online": {"algorithm": "linear-regression"}}}, "name logistic-regression"),
        (MILLIMETRES | {"monitors": {"performance": {"min_accuracy": 0.7}}}, "name max_mae or max_rmse"),
        ({"monitors": {"performance": {"max_mae": 0.7}}}, "name min_accuracy"),
        ({"monitors": {"drift": {"by_column": {"rian": "psi"}}}}, "names rian; name features, the label, prediction"),
        ({"monitors": {"drift": {"by_column": {SPEC["label"]["name"]: "wasserstein"}}}}, "has no order"),
    ],
)
def test_a_wrong_spec_gets_one_sentence(change: dict[str, Any], sentence: str) -> None:
    """A typing error in a spec would show a traceback, or pass silently."""
    with pytest.raises(SpecError) as caught:
        parse_spec(SPEC | change, "x.yaml")
    assert str(caught.value).startswith("x.yaml: ")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_spec_that_is_no_mapping_or_no_yaml_gets_one_sentence(tmp_path: Path) -> None:
    """An empty, missing or broken file would show a traceback."""
    broken = tmp_path / "broken.yaml"
    broken.write_text("model: [rain\n")
    empty = tmp_path / "empty.yaml"
    empty.write_text("")
    for path, words in (
        (broken, "not valid YAML at line 2"),
        (empty, "expected a mapping"),
        (tmp_path / "no", "cannot be read"),
    ):
        with pytest.raises(SpecError, match=words):
            load_spec(path)


def test_open_limits_survive_the_topic() -> None:
    """A spec without limits would come back from Kafka unreadable, since JSON has no infinity."""
    spec = parse_spec(SPEC)
    assert parse_spec(json.loads(spec.model_dump_json())) == spec


def test_the_labels_distance_is_named_like_that_of_a_feature() -> None:
    """The label's distance could not be chosen."""
    spec = parse_spec(SPEC | MILLIMETRES | {"monitors": {"drift": {"by_column": {"mm": "wasserstein"}}}})
    assert spec.monitors.drift is not None
    assert spec.monitors.drift.by_column == {"mm": "wasserstein"}


def test_a_regression_has_a_number_for_a_label() -> None:
    """A regression would be compared on errors of another scale, or learned by a classifier."""
    spec = parse_spec(SPEC | MILLIMETRES | {"learners": {"online": {"seed": 3}}})
    assert isinstance(spec.label, NumericalLabel)
    assert spec.learners.online is not None
    assert spec.learners.online.algorithm == "linear-regression"
    assert [spec.label.loss(guess, 10) for guess in (10, 60, 210, 1e300)] == [0, 0.25, 1, 1]
    assert parse_spec(json.loads(spec.model_dump_json())) == spec
    with pytest.raises(TypeError, match="model rain is a regression"):
        _ = spec.class_label


@pytest.mark.parametrize(
    ("given", "read"),
    [("1", 1), ("1.0", 1), ("1e300", 1e300), ("2.5", 2.5), ("true", None), ("NaN", None), ("1e999", None)],
)
def test_labels_are_finite_numbers_and_whole_ones_integers(given: str, read: float | None) -> None:
    """A class out of a column of floats would be no class, or an infinite error end every mean."""
    text = json.dumps({"type": "label-given", "prediction_id": "a", "model": "rain", "time": "2026-05-04T06:30:00Z"})
    value = text.replace("}", f', "label": {given}}}').encode()
    if read is None:
        with pytest.raises(ValidationError):
            decode(value)
        return
    event = decode(value)
    assert isinstance(event, LabelGiven)
    assert (event.label, type(event.label)) == (read, type(read))
    assert decode(event.encode()) == event


def test_numpy_labels_are_what_they_hold() -> None:
    """A class out of an array would be published as 1.0 and refused."""
    text = (ROOT / "schemas/examples/label-given/label.json").read_bytes()
    label = LabelGiven.model_validate(json.loads(text) | {"label": np.int64(1)})
    assert json.loads(label.encode())["label"] is not True
    assert isinstance(label.label, int)
    with pytest.raises(ValidationError, match="should be a number"):
        LabelGiven.model_validate(json.loads(text) | {"label": np.bool_(1)})


def test_yaml_null_is_the_policy_null() -> None:
    """`on_out_of_limits: null` is what a person writes; YAML reads it as nothing."""
    spec = parse_spec(SPEC | {"features": [{"name": "a", "type": "numerical", "on_out_of_limits": None}]})
    assert spec.features[0].model_dump()["on_out_of_limits"] == "null"


offsets = st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 2), st.integers(0, 60)), max_size=60)


@given(offsets, offsets)
def test_ranges_are_a_set_of_offsets(left: list[tuple[str, int, int]], right: list[tuple[str, int, int]]) -> None:
    """Lineage would name records that were never read, or forget some."""

    def ranges(items: list[tuple[str, int, int]]) -> LogRanges:
        return LogRanges.of_offsets((Log(topic, partition), offset) for topic, partition, offset in items)

    union = ranges(left) | ranges(right)
    assert union == ranges(right + left)
    assert len(union) == len(set(left + right))
    for topic, partition, offset in left + right:
        assert Trigger(topic=topic, partition=partition, offset=offset) in union
    assert ranges(left) - ranges(right) == ranges([each for each in left if each not in right])
    for one, other in zip(union.root, union.root[1:], strict=False):
        assert one.log != other.log or other.from_offset > one.through_offset + 1


def test_a_backward_range_is_refused() -> None:
    """A range that covers nothing would make a derivation look complete."""
    with pytest.raises(ValidationError, match="lies before"):
        LogRange(topic="labels", partition=0, from_offset=5, through_offset=4)


def test_both_cloud_event_modes() -> None:
    """A producer with a CloudEvents library would be refused in structured mode."""
    label = decode((ROOT / "schemas/examples/label-given/label.json").read_bytes())
    assert isinstance(label, LabelGiven)
    binary = dict(headers(label, event_id="1", source="/test", now=label.time))
    assert binary["ce_type"] == b"tailrace.label-given"
    assert binary["ce_time"] == b"2026-05-05T06:30:00Z"
    envelope = json.dumps({"specversion": "1.0", "id": "1", "data": json.loads(label.encode())}).encode()
    assert is_structured((("content-type", b"application/cloudevents+json; charset=utf-8"),))
    assert not is_structured(tuple(binary.items()))
    assert decode(unwrap(envelope)) == label
    with pytest.raises(ValueError, match="`data`"):
        unwrap(b"[]")
