"""training: learns examples one by one with river, and slices of the log with torch. Topics in, handlers, topics out."""

from tailrace_contracts import events as e
from tailrace_runtime.service import main
from tailrace_training import app, consumers

ROLES: app.Roles = {
    "online": ("labelled-examples", consumers.OnlineRole.learned),
    "batch": ("training-requested", consumers.BatchRole.requested),
}
TOPICS_OUT: consumers.TopicsOut = {
    e.RevisionTrained: "revision-trained",
    e.CandidateTrained: "candidate-trained",
    e.TrainingProgressed: "training-progressed",
}


def run() -> None:
    """Run the service."""
    main(lambda: app.create_service(ROLES, TOPICS_OUT))


if __name__ == "__main__":
    run()
