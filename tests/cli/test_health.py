import inspect

import pytest
from click.testing import CliRunner

from tests.support.broker import find_free_ports
from threadko.cli.health import health
from threadko.devbroker import DevBroker
from threadko.health import HealthServer


@pytest.fixture
def ask():
    # Before click 8.2 the two streams were one, unless one asked for two.
    asks_for_two = "mix_stderr" in inspect.signature(CliRunner).parameters
    runner = CliRunner(mix_stderr=False) if asks_for_two else CliRunner()

    def ask(*args):
        return runner.invoke(health, args, standalone_mode=False)

    return ask


@pytest.fixture
def serve():
    servers = []

    def serve(address, *, live=(), ready=()):
        server = HealthServer(address, live=lambda: list(live), ready=lambda: list(ready))
        server.start()
        servers.append(server)
        return f'-dHEALTH_ADDRESS="{server.address}"'  # in quotes, for YAML

    yield serve
    for server in servers:
        server.close()


@pytest.mark.parametrize("host", ["127.0.0.1:", "0.0.0.0:", "", "[::1]:", "[::]:"])
def test_service_that_is_well_is_code_0(serve, ask, host):
    result = ask(serve(f"{host}0"))
    assert (result.output, result.return_value) == ("ok\n", 0)


def test_unix_socket_is_asked(serve, ask, tmp_path):
    address = serve(f"unix:{tmp_path}/health", ready=["it stops"])
    assert ask(address).return_value == 0
    result = ask(address, "--ready")
    assert (result.stderr, result.return_value) == ("it stops\n", 1)


def test_service_that_is_not_well_says_why(serve, ask):
    result = ask(serve("127.0.0.1:0", live=["it hangs", "it too"]))
    assert (result.stdout, result.stderr, result.return_value) == ("", "it hangs\nit too\n", 1)


def test_no_answer_is_code_1(ask):
    [port] = find_free_ports(1)
    result = ask("-d", f"HEALTH_ADDRESS=127.0.0.1:{port}")
    assert result.return_value == 1
    assert f"no answer from 127.0.0.1:{port}" in result.stderr


def test_answer_that_is_no_http_is_code_1(ask):
    with DevBroker(port=0) as broker:
        result = ask("-d", f"HEALTH_ADDRESS=127.0.0.1:{broker.port}")
    assert result.return_value == 1
    assert "speaks no HTTP" in result.stderr


@pytest.mark.parametrize(("args", "text"), [((), "HEALTH_ADDRESS"), (("-dHEALTH_ADDRESS=x",), "x")])
def test_no_address_or_a_wrong_one_is_a_mistake(ask, args, text):
    result = ask(*args)
    assert text in result.exception.format_message()
    assert result.exception.exit_code == 2
