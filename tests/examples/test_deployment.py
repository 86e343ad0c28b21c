"""The files in examples/deployment/, as far as they can be checked without their engines."""

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest
import yaml

from tests.support.timing import TIMEOUT
from threadko.cli.main import cli
from threadko.configuration.keys import find_key
from threadko.configuration.loader import load_file
from threadko.configuration.settings import (
    BrokerSettings,
    ContainerSettings,
    HealthSettings,
    ProcessSettings,
)

FOLDER = Path(__file__).parents[2] / "examples" / "deployment"
UNIT = (FOLDER / "threadko.service").read_text(encoding="utf-8")
DOCKERFILE = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
MANIFESTS = list(yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text(encoding="utf-8")))


def parse(command):
    """Parse a command line as threadko would, without running anything."""
    program, name, *arguments = command
    assert Path(program).name == "threadko"
    found = cli.commands[name]
    context = found.make_context(name, list(arguments), parent=click.Context(cli))
    return context.params


@pytest.fixture
def unit():
    parser = configparser.ConfigParser(strict=True, interpolation=None)
    parser.optionxform = str
    parser.read_string(UNIT)
    return parser


def test_unit_starts_and_stops_threadko_as_it_wants_to_be(unit):
    service = unit["Service"]
    parameters = parse(shlex.split(service["ExecStart"]))
    assert parameters["services"] == ("shop.orders", "shop.prices")
    assert parameters["processes"] == 2
    assert int(service["TimeoutStopSec"]) > ContainerSettings.from_config({}).shutdown_timeout
    assert (service["KillMode"], service["KillSignal"]) == ("mixed", "SIGTERM")


def test_unit_is_what_systemd_understands(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze: apt-get install systemd")
    # The program and the folder need not be here.
    text = UNIT.replace("/srv/shop/.venv/bin/threadko", "/bin/true").replace(
        "WorkingDirectory=/srv/shop", "WorkingDirectory=/"
    )
    path = tmp_path / "threadko.service"
    path.write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(path)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert "threadko.service" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr


def read_instructions():
    text = DOCKERFILE.replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [line.split(maxsplit=1) for line in lines]


def test_dockerfile_runs_threadko_without_a_shell_and_its_variables_are_keys():
    instructions = read_instructions()
    known = {"FROM", "RUN", "WORKDIR", "COPY", "USER", "ENV", "EXPOSE", "STOPSIGNAL"}
    known |= {"HEALTHCHECK", "ENTRYPOINT", "CMD"}
    assert {name for name, _ in instructions} <= known
    by_name = dict(instructions)
    entrypoint = yaml.safe_load(by_name["ENTRYPOINT"])
    assert parse([*entrypoint, *yaml.safe_load(by_name["CMD"])])["services"] == ("shop.orders",)
    check = re.search(r"CMD (\[.*\])", by_name["HEALTHCHECK"])
    assert parse(yaml.safe_load(check[1]))["ready"] is False
    variables = re.findall(r"THREADKO_(\w+)=", by_name["ENV"])
    assert variables
    assert all(map(find_key, variables))


def find(kind):
    [found] = [each for each in MANIFESTS if each["kind"] == kind]
    return found


def test_manifests_configure_and_probe_what_is_there(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(find("ConfigMap")["data"]["config.yaml"], encoding="utf-8")
    config = load_file(path, {"AMQP_USER": "ann", "AMQP_PASSWORD": "12"})
    assert all(map(find_key, config))
    assert BrokerSettings.from_config(config).uri == "amqp://ann:12@rabbitmq:5672/shop"
    assert ProcessSettings.from_config(config).log_format == "json"
    pod = find("Deployment")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    parameters = parse(["threadko", "run", *container["args"]])
    assert parameters["path"] == f"{container['volumeMounts'][0]['mountPath']}/config.yaml"
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert str(ports["health"]) == str(HealthSettings.from_config(config).address).split(":")[1]
    assert str(ports["http"]) == config["WEB_SERVER_ADDRESS"].split(":")[1]
    paths = {
        name: container[name]["httpGet"]["path"]
        for name in ("livenessProbe", "readinessProbe", "startupProbe")
    }
    assert paths == {
        "livenessProbe": "/live",
        "readinessProbe": "/ready",
        "startupProbe": "/live",
    }


def test_pod_has_more_time_than_it_needs():
    config = yaml.safe_load(re.sub("!raw_env_var", "", find("ConfigMap")["data"]["config.yaml"]))
    pod = find("Deployment")["spec"]["template"]["spec"]
    slept = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > config["SHUTDOWN_TIMEOUT"] + slept


def test_labels_meet():
    deployment = find("Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert find("Service")["spec"]["selector"].items() <= labels.items()
