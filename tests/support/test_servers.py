"""Servers are found by what the environment names, or said to be missing."""

import socket

import pytest

from tests.support.servers import Server


def test_server_is_found_where_the_environment_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
        monkeypatch.setenv("A_URL", url)
        assert Server("A_URL", "redis://127.0.0.1:1/0", "get one").find() == url
        monkeypatch.delenv("A_URL")
        assert Server("A_URL", url, "get one").find() == url


def test_missing_server_skips_and_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("A_URL", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"A_URL .*: get one"):
        Server("A_URL", "redis://127.0.0.1:1/0", "get one").find()
