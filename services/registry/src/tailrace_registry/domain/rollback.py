"""When an alert on a new champion returns traffic to the last good version, without a person.

The last good version is the one that stands by, else the newest of the champions before that can still answer. What the
world does to every version must return nobody, so an alert does nothing

    where the version that would return is known to have the same fault: it raised an alert of the kind itself
    where it is about labels (performance, fairness) and nothing shows that the other version does better: one that
      stands by has to have kept the limit on the same examples; once the champion has held its place, nobody returns
    where it is an estimate from before the labels, about an earlier reign of the version, or muted
    where the champion is itself one that returned: twice in a row is no longer about a promotion, and a person looks
"""

from __future__ import annotations

from collections.abc import Sequence

from tailrace_contracts.audit import digest_of
from tailrace_contracts.events import AlertRaised, Evidence
from tailrace_registry.domain.model import Decision, Model, stand
from tailrace_registry.domain.rollout import rolled_back

_BY_LABELS = frozenset({"performance", "fairness"})


def version_before(model: Model) -> int | None:
    """The newest of the champions before the present one that could answer again."""
    out = {model.champion} | set(model.at("rejected")) | set(model.at("rolled-back")) | model.misfits
    return next((number for number in reversed(model.predecessors) if number not in out), None)


def last_good(model: Model) -> int | None:
    """Where an alert on the champion returns traffic to."""
    return model.standby if model.standby is not None else version_before(model)


def alert_evidence(alert: AlertRaised) -> Evidence:
    """What a rollback rests on."""
    return Evidence(
        kind="alert",
        event_id=alert.alert_id,
        summary=alert.message,
        derived_from=alert.derived_from,
        sha256=digest_of(alert),
    )


def is_about(alert: AlertRaised, version: int | None) -> bool:
    """Whether an alert is about this version's answers."""
    return version is not None and (alert.version == version or alert.subject == f"version {version}")


def heed(model: Model, alert: AlertRaised, told: Sequence[AlertRaised] = ()) -> Decision:
    """An alert on the champion returns the last good version, or nobody; then the reason says why.

    `told` are the alerts on record about the champion and about the version that would return.
    """
    if not is_about(alert, model.champion):
        return stand(model, "it is not about the champion")
    number = last_good(model)
    if number is None:
        return stand(model, "there is no version before that could answer again")
    objection = _spent(model, alert) or _no_better(model, alert, number, told)
    if objection:
        return stand(model, objection)
    return rolled_back(model, number, alert.message, alert_evidence(alert))


def _spent(model: Model, alert: AlertRaised) -> str:
    """Why an alert, whatever it says, returns nobody."""
    if alert.muted_by:
        return f"it is muted by {alert.muted_by}"
    if not model.spec.rollout.returns_on(alert.kind):
        return f"rollout.rollback_on does not name {alert.kind}"
    if alert.estimated:
        return "it is an estimate from before the labels"
    if alert.deployment is not None and alert.deployment < _reign(model):
        return f"it is about an earlier reign of version {model.champion}"
    if model.returned:
        return f"version {model.champion} came back by a rollback itself; a person decides about a second one"
    return ""


def _reign(model: Model) -> int:
    return model.deployment.reign if model.deployment else 0


def _no_better(model: Model, alert: AlertRaised, number: int, told: Sequence[AlertRaised]) -> str:
    """Why the other version is not known to do better; empty where it is, or where only its record can tell."""
    if number in alert.kept_by:
        return ""
    by_labels = alert.kind in _BY_LABELS
    if by_labels and model.standby is not None:
        return f"version {number} stands by, and is not shown to have done better on the same examples"
    if any(each.kind == alert.kind and is_about(each, number) for each in told):
        return f"version {number} before it raised an alert on {alert.kind} too"
    return _world(model, told) if by_labels else ""


def _world(model: Model, told: Sequence[AlertRaised]) -> str:
    """Why what labels say of a champion that nobody stands by for is about the world, and not about its promotion."""
    if model.spec.rollout.standby_examples:
        return f"version {model.champion} has held its place against the versions before: what has moved is the world"
    drifted = (each for each in told if each.kind == "concept-drift" and is_about(each, model.champion))
    if any(each.deployment is None or each.deployment >= _reign(model) for each in drifted):
        return f"the errors of version {model.champion} rose while it was champion: what has moved is the world"
    return ""
