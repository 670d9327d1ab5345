"""The `tailrace` command: decode the command line, call, print. What a command does stands in the modules beside it.

Exit status: 0 done; 1 it could not be done, with one sentence on standard error; 2 the command line is wrong.
"""

from __future__ import annotations

import asyncio
import getpass
import json
import logging
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import structlog
import typer

from tailrace_cli import alerts as quiet
from tailrace_cli import audit as chain
from tailrace_cli import sending, stack
from tailrace_cli.connection import CommandError, connect
from tailrace_cli.connection import run as _run
from tailrace_cli.dead_letter_commands import dead_letters
from tailrace_cli.output import complain, near, out, say, show
from tailrace_cli.registry import issue, outcome
from tailrace_cli.state import coverage as covered
from tailrace_cli.state import known
from tailrace_client import PublishError
from tailrace_contracts import SpecError, load_spec
from tailrace_contracts.events import (
    ApplySpec,
    Command,
    MuteAlerts,
    PauseRollout,
    PromoteVersion,
    RejectVersion,
    ResumeRollout,
    RollbackModel,
    TrainModel,
    UnmuteAlerts,
)
from tailrace_local import Home, LocalError, shown
from tailrace_runtime.settings import KafkaSettings

MOST_NAMED = 10
NEWEST_ALERTS = 20

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Keeps machine-learning models true while the stream changes under them.

Start with `tailrace demo weather`: it brings up everything on this machine and plays a real stream through the loop.
Then `tailrace up`, `tailrace apply SPEC.yaml`, and send events with `tailrace send` or over HTTP.""",
)
demo = typer.Typer(no_args_is_help=True, help="Play a real stream through the whole loop, watch it, and get a report.")
app.add_typer(demo, name="demo")
audit = typer.Typer(no_args_is_help=True, help="What was asked, decided and refused: list, verify, export.")
app.add_typer(dead_letters, name="dead-letters")
app.add_typer(audit, name="audit")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Model = Annotated[str, typer.Argument(help="The model's name, as `tailrace models` shows it.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it stands in the audit log.")]
OfModel = Annotated[str, typer.Option("--model", help="Only those of this model.")]
ReportFile = Annotated[Path | None, typer.Option("--report", help="Also write the report to this file, as JSON.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Play only this many rows (default: all).")]


def main() -> None:
    """Run the command line; a mistake of the user's or the machine's becomes one sentence."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime reports home by default; services inherit this
    try:
        app()
    except (CommandError, SpecError, PublishError, LocalError) as error:
        complain("error:", str(error))
        sys.exit(1)


# ---------------------------------------------------------------- the machine


@app.command()
def up(
    port: Annotated[
        int | None,
        typer.Option(min=1024, max=65000, help="Services listen on PORT+1 to PORT+5 (default 8100, or free ports)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Start Kafka, PostgreSQL and the five services on this machine; they go on until `tailrace down`."""
    home = Home.chosen()
    if not stack.is_up(home):
        with shown() as report:
            stack.bring_up(home, detached=True, report=report, base_port=port)
    elif not as_json:
        say(f"already up in {home.folder}")
    _status(home, as_json=as_json)
    if not as_json:
        say(f"the console is at {connect(home).monitoring_url}")


@app.command()
def down() -> None:
    """Stop everything that `tailrace up` started here. Data stay in the home."""
    stopped = stack.take_down(Home.chosen())
    say(f"stopped {', '.join(stopped)}")


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show what runs here, where it listens, and where its log is."""
    _status(Home.chosen(), as_json=as_json)


def _status(home: Home, *, as_json: bool) -> None:
    rows = [
        {
            "name": entry.name,
            "pid": entry.pid if entry.alive() else None,
            "state": "running" if entry.alive() else "ended",
            "address": f"127.0.0.1:{entry.port}",
            "log": near(entry.log),
        }
        for entry in home.noted()
    ]
    show(rows, as_json=as_json, empty=f"nothing runs in {home.folder}; start it with `tailrace up`")
    if any(row["state"] == "ended" for row in rows):
        msg = "some processes have ended; look at their logs, then run `tailrace up` again"
        raise CommandError(msg)


@app.command()
def setup(
    secrets: Annotated[Path, typer.Option(help="Where the services' secrets are written, one subfolder for each.")],
    admin_database_url: Annotated[str, typer.Option(envvar="TAILRACE_ADMIN_DATABASE_URL", help="A superuser's URL.")],
) -> None:
    """Prepare a broker and a database that run elsewhere; TAILRACE_KAFKA_BOOTSTRAP names the broker."""
    from tailrace_cli.setup import prepare

    for line in asyncio.run(prepare(KafkaSettings(), admin_database_url, secrets)):
        say(line)


# ---------------------------------------------------------------- models


@app.command()
def apply(
    spec: Annotated[Path, typer.Argument(help="A model spec in YAML; see docs/reference/model-spec.md.")],
    reason: Reason = "",
) -> None:
    """Make a YAML file the spec of its model: checked here, then by the registry, then in force everywhere."""
    loaded = load_spec(spec)
    answer = _run(lambda to: issue(to, loaded.model, ApplySpec(spec=loaded), reason))
    say(outcome(answer))


@app.command("import")
def import_model(
    model: Model,
    path: Annotated[Path, typer.Argument(help="An ONNX file, or an MLflow model folder with an onnx flavour.")],
    output: Annotated[
        str, typer.Option(help="The graph's output that is the answer, where it has several (default: found out).")
    ] = "",
) -> None:
    """Offer a model that was trained elsewhere as a version; the registry treats it as it treats any other candidate."""
    from tailrace_cli.importing import offer

    version = _run(lambda to: offer(to, model, path, output))
    say(f"imported as version {version.version} of {model} ({version.stage}), artefact {version.artefact.sha256[:12]}")


@app.command()
def models(as_json: AsJson = False) -> None:
    """Show every model with its versions, their roles and what they learned from."""
    facts = _run(known)
    rows = [
        {
            "model": model,
            "version": f"{each.version}.{each.revision}" if each.continual else str(each.version),
            "role": facts.role(each),
            "learner": each.learner,
            "examples": each.lineage.examples,
            "accuracy": round(each.metrics["accuracy"], 4) if "accuracy" in each.metrics else None,
            **({"mae": float(f"{each.metrics['mae']:.4g}")} if "mae" in each.metrics else {}),
            "trained_on": str(each.lineage.trained_on),
        }
        for model in sorted(facts.specs)
        for each in sorted(facts.versions.get(model, {}).values(), key=lambda version: version.version)
    ]
    errors = ("mae",) if any("mae" in row for row in rows) else ()
    columns = ("model", "version", "role", "learner", "examples", "accuracy", *errors, "trained_on")
    none = dict.fromkeys(columns) | {"version": None if as_json else "none yet"}
    rows += [none | {"model": model} for model in sorted(facts.specs) if model not in facts.versions]
    show(rows, as_json=as_json, empty="no models; apply a spec with `tailrace apply SPEC.yaml`", columns=columns)


def _command(model: str, command: Command, reason: str) -> None:
    answer = _run(lambda to: issue(to, model, command, reason))
    say(outcome(answer))


@app.command()
def promote(model: Model, version: Annotated[int, typer.Argument(min=1)], reason: Reason = "") -> None:
    """Make a version the champion, whatever the evidence says so far."""
    _command(model, PromoteVersion(version=version), reason)


@app.command()
def reject(model: Model, version: Annotated[int, typer.Argument(min=1)], reason: Reason = "") -> None:
    """Take a candidate out of shadow or canary for good."""
    _command(model, RejectVersion(version=version), reason)


@app.command()
def rollback(model: Model, reason: Reason = "") -> None:
    """Return to the champion before this one."""
    _command(model, RollbackModel(), reason)


@app.command()
def pause(model: Model, reason: Reason = "") -> None:
    """Promote nothing automatically until `tailrace resume`; rollbacks go on."""
    _command(model, PauseRollout(), reason)


@app.command()
def resume(model: Model, reason: Reason = "") -> None:
    """Promote automatically again, after a pause or a rollback."""
    _command(model, ResumeRollout(), reason)


@app.command()
def train(model: Model, reason: Reason = "") -> None:
    """Train the model in batch, now, on its newest labelled examples."""
    _command(model, TrainModel(), reason)


# ---------------------------------------------------------------- alerts

OneModel = Annotated[str | None, typer.Argument(help="Only of this model.")]


@app.command("alerts")
def list_alerts(
    model: OneModel = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them, and muted ones too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the newest alerts, oldest first: what moved, since when, and what it led to. Muted ones only with --all."""
    told = _run(quiet.read)
    found = [each for each in told.alerts if model in {None, each.model} and (everything or not each.muted_by)]
    found = found if everything else found[-NEWEST_ALERTS:]
    rows = [(quiet.alert_document if as_json else quiet.alert_row)(each, told) for each in found]
    show(rows, as_json=as_json, empty="no alerts")


@app.command("mute")
def mute_alerts(
    model: Model,
    *,
    until: Annotated[str, typer.Option(help="The end: a day, a time, or a span such as 12h, 7d, 2w.")],
    reason: Annotated[str, typer.Option(help="Why; shown with the mute, and kept in the audit log.")],
    kind: Annotated[list[str] | None, typer.Option(help="Only alerts of this kind; may be repeated.")] = None,
    subject: Annotated[list[str] | None, typer.Option(help="Only about this; a pattern such as 'RAC1P*'.")] = None,
    owner: Annotated[str, typer.Option(help="Who answers for the silence (default: you).")] = "",
    everything: Annotated[bool, typer.Option("--everything", help="All alerts of the model.")] = False,
) -> None:
    """Do not be told of some alerts for a while: they are still found and shown, but ask for no training."""
    if bool(kind or subject) == everything:
        msg = "say which alerts with --kind or --subject, or mute all of them with --everything"
        raise CommandError(msg)
    command = MuteAlerts(
        kinds=quiet.kinds_of(kind or []),
        subjects=tuple(subject or ()),
        owner=owner or getpass.getuser(),
        until=quiet.until_of(until, datetime.now(UTC)),
    )
    _command(model, command, reason)


@app.command("unmute")
def unmute_alerts(
    model: Model,
    mute: Annotated[str, typer.Argument(help="The mute's id, as `tailrace mutes` shows it.")],
    reason: Reason = "",
) -> None:
    """End a mute before its time."""
    _command(model, UnmuteAlerts(mute_id=mute), reason)


@app.command("mutes")
def list_mutes(model: OneModel = None, as_json: AsJson = False) -> None:
    """Show the mutes in force: what, until when, who answers for it, and why."""
    found = list(_run(quiet.read).mutes(model, datetime.now(UTC)))
    rows = [
        {"model": name, **mute.model_dump(mode="json")} if as_json else quiet.mute_row(name, mute)
        for name, mute in found
    ]
    show(rows, as_json=as_json, empty="no mutes")


# ---------------------------------------------------------------- events


@app.command()
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
    result = _run(lambda to: sending.send(to, what, file, model))
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


@app.command()
def coverage(
    model: Model,
    windows: Annotated[int, typer.Option(min=1, help="Only the newest so many windows.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show how many predictions of each window have a label so far, how many wait, and how many never got one."""
    found = _run(lambda to: covered(to, model))
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


# ---------------------------------------------------------------- audit


@audit.command("list")
def audit_list(model: Model, as_json: AsJson = False) -> None:
    """List what was asked, decided and refused about a model, oldest first."""
    entries = _run(lambda to: chain.of_model(to, model))
    rows = [
        {
            "entry": each.sequence,
            "time": f"{each.time:%Y-%m-%d %H:%M:%S}",
            "actor": each.actor,
            "action": each.action,
            "subject": each.subject,
            "outcome": each.outcome,
            "reason": each.reason,
        }
        for each in entries
    ]
    show(rows, as_json=as_json, empty="")


@audit.command("verify")
def audit_verify(
    file: Annotated[
        Path | None, typer.Argument(help="A file of `tailrace audit export`; without it, the topic.")
    ] = None,
) -> None:
    """Check that no entry was changed, lost or added."""
    found = chain.verified_file(file) if file else _run(chain.verified)
    if not found.intact:
        raise CommandError(found.reason)
    say(f"intact: {found.entries} entries, the last one is {found.head.sequence} with sha256 {found.head.sha256}")


@audit.command("export")
def audit_export(
    model: Model,
    since: Annotated[datetime | None, typer.Option("--from", help="The first moment, in UTC (default: all).")] = None,
    until: Annotated[
        datetime | None, typer.Option("--to", help="The moment before which to end (default: now).")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", help="Write to this file instead of printing.")] = None,
) -> None:
    """Write a file that an outsider can check without Tailrace; see docs/reference/audit-export.md."""
    lines, checked = _run(lambda to: chain.exported(to, model, since, until))
    if output is None:
        for line in lines:
            say(line)
        return
    try:
        output.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{output}: cannot be written ({error.strerror}); name another file") from None
    say(
        f"wrote {checked.entries} links of the chain to {near(output)}; `tailrace audit verify {near(output)}` checks it"
    )


# ---------------------------------------------------------------- demos


@demo.command("weather")
def demo_weather(
    rate: Annotated[
        float | None, typer.Option(min=0.1, help="Inferences a second (default: as fast as the loop goes).")
    ] = None,
    limit: Limit = None,
    report: ReportFile = None,
) -> None:
    """Fifty years of weather: train, serve, learn online, drift, retrain, roll out, and report."""
    from tailrace_cli.demo.command import weather

    raise typer.Exit(weather(rate=rate, limit=limit, report_file=report))


@demo.command("employment")
def demo_employment(limit: Limit = None, report: ReportFile = None) -> None:
    """277,677 predictions of somebody else's model: statistics, drift, late labels, groups, and report."""
    from tailrace_cli.demo.command import employment

    raise typer.Exit(employment(limit=limit, report_file=report))
