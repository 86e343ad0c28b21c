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


def test_definition_wins_over_the_file(file):
    config = load_config(file, ["max_workers=5", "own=[1, 2]"], None)
    assert config == {"AMQP_URI": "from-file", "max_workers": 5, "own": [1, 2]}


def test_last_definition_of_a_key_wins():
    assert load_config(None, ["a=1", "a=2"], None) == {"a": 2}


def test_broker_is_taken_when_there_is_none():
    assert load_config(None, [], "amqp://h") == {"AMQP_URI": "amqp://h"}


@pytest.mark.parametrize("key", ["AMQP_URI", "amqp_uri"])
def test_broker_is_not_taken_when_there_is_one(key):
    assert load_config(None, [f"{key}=amqp://mine"], "amqp://h") == {key: "amqp://mine"}


def test_wrong_file_is_refused(tmp_path):
    with pytest.raises(ConfigurationError):
        load_config(str(tmp_path / "absent.yaml"), [], None)


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
