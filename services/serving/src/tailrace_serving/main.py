"""serving: answers questions over HTTP and Kafka. Facts in from three topics, every answer out as a prediction event."""

from tailrace_contracts import events as e
from tailrace_runtime.service import main
from tailrace_serving import app, consumers
from tailrace_serving.domain.deployment import Facts
from tailrace_serving.requests import Requests

TOPICS_IN: consumers.Routes = {
    "model-specs": {e.SpecApplied: Facts.learn_spec},
    "model-versions": {e.VersionChanged: Facts.learn_version},
    "deployments": {e.DeploymentChanged: Facts.learn_deployment},
}
REQUESTS_IN: app.RequestRoutes = {"inference-requests": Requests.handle}
TOPIC_OUT, MEASUREMENTS_OUT = "prediction-events", "serving-measurements"


def run() -> None:
    """Run the service."""
    main(lambda: app.create_service(TOPICS_IN, REQUESTS_IN, TOPIC_OUT, MEASUREMENTS_OUT))


if __name__ == "__main__":
    run()
