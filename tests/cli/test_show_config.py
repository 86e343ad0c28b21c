import re

import pytest
import yaml
from click.testing import CliRunner

from threadko.cli.show_config import show_config
from threadko.configuration.keys import KEYS

FILE = """
AMQP_URI: amqp://ann:hush@${HOST:broker}/shop
max_workers: 3
mail:
  password: hush
  accounts: [{api_key: hush, name: a}]
text: "two\\nlines"
"""


@pytest.fixture
def show(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(FILE, encoding="utf-8")

    def show(*args, **environ):
        return CliRunner().invoke(show_config, args, env=environ, standalone_mode=False)

    return show


def test_nothing_is_an_empty_mapping(show):
    result = show()
    assert result.output == "{}\n"
    assert result.return_value == 0


def test_sources_are_merged_and_variables_replaced(show):
    result = show("-c", "config.yaml", "-d", "own=[1, 2]", THREADKO_MAX_WORKERS="4", HOST="h")
    config = yaml.safe_load(result.output)
    assert config["AMQP_URI"] == "amqp://ann:********@h/shop"
    assert config["max_workers"] == 4
    assert config["own"] == [1, 2]
    assert config["text"] == "two\nlines"


def test_broker_is_taken_where_there_is_none(show):
    assert yaml.safe_load(show("--broker", "amqp://h/").output) == {"AMQP_URI": "amqp://h/"}


def test_secrets_are_masked_at_any_depth(show):
    output = show("-c", "config.yaml").output
    assert "hush" not in output
    masked = {"password": "********", "accounts": [{"api_key": "********", "name": "a"}]}
    assert yaml.safe_load(output)["mail"] == masked


def test_secrets_are_shown_when_asked_for(show):
    config = yaml.safe_load(show("-c", "config.yaml", "--secrets").output)
    assert config["AMQP_URI"] == "amqp://ann:hush@broker/shop"
    assert config["mail"]["password"] == "hush"


def test_sources_stand_over_the_values_and_the_defaults_are_there(show):
    args = ("-c", "config.yaml", "-d", "own=1", "--sources")
    output = show(*args, THREADKO_HEARTBEAT="7").output
    assert yaml.safe_load(output).keys() == {"mail", "text", "own", *KEYS}
    groups = dict(group.split("\n", 1) for group in re.split(r"\n\n(?=# )", output))
    assert list(groups) == ["# -d", "# environment", "# file", "# default"]
    assert yaml.safe_load(groups["# -d"]) == {"own": 1}
    assert yaml.safe_load(groups["# environment"]) == {"HEARTBEAT": 7}
    assert yaml.safe_load(groups["# file"]).keys() == {"AMQP_URI", "max_workers", "mail", "text"}
    assert yaml.safe_load(groups["# default"])["SHUTDOWN_TIMEOUT"] == 25.0


def test_mistake_is_one_line(show):
    result = show("-c", "absent.yaml")
    assert "cannot read configuration file 'absent.yaml'" in result.exception.format_message()
    assert result.exception.exit_code == 2
