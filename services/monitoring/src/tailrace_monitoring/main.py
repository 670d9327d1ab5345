"""monitoring: watches arms, features and groups, and asks for trainings. Topics in, handlers, topics out."""

from tailrace_monitoring import app
from tailrace_monitoring.consumers import WatchRole
from tailrace_runtime.service import main

DECISIONS = ("model-specs", "model-versions", "deployments", "alert-mutes", "audit-entries")
REPORTS = ("training-progressed", "label-coverage")
TOPICS_IN: app.TopicsIn = {
    "labelled-examples": WatchRole.examples,
    "feature-statistics": WatchRole.windows,
    "serving-measurements": WatchRole.answers,
} | dict.fromkeys(DECISIONS + REPORTS, WatchRole.notes)
TOPICS_OUT = app.topics_out("evaluations", "alerts", "training-requested")


def run() -> None:
    """Run the service."""
    main(lambda: app.create_service(TOPICS_IN, TOPICS_OUT))


if __name__ == "__main__":
    run()
