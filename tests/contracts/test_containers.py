"""The files that build and run the containers, checked without a container engine.

The Compose file is read by Compose itself, the Dockerfile by a linter; the rest are promises to operators: each service
has an image and runs without rights, reads its own secrets only, and is scraped.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from tailrace_serving.settings import ServingSettings
from tailrace_testing import require_tool

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"
NUMBERED = ROOT / "deploy" / "docker" / "numbered"
PROMETHEUS = ROOT / "deploy" / "observability" / "prometheus.yml"
HOW_TO = ROOT / "docs" / "how-to" / "containers.md"
SERVICES = sorted(path.parent.name for path in ROOT.glob("services/*/pyproject.toml"))
OURS = (*SERVICES, "setup", "cli")
COMPOSE = Path(str(files("compose"))) / "docker-compose"  # the command of that name loses the exit status
HADOLINT = Path(sys.executable).with_name("hadolint")
NOTICED_SECONDS = 8
"""For a load balancer that asks every two seconds and believes the third no, and two seconds for its answer."""
LOCAL_DEFAULT = "${TAILRACE_POSTGRES_PASSWORD:-tailrace}"
SECRETS = {
    "setup": {"signing", "registry-secrets", "monitoring-secrets"},
    "training": {"signing"},
    "serving": {"signing"},
    "registry": {"registry-secrets"},
    "monitoring": {"monitoring-secrets"},
}


def output(program: Path, *arguments: str | Path) -> str:
    """What a program prints; a failure shows all that it said."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TAILRACE_")}
    done = subprocess.run([program, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    """The services of the Compose file as Compose understands them: anchors merged, variables as they are written."""
    text = output(COMPOSE, "--profile", "*", "config", "--no-interpolate", "--format", "json")
    services: dict[str, Any] = json.loads(text)["services"]
    return services


def stages() -> dict[str, list[str]]:
    """Each stage of the Dockerfile with its instructions, those of the stage that it comes from first."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if start := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            name = start[2]
            found[name] = list(found.get(start[1], []))
        elif name and line and not line.startswith("#"):
            found[name].append(line)
    return found


def test_compose_can_start_it() -> None:
    """`docker compose up` would stop at an error in the file before anything has started."""
    output(COMPOSE, "-f", "docker-compose.yml", "config", "--quiet")


def test_the_linter_has_no_word_against_the_dockerfile() -> None:
    """Images would be larger, less safe or less repeatable than they could be."""
    output(HADOLINT, DOCKERFILE)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_an_image_that_runs_it(service: str, composed: dict[str, Any]) -> None:
    """A service could not be deployed as a container, or its image would run another service."""
    assert f'CMD ["python3", "-m", "tailrace_{service}.main"]' in stages()[service]
    assert composed[service]["build"]["target"] == service
    assert ROOT / composed[service]["build"]["dockerfile"] == DOCKERFILE


@pytest.mark.parametrize("target", ["cli", *SERVICES])
def test_an_image_tells_nobody_what_it_runs(target: str) -> None:
    """Onnxruntime would send what it knows of every model to its makers, as its published builds do."""
    assert any("ORT_DISABLE_TELEMETRY=1" in line for line in stages()[target])


@pytest.mark.parametrize("name", OURS)
def test_a_container_has_no_rights(name: str, composed: dict[str, Any]) -> None:
    """Whoever broke into one container could change its programs, or go on from there as root."""
    container = composed[name]
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert not {"user", "privileged", "cap_add"} & container.keys()
    users = [line for line in stages()["cli" if name in {"setup", "cli"} else name] if line.startswith("USER ")]
    assert users == ["USER 10001:10001"]


@pytest.mark.parametrize("name", OURS)
def test_a_container_sees_its_own_secrets_only(name: str, composed: dict[str, Any]) -> None:
    """A service that is broken into would give away what is another's, or could replace a key."""
    volumes = composed[name].get("volumes", [])
    secrets = {each["source"]: each.get("read_only", False) for each in volumes if "/run/tailrace" in each["target"]}
    assert secrets.keys() == SECRETS.get(name, set())
    assert name == "setup" or all(secrets.values())


def test_no_secret_is_written_down(composed: dict[str, Any]) -> None:
    """A password would be known to everyone who reads the repository."""
    for container in composed.values():
        for key, value in (container.get("environment") or {}).items():
            assert not re.search(r"://[^/@]*:[^/@]*@", str(value)), key
            if re.search("PASSWORD|SECRET|TOKEN|KEY", key) and not key.endswith(("_FILE", "_DIR")):
                assert value == LOCAL_DEFAULT, key


def test_published_ports_are_this_machines_only(composed: dict[str, Any]) -> None:
    """A database or a console without a login would answer to the whole network."""
    for container in composed.values():
        assert all(str(port).startswith("127.0.0.1:") for port in container.get("ports", []))


def test_prometheus_scrapes_every_service() -> None:
    """A service would be missing on every graph and in every alert."""
    (job,) = yaml.safe_load(PROMETHEUS.read_text(encoding="utf-8"))["scrape_configs"]
    assert sorted(job["dns_sd_configs"][0]["names"]) == SERVICES


CUT_OFF_SECONDS = 5
"""What a process takes at most for what a library leaves behind (`tailrace_runtime.service`)."""


def seconds_to_stop(drain_seconds: float) -> float:
    """How long serving may take from SIGTERM to its end, with every other setting at its default."""
    usual = ServingSettings(drain_seconds=drain_seconds)
    return usual.drain_seconds + usual.shutdown_seconds + usual.capture_flush_seconds + CUT_OFF_SECONDS


def test_compose_lets_serving_drain(composed: dict[str, Any]) -> None:
    """A replacement would fail the requests that a load balancer still sends, or end with events that are not published."""
    serving = composed["serving"]
    drain = float(serving["environment"]["TAILRACE_DRAIN_SECONDS"])
    assert drain >= NOTICED_SECONDS
    assert int(serving["stop_grace_period"].removesuffix("s")) >= seconds_to_stop(drain)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_keeps_its_state(service: str, composed: dict[str, Any]) -> None:
    """A container that replaces another would begin anew: another member of its groups, losses that nobody counts."""
    (state,) = [each for each in composed[service]["volumes"] if each["target"] == "/var/lib/tailrace/state"]
    assert state["source"] == f"{service}-state"
    assert not state.get("read_only", False)


def test_a_pod_as_documented_lets_serving_drain() -> None:
    """The same for an operator who copies the how-to into a Kubernetes manifest."""
    fences = re.findall(r"^```yaml\n(.*?)^```", HOW_TO.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    pod = next(found for each in fences if "terminationGracePeriodSeconds" in (found := yaml.safe_load(each)))
    (container,) = pod["containers"]
    (drain,) = [float(each["value"]) for each in container["env"] if each["name"] == "TAILRACE_DRAIN_SECONDS"]
    probe = container["readinessProbe"]
    assert probe["httpGet"]["path"] == "/v2/health/ready"
    assert drain > probe["periodSeconds"] * probe["failureThreshold"] + probe["timeoutSeconds"]
    assert pod["terminationGracePeriodSeconds"] >= seconds_to_stop(drain)


def test_every_setting_of_the_compose_file_is_explained() -> None:
    """An operator would not find the setting that moves a port or sets the password."""
    settings = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text(encoding="utf-8")))
    assert settings
    assert settings <= set(re.findall(r"\w+", HOW_TO.read_text(encoding="utf-8")))


# ---------------------------------------------------------------- instances


@contextmanager
def numbered(folder: Path, **settings: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that runs as an instance of its own, and the instance; it runs on until it is told to end."""
    command = [str(NUMBERED), "sh", "-c", "echo $TAILRACE_INSTANCE; read end"]
    environment = {"PATH": os.environ["PATH"], "TAILRACE_STATE_DIR": str(folder), **settings}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
        process.kill()


class TestNumbered:
    """What `deploy/docker/numbered` does at the start of every service's container."""

    @pytest.fixture(autouse=True)
    def _flock(self) -> None:
        require_tool("flock")

    def test_replicas_differ(self, tmp_path: Path) -> None:
        """Two replicas would take each other's partitions away in turn."""
        with numbered(tmp_path) as (_, first), numbered(tmp_path) as (_, second):
            assert (first, second) == ("0", "1")

    def test_a_killed_replicas_number_is_free_again(self, tmp_path: Path) -> None:
        """A container that replaces another would wait for its partitions, and build the state in its volume again."""
        with numbered(tmp_path) as (process, first), numbered(tmp_path):
            process.kill()
            process.wait()
            with numbered(tmp_path) as (_, next_one):
                assert next_one == first

    def test_without_a_volume_it_is_the_hosts_name(self, tmp_path: Path) -> None:
        """A container with nothing but a read-only file system would not start."""
        with numbered(tmp_path / "missing") as (_, instance):
            assert instance == socket.gethostname()

    def test_a_setting_decides(self, tmp_path: Path) -> None:
        """An orchestrator that numbers replicas itself would be overruled."""
        with numbered(tmp_path, TAILRACE_INSTANCE="ingestion-7") as (_, instance):
            assert instance == "ingestion-7"
