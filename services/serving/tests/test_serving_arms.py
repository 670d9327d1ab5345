"""Arms: who serves a request, who else answers, and what a new deployment makes of them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace_contracts.events import ArmOutput, Event, PredictionMade
from tailrace_serving.domain.arms import Arms, Loaded, Table, bucket
from tailrace_serving.domain.deployment import Facts, Plan, arranged, plan, reusable
from tailrace_serving.domain.features import FeatureRules
from tailrace_serving.domain.prediction_event import Output, Prediction, encode
from tailrace_serving.domain.refusal import Refused
from tailrace_serving.testing import RAIN, THEN, FakePredictor, applied, deployed, digest, learn, rain_spec, versioned

SPEC = rain_spec()


def loaded(version: int, revision: int | None = None) -> Loaded:
    """A version that answers."""
    return Loaded(version, revision, "torch", digest(f"{version}.{revision}"), FakePredictor())


ONE, TWO, THREE = loaded(1), loaded(2), loaded(3, 12)
ARMS = Arms("rain", SPEC, FeatureRules(SPEC), ONE, TWO, 20, (THREE,), 1)


def test_canary_gets_its_share() -> None:
    """If it failed, a canary would meet more or less of the traffic than the spec allows."""
    served = [ARMS.choose(f"entity-{number}").arm for number in range(10_000)]
    assert 0.18 < served.count("canary") / len(served) < 0.22


@given(st.text(min_size=1), st.integers(1, 100), st.integers(1, 100))
def test_larger_share_keeps_its_entities(key: str, one: int, other: int) -> None:
    """If it failed, raising a canary's share would move entities back and forth between arms."""
    small, large = sorted((one, other))
    assert bucket("rain", key) >= small or bucket("rain", key) < large
    assert bucket("rain", key) == bucket("rain", key)
    assert 0 <= bucket("rain", key) < 100


def test_bucket_is_the_same_in_every_release() -> None:
    """If it failed, an upgrade would move every entity to another arm."""
    assert [bucket("rain", key) for key in ("a", "b", "c")] == [36, 7, 39]


def test_the_others_answer_beside_the_served_arm() -> None:
    """If it failed, a comparison would miss an arm, or count one twice."""
    assert [(arm, each.label) for arm, each in ARMS.others(TWO)] == [("champion", "1"), ("shadow", "3.12")]
    assert [(arm, each.label) for arm, each in ARMS.others(ONE)] == [("canary", "2"), ("shadow", "3.12")]


def test_version_is_found_by_number_and_by_revision() -> None:
    """If it failed, a caller could not ask for one version."""
    assert ARMS.named("3").loaded is THREE
    assert ARMS.named("3.12").loaded is THREE
    with pytest.raises(Refused, match=r"version '3.11' of model 'rain' is not served; versions served now: 1 \(champ"):
        ARMS.named("3.11")


def test_without_champion_the_sentence_says_what_to_do() -> None:
    """If it failed, a newcomer would not know why the first request fails."""
    with pytest.raises(Refused, match=r"no champion yet; wait for its first training, or run `tailrace promote rain"):
        Arms("rain", SPEC, FeatureRules(SPEC)).choose("x")
    with pytest.raises(Refused, match="champion 4 of model 'rain' cannot answer: it is damaged"):
        Arms("rain", SPEC, FeatureRules(SPEC), deployed_champion=4, problems={4: "it is damaged"}).choose("x")


def _planned(*events: Event) -> Plan:
    facts = Facts()
    for event in events:
        learn(facts, event)
    wanted = plan(facts, "rain")
    assert wanted is not None
    return wanted


def test_champion_that_cannot_be_loaded_does_not_replace_one_that_answers() -> None:
    """If it failed, one bad artefact would take a working model off the air."""
    wanted = _planned(applied(SPEC), versioned(4, "four"), deployed(4, shadows=(1,), sequence=2))
    arms = arranged(wanted, {}, {4: "it is damaged"}, ARMS)
    assert arms.champion is ONE
    assert arms.shadows == ()
    assert arms.problems == {4: "it is damaged"}
    assert arms.ready


def test_old_questions_are_answered_until_a_version_fits_the_new_spec() -> None:
    """If it failed, applying a spec with another feature would stop the model until it is trained again."""
    other = rain_spec(features=[{"type": "numerical", "name": "humidity"}])
    wanted = _planned(applied(other, 2), versioned(1, "one"), deployed(1))
    arms = arranged(wanted, {}, {1: "it has four columns"}, ARMS)
    assert arms.champion is ONE
    assert arms.spec is SPEC
    fitting = arranged(wanted, {1: TWO}, {}, arms)
    assert fitting.champion is TWO
    assert fitting.rules.names == ("humidity",)


def test_new_limits_need_no_new_artefact() -> None:
    """If it failed, correcting a limit would load every artefact again, or wait for a training."""
    features = [
        {**each.model_dump(), "limits": {"max": 50}} if each.name == "humidity" else each for each in SPEC.features
    ]
    narrower = rain_spec(features=features)
    version = versioned(1, "one")
    wanted = _planned(applied(narrower, 2), version, deployed(1))
    one = Loaded(1, None, "torch", version.artefact.sha256, FakePredictor())
    previous = Arms("rain", SPEC, FeatureRules(SPEC), one)
    assert reusable(previous, narrower, version) is one
    arms = arranged(wanted, {1: one}, {}, previous)
    with pytest.raises(Refused, match="feature 'humidity' is 60, expected -inf to 50"):
        arms.rules.row({**RAIN, "humidity": 60})


def test_failed_revision_leaves_the_earlier_one_in_its_arm() -> None:
    """If it failed, a damaged revision would empty the shadow arm of a continual version."""
    wanted = _planned(applied(SPEC), versioned(1, "one"), versioned(3, "x", revision=13), deployed(1, shadows=(3,)))
    arms = arranged(wanted, {1: ONE}, {3: "it is damaged"}, ARMS)
    assert arms.shadows == (THREE,)


def test_canary_takes_no_traffic_after_its_promotion() -> None:
    """If it failed, a promoted canary would be counted in two arms."""
    wanted = _planned(applied(SPEC), versioned(2, "two"), deployed(2, sequence=3))
    arms = arranged(wanted, {2: TWO}, {}, ARMS)
    assert [(arm, each.label) for arm, each in arms.members()] == [("champion", "2")]


def test_older_facts_change_nothing() -> None:
    """If it failed, a record read twice would bring an old deployment back."""
    facts = Facts()
    assert learn(facts, deployed(2, sequence=5))
    assert not learn(facts, deployed(1, sequence=4))
    assert learn(facts, versioned(2, "b", revision=7))
    assert not learn(facts, versioned(2, "a", revision=6))
    assert not learn(facts, versioned(9, "not deployed"))
    assert learn(facts, applied(SPEC, 2))
    assert not learn(facts, applied(SPEC, 1))
    assert facts.deployments["rain"].champion == 2


def test_swap_does_not_touch_what_a_request_holds() -> None:
    """If it failed, a request would be answered by one deployment and recorded under another."""
    table = Table()
    table.swap(ARMS)
    held = table.find("rain")
    table.swap(Arms("rain", SPEC, FeatureRules(SPEC), TWO))
    assert held.champion is ONE
    assert table.find("rain").champion is TWO
    with pytest.raises(Refused, match="model 'snow' is unknown; models known here: rain"):
        table.find("snow")


def test_event_is_exactly_the_contract() -> None:
    """If it failed, consumers would read something else than serving meant to write."""
    ours = Prediction(
        prediction_id="p-1",
        model="rain",
        time=THEN,
        features={**RAIN, "wind": None},
        served=Output("canary", 1, 0.75, 2, None),
        shadows=[Output("shadow", 0, 0.25, 3, 12)],
        entity="station-4",
        latency_ms=0.25,
    )
    theirs = PredictionMade(
        prediction_id="p-1",
        model="rain",
        time=THEN,
        features={**RAIN, "wind": None},
        served=ArmOutput(arm="canary", prediction=1, probability=0.75, version=2),
        shadows=(ArmOutput(arm="shadow", prediction=0, probability=0.25, version=3, revision=12),),
        entity="station-4",
        latency_ms=0.25,
    )
    assert PredictionMade.model_validate_json(encode(ours)) == theirs
    assert set(Prediction.__struct_fields__) == set(PredictionMade.model_fields)
    assert set(Output.__struct_fields__) == set(ArmOutput.model_fields)
    assert json.loads(encode(ours)) == json.loads(theirs.encode())
