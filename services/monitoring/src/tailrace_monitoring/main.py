"""monitoring: watches arms, features and groups, and asks for trainings. Topics in, handlers, topics out."""

from tailrace_contracts import events as e
from tailrace_monitoring import app
from tailrace_monitoring.consumers import WatchRole
from tailrace_runtime.service import main

ANNOUNCEMENTS = (
    "model-specs",
    "model-versions",
    "deployments",
    "training-progressed",
    "audit-entries",
    "alert-mutes",
    "label-coverage",
)
TOPICS_IN: app.TopicsIn = {
    "labelled-examples": WatchRole.examples,
    "feature-statistics": WatchRole.windows,
} | dict.fromkeys(ANNOUNCEMENTS, WatchRole.notes)
EVALUATIONS: app.TopicsOut = dict.fromkeys(
    (e.ArmsCompared, e.PerformanceMeasured, e.PerformanceEstimated), "evaluations"
)
TOPICS_OUT = EVALUATIONS | {e.AlertRaised: "alerts", e.TrainingRequested: "training-requested"}


def run() -> None:
    """Run the service."""
    main(lambda: app.create_service(TOPICS_IN, TOPICS_OUT))


if __name__ == "__main__":
    run()
