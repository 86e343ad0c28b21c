"""The page about configuration says what is so."""

import re
from pathlib import Path

import pytest
import yaml

from threadko.configuration.loader import load_file
from threadko.configuration.settings import KEYS, OTHER_KEYS, BrokerSettings, ContainerSettings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "configuration.rst").read_text(encoding="utf-8")
TABLES, _, TO_COME = PAGE.partition("\nKnown, and not used\n")

_ROW = re.compile(
    r"^   \* - ``(?P<key>\w+)``\n     - .+\n     - (?P<default>.+)\n     - .", re.MULTILINE
)
ROWS = {row["key"]: row["default"] for row in _ROW.finditer(TABLES)}


@pytest.mark.parametrize("name", sorted(KEYS))
def test_each_key_has_a_row_with_its_default(name):
    assert name in ROWS, f"docs/configuration.rst has no row for {name}"
    cell = ROWS[name]
    literal = re.fullmatch(r"``(.*)``", cell)
    documented = None if literal is None else yaml.safe_load(literal[1])
    assert documented == KEYS[name].default, f"the default of {name} is not {cell}"


def test_each_row_is_of_a_known_key():
    assert ROWS.keys() <= KEYS.keys() | set(OTHER_KEYS)


def test_keys_that_are_not_read_are_named():
    assert re.findall(r"``([A-Z_]+)``", TO_COME) != []
    assert set(OTHER_KEYS) - KEYS.keys() - ROWS.keys() <= set(re.findall(r"``([A-Z_]+)``", TO_COME))


def test_no_key_that_is_read_is_called_unused():
    assert not KEYS.keys() & set(re.findall(r"``([A-Z_]+)``", TO_COME))


@pytest.mark.parametrize(
    ("environ", "uri", "workers", "own"),
    [
        ({}, "amqp://guest:guest@localhost:5672/", 20, "Hello"),
        (
            {"RABBIT_HOST": "h", "RABBIT_PASSWORD": "1 #2", "WORKERS": "3", "GREETING": "5"},
            "amqp://guest:1 #2@h:5672/",
            3,
            "5",
        ),
    ],
)
def test_file_in_the_examples_does_what_it_shows(environ, uri, workers, own):
    config = load_file(ROOT / "examples" / "config.yaml", environ)
    assert BrokerSettings.from_config(config).uri == uri
    assert ContainerSettings.from_config(config).max_workers == workers
    assert config["LABELS"] == {"stage": "test", "tier": 1}
    assert config["LOGGING"]["root"]["level"] == "INFO"
    assert (
        config["LOGGING"]["formatters"]["short"]["format"] == "%(levelname)s %(name)s: %(message)s"
    )
    assert config["GREETING"] == own
