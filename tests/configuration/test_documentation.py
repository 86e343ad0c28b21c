"""The page about configuration says what is so. Its tables are made from the settings."""

import re
from pathlib import Path

import pytest

from threadko.configuration.keys import KEYS, OTHER_KEYS, SECTIONS
from threadko.configuration.loader import load_file
from threadko.configuration.settings import BrokerSettings, ContainerSettings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "configuration.rst").read_text(encoding="utf-8")
UNUSED = re.findall(r"``([A-Z_]+)``", PAGE.partition("\nKnown, and not used\n")[2])


def test_each_key_is_on_the_page_once():
    assert re.findall(r"^\.\. keys:: (\w+)$", PAGE, re.MULTILINE) == list(SECTIONS)
    assert len(KEYS) == sum(map(len, SECTIONS.values()))


def test_exactly_those_that_are_not_read_are_called_unused():
    assert set(UNUSED) == set(OTHER_KEYS)


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
