"""training: learns examples one by one with river, and slices of the log with torch. Topics in, handlers, topics out."""

from tailrace_contracts import events as e
from tailrace_runtime.service import main
from tailrace_training import app
from tailrace_training.consumers import BatchRole, OnlineRole, TopicsOut

ROLES: app.Roles = {
    "online": ("labelled-examples", OnlineRole.learned),
    "batch": ("training-requested", BatchRole.requested),
}
TOPICS_OUT: TopicsOut = {
    e.RevisionTrained: "revision-trained",
    e.CandidateTrained: "candidate-trained",
    e.TrainingProgressed: "training-progressed",
}

if __name__ == "__main__":
    main(lambda: app.create_service(ROLES, TOPICS_OUT))
