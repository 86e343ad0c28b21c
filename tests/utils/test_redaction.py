"""Passwords in addresses."""

import pytest

from threadko.utils import REDACTED, sanitize_url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("amqp://guest:secret@host:5672/vhost", "amqp://guest:********@host:5672/vhost"),
        ("amqp://guest@host/", "amqp://guest@host/"),
        ("amqp://host:5672/", "amqp://host:5672/"),
        ("http://localhost:8000/a?b=c", "http://localhost:8000/a?b=c"),
        ("amqp://u:@host", "amqp://u:@host"),
        ("amqp://:secret@host", "amqp://:********@host"),
        ("amqp://[::1]:5672/", "amqp://[::1]:5672/"),
        ("", ""),
        ("nonsense", "nonsense"),
    ],
)
def test_only_the_password_is_masked(url: str, expected: str) -> None:
    assert sanitize_url(url) == expected


def test_each_address_of_a_list_is_masked() -> None:
    masked = f"amqp://u:{REDACTED}@a/;amqp://v:{REDACTED}@b/;amqp://c/"
    assert sanitize_url("amqp://u:secret@a/;amqp://v:secret@b/;amqp://c/") == masked
    assert sanitize_url(["amqp://u:secret@a/", "amqp://v:secret@b/", "amqp://c/"]) == masked


@pytest.mark.parametrize(
    "url",
    [
        "amqp://u:se@secret@host",
        "amqp://u:a/secret@host",
        "amqp://u:a;secret@host",
        "amqp://u:a:secret@host",
        "amqp://u:a?secret#secret@host",
        "amqp://u:secret@[::1",
        "amqp://u:\nsecret@host",
        "u:secret@host",
        b"amqp://u:secret@host",
        ("amqp://u:secret@host",),
    ],
)
def test_no_odd_password_shows(url: object) -> None:
    assert "secret" not in sanitize_url(url)


@pytest.mark.parametrize("value", [None, 5, object(), {}])
def test_what_is_no_address_does_not_raise(value: object) -> None:
    assert sanitize_url(value) == str(value)
