"""What the console shows of a model, put together from rows of the read model (plain JSON in, plain JSON out)."""

from __future__ import annotations

from typing import Any

from tailrace_contracts.coverage import coverage_of
from tailrace_contracts.events import CoverageMeasured
from tailrace_contracts.spec import FairnessMonitor
from tailrace_statistics.error_gaps import compare_errors, error_rates
from tailrace_statistics.errors import ErrorSums
from tailrace_statistics.fairness import GroupCounts, compare_groups, group_rates
from tailrace_statistics.intervals import wilson_interval

Row = dict[str, Any]

OVER = frozenset({"finished", "failed"})


def model_summary(row: Row) -> Row:
    """One line of the list of models."""
    spec, deployment, served = row["spec"], row["deployment"] or {}, row["served"] or {}
    return {
        "model": row["model"],
        "owner": spec["spec"]["owner"],
        "description": spec["spec"].get("description", ""),
        "spec_revision": spec["spec_revision"],
        "champion": deployment.get("champion"),
        "labelled_examples": row["examples"] or 0,
        "served": _score(served) if served else None,
        "alerts": row["alerts"],
    }


def model_page(row: Row, parts: dict[str, list[Row]]) -> Row:
    """Everything about one model."""
    deployment = row["deployment"] or {}
    fairness = FairnessMonitor.model_validate(row["spec"]["spec"]["monitors"]["fairness"])
    return {
        **model_summary(row),
        "deployment": deployment or None,
        "arms": _arms(deployment, parts),
        "versions": sorted((_version(each["event"]) for each in parts["versions"]), key=lambda each: -each["version"]),
        "cohorts": _cohorts(parts["cohorts"]),
        "estimates": [each["event"] for each in parts["estimates"]],
        "groups": _groups(parts["groups"], fairness),
        "fairness": _fairness(parts["groups"], fairness),
        "window": _window(parts["window"]),
        "columns": _columns(row["spec"]["spec"], parts),
        "alerts": told_alerts(parts),
        "mutes": [mute for each in parts["mutes"] for mute in each["event"]["mutes"]],
        "coverage": _coverage(parts["coverage"]),
        "trainings": _trainings(parts),
        "audit": [each["event"] for each in parts["audit"]],
    }


def _score(row: Row) -> Row:
    """The figures of classes, or `metrics` of a regression."""
    examples, metrics = row["examples"], row.get("metrics")
    return {
        "examples": examples,
        "accuracy": row["correct"] / examples if examples and not metrics else None,
        "recent_accuracy": row["recent_accuracy"] if examples else None,
        **({"metrics": metrics} if metrics else {}),
    }


def _roles(deployment: Row) -> list[tuple[str, int | None, int | None]]:
    """Who answers now: arm, version, and percent of the traffic where that is not all or nothing."""
    roles: list[tuple[str, int | None, int | None]] = []
    canary = deployment.get("canary")
    if deployment.get("champion") is not None:
        roles.append(("champion", deployment["champion"], 100 - canary["percent"] if canary else None))
    if canary:
        roles.append(("canary", canary["version"], canary["percent"]))
    roles.extend(("shadow", version, None) for version in deployment.get("shadows", ()))
    return roles


def _arms(deployment: Row, parts: dict[str, list[Row]]) -> list[Row]:
    scores = {score["name"]: score for score in parts["scores"]}
    versions = {each["event"]["version"]: each["event"] for each in parts["versions"]}
    comparisons = {each["event"]["candidate"]: each["event"] for each in parts["comparisons"]}
    roles = _roles(deployment)
    if "external" in scores:
        roles.append(("external", None, None))
    arms = []
    for arm, number, percent in roles:
        version, score = versions.get(number or 0, {}), scores.get(str(number or arm))
        comparison = comparisons.get(number or 0)
        current = comparison is not None and comparison["champion"] == deployment.get("champion")
        arms.append(
            {
                "arm": arm,
                "version": number,
                "percent": percent,
                "learner": version.get("learner"),
                "continual": version.get("continual", False),
                "revision": version.get("revision", 0),
                **(_score(score) if score else {"examples": 0, "accuracy": None, "recent_accuracy": None}),
                "comparison": comparison if current and arm != "champion" else None,
            }
        )
    return arms


def _version(event: Row) -> Row:
    trained_on = [
        f"{each['topic']}[{each['partition']}]@{each['from_offset']}..{each['through_offset']}"
        for each in event["lineage"]["trained_on"]
    ]
    kept = ("version", "stage", "learner", "continual", "revision", "metrics", "time")
    examples = event["lineage"]["examples"]
    gates = [{name: gate[name] for name in ("gate", "state", "reason")} for gate in event.get("gates", ())]
    known = {name: event.get(name) for name in kept}
    return {**known, "gates": gates, "examples": examples, "trained_on": trained_on}


def _cohorts(rows: list[Row]) -> list[Row]:
    """The cohorts, oldest first, each accuracy with Wilson's 95 % interval."""
    return [{**row, **_interval(row)} for row in reversed(rows)]


def _interval(cohort: Row) -> Row:
    if cohort["accuracy"] is None:
        return {"lower": None, "upper": None}
    right = round(cohort["accuracy"] * cohort["examples"])
    return wilson_interval(right, cohort["examples"])._asdict()


def _counts(rows: list[Row]) -> dict[str, dict[str, GroupCounts]]:
    groups = rows[0]["body"]["groups"] if rows else {}
    return {
        attribute: {group: GroupCounts(*counts) for group, counts in found.items()}
        for attribute, found in groups.items()
    }


def _groups(rows: list[Row], monitor: FairnessMonitor) -> list[Row]:
    """The groups of the newest closed cohort, or of the newest there is, with their rates."""
    return [
        {**rates.model_dump(), "cohort": rows[0]["body"]["span"]}
        for attribute, counts in sorted(_counts(rows).items())
        for rates in group_rates(attribute, counts, monitor.min_group_examples)
    ] + [
        {**rates.model_dump(), "cohort": rows[0]["body"]["span"]}
        for rates in error_rates(_error_sums(rows), monitor.min_group_examples)
    ]


def _error_sums(rows: list[Row]) -> dict[str, dict[str, ErrorSums]]:
    groups = rows[0]["body"].get("group_errors", {}) if rows else {}
    return {
        attribute: {group: ErrorSums(int(sums[0]), *sums[1:]) for group, sums in found.items()}
        for attribute, found in groups.items()
    }


def _fairness(rows: list[Row], monitor: FairnessMonitor) -> Row | None:
    """The same groups against each other, and the limits of the spec."""
    if not rows:
        return None
    cohort = rows[0]["body"]
    compared = compare_groups(_counts(rows), monitor) + compare_errors(_error_sums(rows), monitor)
    return {
        "cohort": cohort["span"],
        "arm": cohort["arm"],
        "version": cohort["version"],
        "closed": cohort["closed"],
        "limits": monitor.model_dump(),
        "comparisons": [each.model_dump() for each in compared],
    }


def _window(rows: list[Row]) -> Row | None:
    if not rows:
        return None
    window = rows[0]
    return {
        "start": window["window_start"],
        "end": window["window_end"],
        "events": window["events"],
        "closed": window["closed"],
        "slices": window["slices"],
    }


def _columns(spec: Row, parts: dict[str, list[Row]]) -> list[Row]:
    """Every column's newest statistics, and its distances so far, in the order of the spec.

    What is measured only where it moves (a column within a group) is left out once it moves no longer.
    """
    window = parts["window"][0]["columns"] if parts["window"] else {}
    history: dict[str, list[Row]] = {}
    for each in parts["distances"]:
        history.setdefault(each["name"], []).append(each)
    newest = max((each["window_start"] for each in parts["distances"]), default=None)
    present = {name for name, measured in history.items() if measured[-1]["window_start"] == newest}
    names = [feature["name"] for feature in spec["features"]]
    others = sorted((window.keys() | history.keys()) - set(names))
    return [
        {
            "name": name,
            "now": window.get(name),
            "distance": history[name][-1]["distance"] if name in history else None,
            "threshold": history[name][-1]["threshold"] if name in history else None,
            "statistic": history[name][-1]["statistic"] if name in history else None,
            "drifted": name in present and history[name][-1]["drifted"],
            "history": [[each["window_start"], each["distance"], each["threshold"]] for each in history.get(name, [])],
        }
        for name in [*names, *others]
        if name in window or name in present
    ]


def told_alerts(parts: dict[str, list[Row]]) -> list[Row]:
    """Alerts, newest first, each with what it led to by now: the training it asked for, and that one's version."""
    stages = {each["event"]["run_id"]: each["event"]["stage"] for each in parts["progress"]}
    requested = {each["event"]["run_id"]: "requested" for each in parts["requests"]}
    versions = {each["event"]["run_id"]: each["event"] for each in parts["versions"]}
    return [{**each["event"], "story": _story(each["event"], requested | stages, versions)} for each in parts["alerts"]]


def _story(alert: Row, trainings: dict[str, str], versions: dict[str, Row]) -> Row | None:
    """What an alert led to; the registry goes on acting on it long after it was raised."""
    run_id = alert["led_to"]
    if not run_id:
        return None
    version = versions.get(run_id)
    return {
        "run_id": run_id,
        "training": "finished" if version else trainings.get(run_id, "awaited"),
        "version": version["version"] if version else None,
        "stage": version["stage"] if version else None,
        "time": version["time"] if version else None,
    }


MOST_COVERED_WINDOWS = 40


def _coverage(rows: list[Row]) -> list[Row]:
    """The newest windows, oldest first: how many of their predictions have a label so far."""
    windows = coverage_of(CoverageMeasured.model_validate(each["event"]) for each in rows)
    return [
        {
            "start": each.window.start.isoformat(),
            "end": each.window.end.isoformat(),
            "predictions": each.predictions,
            "labelled": each.labelled,
            "waiting": each.waiting,
            "expired": each.expired,
            "corrections": each.corrections,
            "late_labels": each.late_labels,
            "unmatched_labels": each.unmatched_labels,
            "share": each.share,
            "median_delay_seconds": each.delay_seconds(0.5),
        }
        for each in windows[-MOST_COVERED_WINDOWS:]
    ]


def _trainings(parts: dict[str, list[Row]]) -> list[Row]:
    """Runs, newest first: what was asked for, and how far it is."""
    runs: dict[str, Row] = {}
    for each in parts["progress"]:
        event = each["event"]
        runs[event["run_id"]] = {
            "run_id": event["run_id"],
            "reason": "",
            "requested_by": "",
            "ranges": event.get("ranges", []),
            **{name: event.get(name) for name in ("stage", "epoch", "epochs", "loss", "message", "time")},
        }
    for each in parts["requests"]:
        event = each["event"]
        known = runs.setdefault(
            event["run_id"], {"run_id": event["run_id"], "stage": "requested", "time": event["time"]}
        )
        known.update({name: event[name] for name in ("reason", "requested_by", "ranges")})
    return sorted(runs.values(), key=lambda run: run["time"], reverse=True)
