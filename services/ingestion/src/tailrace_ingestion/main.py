"""ingestion: checks, counts, joins and archives events. Topics in, handlers, topics out."""

from tailrace_contracts import events as e
from tailrace_ingestion import app
from tailrace_ingestion.consumers import Aggregating, Archiving, Joining, Validating
from tailrace_runtime.service import main

HTTP_IN: app.Paths = {
    "/v1/predictions": (e.PredictionMade, "prediction-events"),
    "/v1/labels": (e.LabelGiven, "label-events"),
}
TOPICS_IN: app.Routes = {
    "validate": {"prediction-events": Validating.predictions, "label-events": Validating.labels},
    "aggregate": {"window-partials": Aggregating.partial},
    "join": {"predictions": Joining.predictions, "labels": Joining.labels},
    "archive": {"predictions": Archiving.records, "labelled-examples": Archiving.records},
}

if __name__ == "__main__":
    main(lambda: app.create_service(HTTP_IN, TOPICS_IN))
