"""registry: owns specs, versions and deployments. Topics in, handlers, topics out."""

from tailrace_contracts import events as e
from tailrace_registry import app, handlers
from tailrace_runtime.service import main

TOPICS_IN: app.Routes = {
    "registry-commands": {e.CommandIssued: handlers.obey_command},
    "candidate-trained": {e.CandidateTrained: handlers.register_candidate},
    "revision-trained": {e.RevisionTrained: handlers.keep_revision},
    "evaluations": {e.ArmsCompared: handlers.weigh_comparison},
    "alerts": {e.AlertRaised: handlers.note_alert},
    "spec-effects": {e.SpecTookEffect: handlers.note_effect},
    "training-progressed": {e.TrainingProgressed: handlers.note_training},
}
DECISIONS = ("model-specs", "model-versions", "deployments", "training-requested", "alert-mutes", "audit-entries")
TOPICS_OUT, COMMANDS_OUT = ("registry-journal", *DECISIONS), "registry-commands"


def run() -> None:
    """Run the service."""
    main(lambda: app.create_service(TOPICS_IN, TOPICS_OUT, COMMANDS_OUT))


if __name__ == "__main__":
    run()
