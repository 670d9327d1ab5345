"""Predictions and labels: send them, and see how many have met."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from tailrace_cli import explanations, sending
from tailrace_cli.commands.options import AsJson, Model
from tailrace_cli.connection import run
from tailrace_cli.output import complain, out, say, show
from tailrace_cli.state import coverage as covered
from tailrace_contracts.events import PredictionMade

MOST_NAMED = 10


def send(
    kind: Annotated[str, typer.Argument(help="predictions or labels", metavar="predictions|labels")],
    file: Annotated[str, typer.Argument(help="JSON lines (one event a line), Parquet, or - for standard input.")],
    model: Annotated[str | None, typer.Option(help="The model, where the rows do not name it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Publish a file of predictions or labels; every row that cannot be an event is named and skipped."""
    if kind not in {"predictions", "labels"}:
        msg = f"expected predictions or labels, found {kind!r}"
        raise typer.BadParameter(msg)
    what: sending.Kind = "predictions" if kind == "predictions" else "labels"
    result = run(lambda to: sending.send(to, what, file, model))
    if as_json:
        out.print_json(json.dumps({"sent": result.sent, "refused": result.refused}))
    else:
        say(f"sent {result.sent} {kind if result.sent != 1 else kind[:-1]}")
        for sentence in result.refused[:MOST_NAMED]:
            complain("refused", sentence)
        if (more := len(result.refused) - MOST_NAMED) > 0:
            complain("refused", f"{more} more (--json names them all)")
    if result.refused:
        raise typer.Exit(1)


def explanation(
    prediction_id: Annotated[str, typer.Argument(help="As the answer said, or as the caller named it.")],
    as_json: AsJson = False,
) -> None:
    """Show a prediction as it was recorded, and what each feature contributed, where it was explained."""
    event = run(lambda to: explanations.recorded(to, prediction_id))
    if as_json:
        out.print_json(event.model_dump_json())
        return
    say(_answer(event))
    if event.explanation is None:
        say("it was not explained: not asked for, and not drawn for the sample (`serving.explanations` of the spec)")
    else:
        say(explanations.told(event.explanation))
    show(explanations.lines(event), as_json=False, empty="no features")


def _answer(event: PredictionMade) -> str:
    served = event.served
    if served is None:
        return f"{event.prediction_id} of model {event.model} at {event.time:%Y-%m-%d %H:%M:%S}: not answered"
    probability = "" if served.probability is None else f" with probability {served.probability:.6g}"
    version = "" if served.version is None else f" version {served.version}"
    revision = "" if served.revision is None else f".{served.revision}"
    return (
        f"{event.prediction_id} of model {event.model} at {event.time:%Y-%m-%d %H:%M:%S}:"
        f" {served.prediction}{probability}, by {served.arm}{version}{revision}"
    )


def coverage(
    model: Model,
    windows: Annotated[int, typer.Option(min=1, help="Only the newest so many windows.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show how many predictions of each window have a label so far, how many wait, and how many never got one."""
    found = run(lambda to: covered(to, model))
    rows = [
        {
            "window": f"{each.window.start:%Y-%m-%d %H:%M}",
            "predictions": each.predictions,
            "labelled": each.labelled,
            "share": None if each.share is None else round(each.share, 4),
            "waiting": each.waiting,
            "expired": each.expired,
            "corrections": each.corrections,
            "late_labels": each.late_labels,
            "unmatched_labels": each.unmatched_labels,
            "half_within_seconds": each.delay_seconds(0.5),
        }
        for each in found[-windows:]
    ]
    show(rows, as_json=as_json, empty=f"nothing has been counted of model {model} yet")
