"""The README's first command, whole: the loop closes on a real stream, and nothing is left behind."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.conftest import TAILRACE, environment, run

LIVE, HISTORY = 16_159, 2_000


def left_behind(home: Path) -> list[str]:
    """Command lines of processes that still work for this home."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        try:
            settings = process.environ()
        except psutil.Error:
            continue
        words = " ".join(process.info["cmdline"] or ())
        if settings.get("TAILRACE_HOME") == str(home) or str(home) in words:
            found.append(words)
    return found


def gone(home: Path, seconds: float) -> bool:
    """Whether every process of this home ends within the time."""
    deadline = time.monotonic() + seconds
    while left_behind(home):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.fixture(scope="module")
def weather(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of one whole `tailrace demo weather`."""
    folder = tmp_path_factory.mktemp("weather")
    file = folder / "report.json"
    done = run(folder / "home", "demo", "weather", "--report", str(file), seconds=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert gone(folder / "home", 10), left_behind(folder / "home")
    report: dict[str, Any] = json.loads(file.read_text())
    return report


@pytest.mark.timeout(1200)
def test_every_count_reconciles(weather: dict[str, Any]) -> None:
    """Events would be lost or doubled somewhere in the loop."""
    events, labels = weather["events"], weather["labels"]
    assert events["published"] == LIVE + HISTORY == events["valid"] + events["dead_lettered"]
    assert labels["published"] == labels["joined"] == events["valid"]
    assert weather["examples_learned"] == labels["joined"]
    assert weather["problems"] == []


@pytest.mark.timeout(1200)
def test_the_loop_closes(weather: dict[str, Any]) -> None:
    """The stream would change and the model would not."""
    assert weather["retrainings"]
    assert all(each["trained_on"] for each in weather["retrainings"])
    assert any(each["evidence"] for each in weather["promotions"])
    assert any(alert["kind"] == "concept-drift" for alert in weather["alerts"])
    assert {version["learner"] for version in weather["versions"]} == {"torch", "river"}
    assert sum(version["role"] == "champion" for version in weather["versions"]) == 1


@pytest.mark.timeout(1200)
def test_serving_follows_the_better_model(weather: dict[str, Any]) -> None:
    """All the machinery would do no better than the first model left alone."""
    accuracy = weather["accuracy"]
    assert accuracy["served"] > accuracy["first_version"]
    assert 0.5 < accuracy["river_alone"] < 1


@pytest.mark.timeout(1200)
def test_the_sensor_fault_shows(weather: dict[str, Any]) -> None:
    """Two readings 94 standard deviations out would reach the learners, or vanish unseen."""
    assert weather["out_of_limits"] == {"sea-level pressure": 2}
    assert any(
        alert["kind"] == "data-quality" and alert["subject"] == "sea-level pressure" for alert in weather["alerts"]
    )


@pytest.mark.timeout(600)
def test_employment_is_watched_without_a_model_of_ours(tmp_path: Path) -> None:
    """A producer who brings its own predictions would get no statistics, no performance, no groups."""
    file = tmp_path / "report.json"
    done = run(tmp_path / "home", "demo", "employment", "--limit", "30000", "--report", str(file), seconds=400)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report = json.loads(file.read_text())
    assert report["events"] == {"published": 30_000, "valid": 30_000, "dead_lettered": 0}
    assert report["labels"]["joined"] == 30_000
    assert 0.8 < report["accuracy"]["served"] < 0.85
    groups = {(each["attribute"], each["group"]) for each in report["groups"]}
    assert {("SEX", "1"), ("SEX", "2"), ("RAC1P", "1")} <= groups
    assert not any(alert["kind"] == "concept-drift" for alert in report["alerts"])
    assert gone(tmp_path / "home", 10), left_behind(tmp_path / "home")


def started(home: Path) -> subprocess.Popen[bytes]:
    """A demo that is under way: the services run."""
    demo = subprocess.Popen(
        [TAILRACE, "demo", "weather", "--rate", "20"],
        env=environment(home),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 100
    while not any("tailrace_monitoring" in words for words in left_behind(home)):
        assert demo.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return demo


@pytest.mark.timeout(200)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_an_interrupted_demo_leaves_nothing_running(tmp_path: Path, number: int, code: int) -> None:
    """Ctrl-C, a stop or a kill would leave a broker and a database on the machine."""
    demo = started(tmp_path / "home")
    demo.send_signal(number)
    assert demo.wait(30) == code
    assert gone(tmp_path / "home", 30), left_behind(tmp_path / "home")
