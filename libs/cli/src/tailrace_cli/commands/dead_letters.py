"""The commands of `tailrace dead-letters`: what could not be handled, and its way back."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any, cast, get_args

import typer

from tailrace_cli import dead_letters as letters
from tailrace_cli.commands.options import AsJson, OfModel
from tailrace_cli.connection import Connection, run
from tailrace_cli.dead_letter_cases import Case, Filter, State, moment, place
from tailrace_cli.output import out, say, show

Topic = Annotated[str, typer.Option(help="Only those of this topic, such as prediction-events.")]
Code = Annotated[str, typer.Option(help="Only those with this reason code, such as unknown-model.")]
By = Annotated[str, typer.Option(help="Only those parked by this service, role or service/role, such as validate.")]
Text = Annotated[str, typer.Option(help="Only those with this text in reason, key or value.")]
Since = Annotated[str | None, typer.Option(help="Only those parked since: 2h, 7d, or 2026-05-04T10:00 (UTC).")]
Until = Annotated[str | None, typer.Option(help="Only those parked before: as --since.")]


def _case_row(case: Case) -> dict[str, Any]:
    return {
        "record": case.name,
        "state": case.state,
        "code": case.letter.code,
        "model": case.letter.model,
        "by": f"{case.letter.service}/{case.letter.role}",
        "time": f"{case.letter.time:%Y-%m-%d %H:%M:%S}",
        "reason": case.letter.reason,
    }


def _point(text: str | None, option: str) -> datetime | None:
    try:
        return None if text is None else moment(text, datetime.now(UTC))
    except ValueError:
        msg = f"{option}: expected a time such as 2h, 7d or 2026-05-04T10:00, found {text!r}"
        raise typer.BadParameter(msg) from None


def list_letters(  # noqa: PLR0917  # one option for each filter
    topic: Topic = "",
    code: Code = "",
    model: OfModel = "",
    by: By = "",
    text: Text = "",
    since: Since = None,
    until: Until = None,
    state: Annotated[list[str] | None, typer.Option(help="Only parked, replayed, failed-again or unknown.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the newest so many.")] = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters, oldest first, and what became of those that were replayed."""
    if wrong := set(state or ()) - set(get_args(State)):
        msg = f"--state: expected one of {', '.join(get_args(State))}, found {', '.join(sorted(wrong))}"
        raise typer.BadParameter(msg)
    states = frozenset(cast("list[State]", state or []))
    wanted = Filter(topic, code, model, by, text, _point(since, "--since"), _point(until, "--until"), states)
    found = run(lambda to: letters.read(to, wanted))
    rows = [_case_row(each) for each in found[-limit if limit else 0 :]]
    show(rows, as_json=as_json, empty="no dead letters")
    if len(rows) < len(found) and not as_json:
        say(f"{len(found) - len(rows)} older ones are not shown")


def show_letter(
    record: Annotated[str, typer.Argument(help="TOPIC/PARTITION/OFFSET, as `list` shows it.")], as_json: AsJson = False
) -> None:
    """Show one dead letter whole: where it stood, why it was parked, its replays, and its bytes."""
    case = run(lambda to: letters.one(to, record))
    letter = case.letter
    whole = _case_row(case) | {
        "stood_at": place(letter),
        "attempts": letter.attempts,
        "replays": case.replays,
        "came_back": case.returned,
        "replayed_at": case.replayed_at,
        "key": letters.text(letter.key),
        "headers": {header: letters.text(value) for header, value in letter.headers},
    }
    if as_json:
        out.print_json(json.dumps(whole | {"letter": letter.model_dump(mode="json")}, default=str))
        return
    show([{"field": name, "value": value} for name, value in whole.items()], as_json=False, empty="")
    say(letters.text(letter.value))


def replay(  # noqa: PLR0917  # one option for each filter
    topic: Topic = "",
    code: Code = "",
    model: OfModel = "",
    by: By = "",
    text: Text = "",
    since: Since = None,
    until: Until = None,
    record: Annotated[str, typer.Option(help="Only this one: TOPIC/PARTITION/OFFSET.")] = "",
    again: Annotated[bool, typer.Option("--again", help="Also those that came back from an earlier replay.")] = False,
    rate: Annotated[int | None, typer.Option(min=1, help="At most so many a second.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the oldest so many.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be replayed.")] = False,
) -> None:
    """Publish the original records again, for example after a spec was corrected. Twice changes nothing.

    What was replayed before is left alone; `--again` takes in what came back from it as a dead letter.
    """
    wanted = Filter(topic, code, model, by, text, _point(since, "--since"), _point(until, "--until"), name=record)
    states = {"parked", "unknown"} | ({"failed-again"} if again else set())

    async def work(to: Connection) -> tuple[int, int]:
        if record:
            await letters.one(to, record)
        found = await letters.read(to, wanted)
        due = [case for case in found if case.state in states][:limit]
        return len(due) if dry_run else await letters.replay(to, due, rate), len(found) - len(due)

    count, left = run(work)
    others = f"; left alone: {left}, see `tailrace dead-letters list`" if left else ""
    say(f"{'would replay' if dry_run else 'replayed'} {count} record{'s' if count != 1 else ''}{others}")
