import contextlib
import socket
import sys

import click
import pytest
from click.testing import CliRunner

from tests.support.timing import TIMEOUT
from threadko.cli.backdoor import Backdoor, read_address
from threadko.cli.options import UserError
from threadko.web.addresses import BindAddress


class Client:
    """Types into a backdoor."""

    def __init__(self, port, host="127.0.0.1"):
        self.socket = socket.create_connection((host, port), TIMEOUT)
        self.seen = ""
        self.read_to(">>> ")

    def read_to(self, text):
        while not self.seen.endswith(text):
            data = self.socket.recv(4096)
            assert data, self.seen
            self.seen += data.decode()
        seen, self.seen = self.seen, ""
        return seen.removesuffix(text)

    def enter(self, line):
        self.socket.sendall(f"{line}\n".encode())
        return self.read_to(">>> ")


@contextlib.contextmanager
def open_door():
    """In the body of a test, for pytest puts another stdout in place for that."""
    with Backdoor(BindAddress("localhost", 0), {"runner": "the runner"}) as door:
        yield door


@contextlib.contextmanager
def connect(door):
    client = Client(door.port)
    with client.socket:
        yield client


def test_names_are_there_and_values_shown():
    with open_door() as door, connect(door) as client:
        assert client.enter("runner") == "'the runner'\n"
        assert client.enter("x = 6 * 7") == ""
        assert client.enter("print(x)") == "42\n"


def test_errors_are_shown_and_the_prompt_comes_back():
    with open_door() as door, connect(door) as client:
        assert "ZeroDivisionError" in client.enter("1 / 0")
        assert "SyntaxError" in client.enter("1 +")


def test_errors_are_shown_whoever_has_replaced_the_excepthook(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", lambda *_: None)
    with open_door() as door, connect(door) as client:
        shown = client.enter("1 / 0")
        assert shown.startswith("Traceback")
        assert 'File "<backdoor>", line 1' in shown
        assert shown.endswith("ZeroDivisionError: division by zero\n")
        assert "code.py" not in shown
        assert "SyntaxError" in client.enter("1 +")


def test_blocks_are_typed_line_by_line():
    with open_door() as door, connect(door) as client:
        client.socket.sendall(b"for i in range(2):\n")
        client.read_to("... ")
        client.socket.sendall(b"    print(i)\n")
        client.read_to("... ")
        assert client.enter("") == "0\n1\n"


@pytest.mark.parametrize("name", ["exit", "quit"])
def test_exit_is_refused(name):
    with open_door() as door, connect(door) as client:
        assert "RuntimeError: this would be felt" in client.enter(f"{name}()")


def test_each_connection_has_names_and_output_of_its_own(capsys):
    with open_door() as door, connect(door) as client, connect(door) as other:
        client.enter("mine = 1")
        assert "NameError" in other.enter("mine")
        print("mine goes where it always went")  # noqa: T201 (for whoever reads the output)
        assert other.enter("2") == "2\n"
    assert capsys.readouterr().out == "mine goes where it always went\n"


def test_system_exit_ends_the_connection_alone():
    with open_door() as door:
        with connect(door) as client:
            client.socket.sendall(b"raise SystemExit\n")
            assert client.socket.recv(100) == b""
        with connect(door) as other:
            assert other.enter("1") == "1\n"


def test_client_that_goes_away_costs_nothing():
    with open_door() as door:
        with connect(door):
            pass
        with connect(door) as other:
            assert other.enter("1") == "1\n"


def test_closing_it_ends_connections_and_restores_stdout():
    before = sys.stdout
    with Backdoor(BindAddress("::1", 0), {}) as door:
        client = Client(door.port, "::1")
        assert sys.stdout is not before
    assert sys.stdout is before
    assert client.socket.recv(100) == b""
    client.socket.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("::1", door.port), TIMEOUT)


def test_port_that_is_taken_is_a_mistake():
    with open_door() as door:
        with pytest.raises(UserError, match="give another --backdoor-port"):
            with Backdoor(BindAddress("localhost", door.port), {}):
                pass


@click.command()
@click.option("--port", callback=read_address)
def show(port):
    click.echo(port)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("3000", "localhost:3000"),
        ("localhost:3000", "localhost:3000"),
        ("127.0.0.2:3000", "127.0.0.2:3000"),
        ("[::1]:3000", "[::1]:3000"),
    ],
)
def test_addresses_of_this_machine_are_taken(text, shown):
    assert CliRunner().invoke(show, ["--port", text]).output == f"{shown}\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("foo", "is not of the form"),
        ("70000", "is not of the form"),
        ("unix:/tmp/x", "is not of the form"),
        ("0.0.0.0:3000", "could be reached by others"),
        ("example.org:3000", "could be reached by others"),
    ],
)
def test_others_are_refused(text, why):
    result = CliRunner().invoke(show, ["--port", text])
    assert result.exit_code == 2
    assert why in " ".join(result.output.split())


def test_no_port_is_no_address():
    assert CliRunner().invoke(show, []).output == "\n"
