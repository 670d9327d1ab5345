"""The how-to on asking does what it says, against a real serving process on a real broker; so do its errors."""

from __future__ import annotations

import asyncio
import json
import math
import re
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.serving.tests.test_serving_live import Site, connected, network, until_ready
from tailrace_cli.asking import asked, over_http, over_kafka, rows_of
from tailrace_cli.connection import CommandError, Connection
from tailrace_client import InferenceClient, InferenceRefused
from tailrace_contracts import parse_spec
from tailrace_contracts.events import FeatureValue, InferenceAnswered
from tailrace_models import ONNX
from tailrace_serving.testing import applied, deployed, versioned
from tailrace_testing import Broker, ServiceProcess, eventually
from tests.e2e.conftest import TAILRACE, environment
from tests.e2e.test_tutorial import TUTORIAL, blocks, path_with_uv, typed

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "ask-a-model.md"
SPEC = parse_spec(
    yaml.safe_load(next(each.text for each in blocks(TUTORIAL.read_text(encoding="utf-8")) if each.language == "yaml"))
)
PARCEL: dict[str, FeatureValue] = {"distance": 700, "load": 0.9, "carrier": "green"}
CERTAIN = 0.7310586


class Asking:
    """A deployment with the tutorial's model, its serving process, and a shell beside it."""

    def __init__(self, site: Site, process: ServiceProcess, folder: Path) -> None:
        self.site = site
        self.process = process
        self.folder = folder
        self.settings = site.settings
        self.environment = {
            **environment(folder / "home"),
            "PATH": path_with_uv(folder),
            "TAILRACE_KAFKA_BOOTSTRAP": site.settings.kafka_bootstrap,
            "TAILRACE_TOPIC_PREFIX": site.settings.topic_prefix,
            "TAILRACE_SERVING_URL": process.base,
        }

    @property
    def connection(self) -> Connection:
        """The same, as the commands see it."""
        return Connection(self.settings.kafka_bootstrap, self.settings.topic_prefix, self.process.base, "", "")

    def client(self, **changes: Any) -> InferenceClient:
        """A client of this deployment."""
        return InferenceClient(self.settings.kafka_bootstrap, topic_prefix=self.settings.topic_prefix, **changes)

    async def typed(self, script: str) -> subprocess.CompletedProcess[str]:
        """What comes of typing this."""
        return await asyncio.to_thread(typed, script, self.folder, self.environment)

    async def infer(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """`tailrace infer …`, with more settings."""
        return await asyncio.to_thread(
            subprocess.run,
            [TAILRACE, "infer", *arguments],
            env=self.environment | more,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )


@pytest.fixture
async def asking(kafka: Broker, tmp_path: Path) -> AsyncIterator[Asking]:
    """The deployment, answering."""
    async with Site(kafka.bootstrap, kafka.unique("asking") + "-", tmp_path) as site:
        claim = await site.artefact(network(SPEC, 1.0), ONNX)
        await site.publish(applied(SPEC), versioned(1, claim, model=SPEC.model), deployed(1, model=SPEC.model))
        process = site.process()
        process.start()
        async with connected(process) as client:
            await until_ready(client)
        await eventually(process.ready)
        yield Asking(site, process, tmp_path)


@pytest.mark.timeout(240)
async def test_the_how_to_does_what_it_says(asking: Asking) -> None:
    """A reader would type what does not work, or read another answer than the one that comes."""
    shell, batch, curl, program, script = blocks(PAGE.read_text(encoding="utf-8"))
    (asking.folder / "delivery").mkdir()
    broker = f'"{asking.settings.kafka_bootstrap}", topic_prefix="{asking.settings.topic_prefix}"'
    (asking.folder / "delivery" / "ask.py").write_text(program.text.replace('"127.0.0.1:9092"', broker))

    told = await asking.typed(shell.text)
    assert told.returncode == 0, told.stderr
    head, line = told.stdout.splitlines()
    assert head.split("  ")[0] == "prediction id"
    assert line.split()[:2] == ["parcel-1017", "1"]
    assert float(line.split()[2]) == pytest.approx(CERTAIN)
    assert line.split()[3:] == ["1", "champion"]

    told = await asking.typed(batch.text)
    assert told.returncode == 0, told.stderr
    assert [each["prediction_id"] for each in json.loads(told.stdout)] == ["batch-7/0", "batch-7/1"]

    told = await asking.typed(curl.text.replace("localhost:8104", asking.process.base.removeprefix("http://")))
    assert json.loads(told.stdout)["prediction_id"] == "parcel-1018"

    told = await asking.typed(script.text)
    assert told.returncode == 0, told.stderr
    first, second, refused = told.stdout.splitlines()
    assert [line.split()[:2] for line in (first, second)] == [["batch-8/0", "1"], ["batch-8/1", "1"]]
    assert refused == "unacceptable - feature 'carrier' is 'red', expected one of 'blue', 'green'"

    recorded = {"parcel-1017", "parcel-1018", "batch-7/0", "batch-7/1", "batch-8/0", "batch-8/1"}
    await eventually(lambda: recorded == set(asking.site.predictions))
    assert asking.site.predictions["batch-7/1"].features == {"distance": 20, "load": 0.1, "carrier": "blue"}


TYPED: tuple[tuple[list[str], str | None, str], ...] = (
    ([], None, "no rows; give one with --row"),
    (["{"], None, "--row: not JSON (Expecting property name"),
    (["[1]"], None, '--row: expected features by name, as {"humidity": 40'),
    ([], "missing.jsonl", "missing.jsonl: no such file"),
)
"""What the command sees by itself: the rows, the file, and what it says."""

REFUSED: tuple[tuple[list[dict[str, Any]], str], ...] = (
    ([PARCEL | {"distance": -5}], "feature 'distance' is -5, expected 0 to 1000"),
    ([PARCEL | {"carrier": "red"}], "feature 'carrier' is 'red', expected one of"),
    ([PARCEL | {"weight": 1}], "feature 'weight' is unknown; model 'delivery' expects"),
    ([PARCEL | {"distance": math.nan}], "feature 'distance' is NaN, expected a finite number"),
    ([PARCEL, {"load": 0.5}], "row 1: feature 'distance' is missing"),
    ([PARCEL] * 1001, "the request has 1001 rows, expected at most 1000"),
)
"""What the service says, in the same words over either way."""


@pytest.mark.parametrize(("rows", "file", "said"), TYPED)
def test_what_is_no_row_is_told_before_anything_is_sent(rows: list[str], file: str | None, said: str) -> None:
    """A person who mistypes would read a traceback, or the service's view of it."""
    with pytest.raises(CommandError, match=re.escape(said)):
        rows_of(rows, file)


async def test_service_says_the_same_over_either(asking: Asking) -> None:
    """A person would not learn what to correct, or something else over Kafka than over HTTP."""
    for way in (over_http, over_kafka):
        for rows, said in REFUSED:
            with pytest.raises(CommandError, match=f"^{re.escape(said)}"):
                await way(asking.connection, asked("delivery", rows, None))
        with pytest.raises(CommandError, match=r"^model 'hail' is unknown; models known here: delivery$"):
            await way(asking.connection, asked("hail", [PARCEL], None))
        with pytest.raises(CommandError, match=r"^version '9' of model 'delivery' is not served; versions served now"):
            await way(asking.connection, asked("delivery", [PARCEL], None, version="9"))
        (answer,) = await way(asking.connection, asked("delivery", [PARCEL], way.__name__, version="1"))
        assert answer == {**answer, "prediction_id": way.__name__, "prediction": 1, "version": "1", "arm": "champion"}
    away = replace(asking.connection, serving_url="http://127.0.0.1:9")
    with pytest.raises(CommandError, match=r"^serving does not answer at http://127.0.0.1:9 \("):
        await over_http(away, asked("delivery", [PARCEL], None))
    elsewhere = replace(asking.connection, serving_url=f"{asking.process.base}/metrics?")
    with pytest.raises(CommandError, match=r"^what answers is not serving: status 200, "):
        await over_http(elsewhere, asked("delivery", [PARCEL], None))
    await eventually(lambda: set(asking.site.predictions) == {"over_http", "over_kafka"})


async def test_command_ends_in_one_sentence(asking: Asking) -> None:
    """A person would read a traceback, or a library's log before the sentence."""
    bad = json.dumps(PARCEL | {"distance": -5})
    no_broker = {"TAILRACE_KAFKA_BOOTSTRAP": "127.0.0.1:9"}
    for over, settings, said in (
        ((), {}, "feature 'distance' is -5, expected 0 to 1000"),
        (("--kafka",), no_broker, "no Kafka broker answers at 127.0.0.1:9"),
    ):
        told = await asking.infer("delivery", "--row", bad, *over, **settings)
        assert (told.returncode, told.stdout) == (1, "")
        assert told.stderr.startswith(f"error: {said}"), told.stderr
        assert len(told.stderr.splitlines()) == 1, told.stderr


@pytest.mark.timeout(240)
async def test_killed_under_load_every_request_is_answered_once(asking: Asking) -> None:
    """A crash of serving would cost a program its answers, or give it two that differ."""
    ids = [f"r-{number}" for number in range(150)]
    replies: dict[str, InferenceAnswered] = {}
    async with asking.client(again_seconds=1) as client:

        async def ask(request_id: str) -> None:
            replies[request_id] = await client.infer(
                "delivery", [PARCEL, PARCEL], request_id=request_id, timeout_seconds=120
            )

        waiting = []
        for number, request_id in enumerate(ids):
            waiting.append(asyncio.create_task(ask(request_id)))
            if number in {50, 100}:
                await eventually(lambda until=number - 40: len(replies) >= until, 60)  # type: ignore[misc]  # bound at once
                asking.process.kill()
                asking.process.start()
        await asyncio.gather(*waiting)
        again = await client.infer("delivery", [PARCEL, PARCEL], request_id="r-0")
        assert again.answers == replies["r-0"].answers
        with pytest.raises(InferenceRefused, match="request_id 'r-0' names another request already") as refused:
            await client.infer("delivery", [PARCEL], request_id="r-0")
        assert refused.value.code == "malformed"
    expected = {f"{request_id}/{row}" for request_id in ids for row in (0, 1)}
    assert {each.prediction_id for reply in replies.values() for each in reply.answers} == expected
    await eventually(lambda: expected == set(asking.site.predictions), 60)
    for reply in replies.values():
        for each in reply.answers:
            served = asking.site.predictions[each.prediction_id].served
            assert served is not None
            assert (served.probability, served.version) == (each.probability, reply.version)
