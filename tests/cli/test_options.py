import click
import pytest
from click.testing import CliRunner

from threadko.cli.options import (
    UserError,
    configuration_options,
    debug_option,
    load_config,
)
from threadko.exceptions import ConfigurationError


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("AMQP_URI: from-file\nmax_workers: 3\n", encoding="utf-8")
    return str(path)


def load(path=None, defines=(), broker=None, environ=None):
    return load_config(path, defines, broker, environ or {}).values


def test_environment_wins_over_the_file_and_definition_over_both(file):
    environ = {"THREADKO_AMQP_URI": "from-env", "THREADKO_MAX_WORKERS": "4"}
    assert load(file) == {"AMQP_URI": "from-file", "max_workers": 3}
    assert load(file, environ=environ) == {"AMQP_URI": "from-env", "max_workers": 4}
    config = load(file, ["MAX_WORKERS=5", "own=[1, 2]"], environ=environ)
    assert config == {"AMQP_URI": "from-env", "max_workers": 5, "own": [1, 2]}


def test_each_entry_has_its_source(file):
    config = load_config(file, ["own=1"], None, {"THREADKO_MAX_WORKERS": "4"})
    names = ("AMQP_URI", "max_workers", "own", "HEARTBEAT")
    found = [config.sources[name].value for name in names]
    assert found == ["file", "environment", "define", "default"]


def test_file_has_the_variables_of_the_environment(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("AMQP_URI: amqp://${HOST:nowhere}/\n", encoding="utf-8")
    assert load(str(path), environ={"HOST": "h"}) == {"AMQP_URI": "amqp://h/"}


def test_environment_is_that_of_the_process_by_default(monkeypatch):
    monkeypatch.setenv("THREADKO_HEARTBEAT", "7")
    assert load_config(None, [], None).values["HEARTBEAT"] == 7


def test_broker_is_taken_when_there_is_none():
    assert load(broker="amqp://h") == {"AMQP_URI": "amqp://h"}


@pytest.mark.parametrize("key", ["AMQP_URI", "amqp_uri"])
def test_broker_is_not_taken_when_there_is_one(key):
    assert load(defines=[f"{key}=amqp://mine"], broker="amqp://h") == {key: "amqp://mine"}
    environ = {f"THREADKO_{key}": "amqp://mine"}
    assert load(environ=environ, broker="amqp://h") == {"AMQP_URI": "amqp://mine"}


def test_wrong_file_is_refused(tmp_path):
    with pytest.raises(ConfigurationError):
        load(str(tmp_path / "absent.yaml"))


def make_command(error):
    @click.command()
    @configuration_options
    @debug_option
    def command(path, defines, broker):
        if error is not None:
            raise error
        click.echo(f"{path} {defines} {broker}")

    return command


def test_options_are_handed_to_the_command():
    args = ["-c", "file", "-d", "a=1", "--define", "b=2", "--broker", "amqp://h"]
    result = CliRunner().invoke(make_command(None), args)
    assert result.output == "file ('a=1', 'b=2') amqp://h\n"


@pytest.mark.parametrize("error", [UserError("two\n lines"), ConfigurationError("two\n lines")])
def test_mistake_is_one_line_and_code_2(error):
    result = CliRunner().invoke(make_command(error), [])
    assert result.output == "Error: two lines\n"
    assert result.exit_code == 2


def test_mistake_has_its_traceback_when_asked_for():
    result = CliRunner().invoke(make_command(ConfigurationError("wrong")), ["--debug"])
    assert result.output.startswith("Traceback")
    assert result.output.endswith("Error: wrong\n")
    assert result.exit_code == 2


def test_other_errors_are_left_alone():
    result = CliRunner().invoke(make_command(ValueError("a bug")), [])
    assert isinstance(result.exception, ValueError)
