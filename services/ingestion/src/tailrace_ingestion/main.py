"""ingestion: checks, counts, joins and archives events. Topics in, handlers, topics out."""

from tailrace_contracts import events as e
from tailrace_ingestion import app
from tailrace_ingestion.consumers import Aggregating, Archiving, Joining, Validating
from tailrace_runtime.service import main

PREDICTIONS, LABELS = (e.PredictionMade, "prediction-events"), (e.LabelGiven, "label-events")
HTTP_IN: app.Paths = {"/v1/predictions": PREDICTIONS, "/v1/labels": LABELS}
TOPICS_IN: app.Routes = {
    "validate": {"prediction-events": Validating.predictions, "label-events": Validating.labels},
    "aggregate": {"window-partials": Aggregating.partial},
    "join": {"predictions": Joining.predictions, "labels": Joining.labels},
    "archive": {"predictions": Archiving.records, "labelled-examples": Archiving.records},
}


def run() -> None:
    """Run the service until it is told to stop."""
    main(lambda: app.create_service(HTTP_IN, TOPICS_IN))


if __name__ == "__main__":
    run()
