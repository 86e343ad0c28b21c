"""Ways to log in, as the broker hears them."""

from types import SimpleNamespace

import pytest

from threadko.amqp.credentials import check_login_method, make_credentials
from threadko.amqp.tables import decode_table
from threadko.exceptions import ConfigurationError

START = SimpleNamespace(mechanisms="AMQPLAIN PLAIN EXTERNAL")


@pytest.mark.parametrize(
    ("given", "found"), [(None, "PLAIN"), ("PLAIN", "PLAIN"), ("amqplain", "AMQPLAIN")]
)
def test_login_method_is_known_in_any_case(given: str | None, found: str) -> None:
    assert check_login_method(given) == found


@pytest.mark.parametrize("given", ["", "GSSAPI", 1, ["PLAIN"]])
def test_unknown_login_method_is_refused_with_those_there_are(given: object) -> None:
    with pytest.raises(ConfigurationError, match="LOGIN_METHOD must be one of PLAIN, AMQPLAIN,"):
        check_login_method(given)  # type: ignore[arg-type]


def test_plain_sends_user_and_password() -> None:
    assert make_credentials("PLAIN", "ann", "söcret").response_for(START) == (
        "PLAIN",
        b"\0ann\0" + "söcret".encode(),
    )


def test_amqplain_sends_them_as_a_table_without_its_length() -> None:
    kind, response = make_credentials("AMQPLAIN", "ann", "söcret").response_for(START)
    table, end = decode_table(len(response).to_bytes(4, "big") + response)
    assert (kind, table, end) == (
        "AMQPLAIN",
        {"LOGIN": "ann", "PASSWORD": "söcret"},
        len(response) + 4,
    )


def test_external_sends_no_password() -> None:
    assert make_credentials("EXTERNAL", "ann", "söcret").response_for(START) == ("EXTERNAL", b"")


@pytest.mark.parametrize("method", ["PLAIN", "AMQPLAIN", "EXTERNAL"])
def test_nothing_is_sent_to_a_broker_that_has_not_the_method(method: str) -> None:
    other = SimpleNamespace(mechanisms="GSSAPI")
    assert make_credentials(method, "ann", "söcret").response_for(other) == (None, None)
