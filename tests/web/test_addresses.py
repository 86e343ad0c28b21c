"""Addresses as text."""

import pytest

from threadko.exceptions import ConfigurationError
from threadko.web.addresses import (
    BindAddress,
    UnixAddress,
    open_door,
    open_doors_by,
    parse_address,
)


@pytest.mark.parametrize(
    ("text", "address", "shown"),
    [
        ("8000", BindAddress("", 8000), "0.0.0.0:8000"),
        (8000, BindAddress("", 8000), "0.0.0.0:8000"),
        (":8000", BindAddress("", 8000), "0.0.0.0:8000"),
        ("localhost:0", BindAddress("localhost", 0), "localhost:0"),
        ("[::1]:80", BindAddress("::1", 80), "[::1]:80"),
        ("[fe80::1%eth0]:80", BindAddress("fe80::1%eth0", 80), "[fe80::1%eth0]:80"),
        ("unix:/run/a.sock", UnixAddress("/run/a.sock"), "unix:/run/a.sock"),
    ],
)
def test_addresses_are_read(text, address, shown):
    assert parse_address(text) == address
    assert str(parse_address(text)) == shown


@pytest.mark.parametrize(
    "text", ["", "host", "host:", "::1:80", "a:65536", "a:-1", "unix:", None, True]
)
def test_addresses_that_are_none(text):
    with pytest.raises(ConfigurationError, match="WEB_SERVER_ADDRESS must be"):
        parse_address(text)


def test_host_that_is_none():
    with pytest.raises(ConfigurationError, match=r"cannot listen on no-such-host\.invalid:80: "):
        open_door(BindAddress("no-such-host.invalid", 80), 0o600)


def test_path_too_long_for_a_socket(tmp_path):
    with pytest.raises(ConfigurationError, match="too long"):
        open_door(UnixAddress(str(tmp_path / ("a" * 200))), 0o600)


def test_door_leaves_a_socket_that_is_not_its_own(tmp_path):
    path = tmp_path / "door"
    door = open_door(UnixAddress(str(path)), 0o600)
    path.unlink()
    path.write_text("somebody's")
    door.close()
    assert path.read_text() == "somebody's"


def test_sockets_may_come_from_elsewhere():
    asked = []

    def opener(address, mode):
        asked.append((address, mode))
        return "a door"

    open_doors_by(opener)
    try:
        assert open_door(BindAddress("127.0.0.1", 0), 0o600) == "a door"
    finally:
        open_doors_by(None)
    assert asked == [(BindAddress("127.0.0.1", 0), 0o600)]
    door = open_door(BindAddress("127.0.0.1", 0), 0o600)
    assert door.address.port > 0
    door.close()
