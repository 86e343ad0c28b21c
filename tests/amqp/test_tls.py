"""TLS: the options, and a RabbitMQ with certificates made for the test."""

import ssl
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme

from tests.support.broker import (
    HOW_TO_GET_ONE,
    NoBrokerError,
    RabbitNode,
    find_free_ports,
    find_server,
)
from tests.support.proxy import Proxy
from tests.support.timing import TIMEOUT
from threadko.amqp.tls import make_context, read_tls
from threadko.containers import ServiceContainer
from threadko.exceptions import BrokerRefused, ConfigurationError
from threadko.rpc import rpc
from threadko.standalone.rpc import ServiceRpcClient

USER = "threadko-client"


class Papers(NamedTuple):
    """Certificate files: of the authority, the client, and somebody else's authority."""

    folder: Path

    @property
    def authority(self) -> str:
        return str(self.folder / "authority.pem")

    @property
    def stranger(self) -> str:
        return str(self.folder / "stranger.pem")

    @property
    def client(self) -> dict[str, str]:
        return {
            "certfile": str(self.folder / "client.pem"),
            "keyfile": str(self.folder / "client.key"),
        }

    @property
    def right(self) -> dict[str, str]:
        return {"ca_certs": self.authority, **self.client}


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    folder = tmp_path_factory.mktemp("papers")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    trustme.CA().cert_pem.write_to_path(folder / "stranger.pem")
    yesterday = datetime.now(timezone.utc) - timedelta(days=1)
    issued = {
        "server": authority.issue_cert("localhost", "127.0.0.1"),
        "client": authority.issue_cert("client.example", common_name=USER),
        "expired": authority.issue_cert("localhost", "127.0.0.1", not_after=yesterday),
    }
    for name, certificate in issued.items():
        chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
        (folder / f"{name}.pem").write_bytes(chain)
        certificate.private_key_pem.write_to_path(folder / f"{name}.key")
    return Papers(folder)


class Node(NamedTuple):
    node: RabbitNode
    port: int

    @property
    def uri(self) -> str:
        return f"amqps://guest:guest@127.0.0.1:{self.port}/"


def start_node(papers: Papers, certificate: str, *, wants_client: bool) -> Node:
    server = find_server()
    if server is None:
        raise NoBrokerError(HOW_TO_GET_ONE)
    (port,) = find_free_ports(1)
    settings = {
        "listeners.ssl.1": f"127.0.0.1:{port}",
        "ssl_options.cacertfile": papers.authority,
        "ssl_options.certfile": papers.folder / f"{certificate}.pem",
        "ssl_options.keyfile": papers.folder / f"{certificate}.key",
        "ssl_options.verify": "verify_peer" if wants_client else "verify_none",
        "ssl_options.fail_if_no_peer_cert": str(wants_client).lower(),
        "ssl_cert_login_from": "common_name",
        "auth_mechanisms.1": "PLAIN",
        "auth_mechanisms.2": "EXTERNAL",
    }
    node = RabbitNode(server, settings, ["rabbitmq_auth_mechanism_ssl"])
    try:
        node.start()
    except BaseException:
        node.close()
        raise
    return Node(node, port)


@pytest.fixture(scope="module")
def strict(papers: Papers) -> Iterator[Node]:
    """A node with a right certificate, which demands one of each client."""
    started = start_node(papers, "server", wants_client=True)
    with started.node as node:
        node.control("add_user", USER, "not used")
        node.control("set_permissions", USER, ".*", ".*", ".*")
        yield started


@pytest.fixture(scope="module")
def expired(papers: Papers) -> Iterator[Node]:
    """A node whose certificate was good until yesterday."""
    started = start_node(papers, "expired", wants_client=False)
    with started.node:
        yield started


class Echo:
    name = "tls_echo"

    @rpc
    def echo(self, value: Any) -> Any:
        return value


def call_echo(config: dict[str, Any], value: Any) -> Any:
    container = ServiceContainer(Echo, config=config)
    container.start()
    try:
        with ServiceRpcClient("tls_echo", config=config, timeout=TIMEOUT) as echo:
            return echo.echo(value)
    finally:
        container.stop()


def refusal(uri: str, tls: Any) -> str:
    """Return what `start()` ends with, for a service and for a client alike."""
    config = {"AMQP_URI": uri, "AMQP_SSL": tls, "BROKER_START_TIMEOUT": TIMEOUT}
    container = ServiceContainer(Echo, config=config)
    with pytest.raises(BrokerRefused) as of_service:
        container.start()
    client = ServiceRpcClient("tls_echo", config=config)
    with pytest.raises(BrokerRefused) as of_client:
        client.start()
    assert str(of_service.value) == str(of_client.value)
    return str(of_client.value)


def test_service_and_client_speak_tls(strict: Node, papers: Papers) -> None:
    config = {"AMQP_URI": strict.uri, "AMQP_SSL": papers.right}
    assert call_echo(config, "grüß dich") == "grüß dich"


def test_large_messages_come_through_whole(strict: Node, papers: Papers) -> None:
    config = {"AMQP_URI": strict.uri, "AMQP_SSL": papers.right}
    text = "0123456789abcdef" * 65536
    assert call_echo(config, [text, text]) == [text, text]


def test_uri_of_the_old_scheme_speaks_tls_with_options(strict: Node, papers: Papers) -> None:
    uri = strict.uri.replace("amqps:", "pyamqp:")
    assert call_echo({"AMQP_URI": uri, "AMQP_SSL": papers.right}, 1) == 1


def test_client_certificate_logs_in(strict: Node, papers: Papers) -> None:
    config = {"AMQP_URI": strict.uri, "AMQP_SSL": papers.right, "LOGIN_METHOD": "EXTERNAL"}
    container = ServiceContainer(Echo, config=config)
    container.start()
    try:
        assert USER in strict.node.control("list_connections", "user")
    finally:
        container.stop()


def test_link_comes_back_after_a_cut(strict: Node, papers: Papers) -> None:
    with Proxy.for_uri(strict.uri.replace("amqps:", "amqp:")) as proxy:
        uri = proxy.uri_for(strict.uri.replace("amqps:", "amqp:")).replace("amqp:", "amqps:")
        config = {"AMQP_URI": uri, "AMQP_SSL": papers.right}
        container = ServiceContainer(Echo, config=config)
        container.start()
        try:
            with ServiceRpcClient("tls_echo", config=config, timeout=TIMEOUT) as echo:
                for number in range(5):
                    assert echo.echo(number) == number
                    proxy.cut()
                assert echo.echo("after") == "after"
        finally:
            container.stop()


def test_authority_of_somebody_else_is_not_trusted(strict: Node, papers: Papers) -> None:
    text = refusal(strict.uri, {**papers.client, "ca_certs": papers.stranger})
    assert "cannot be trusted: set ca_certs" in text


def test_authorities_of_the_system_do_not_know_it(strict: Node) -> None:
    assert "cannot be trusted" in refusal(strict.uri, True)
    assert "cannot be trusted" in refusal(strict.uri, None)


def test_certificate_for_another_name_is_refused(strict: Node, papers: Papers) -> None:
    text = refusal(strict.uri, {**papers.right, "server_hostname": "other.example"})
    assert "other.example" in text


def test_expired_certificate_is_refused(expired: Node, papers: Papers) -> None:
    assert "expired" in refusal(expired.uri, {"ca_certs": papers.authority})


def test_missing_client_certificate_is_refused(strict: Node, papers: Papers) -> None:
    text = refusal(strict.uri, {"ca_certs": papers.authority})
    assert "correct port, certfile and keyfile" in text


def test_tls_on_a_port_for_clear_text_is_refused(strict: Node, papers: Papers) -> None:
    uri = strict.node.uri.replace("amqp:", "amqps:")
    assert "correct port, certfile and keyfile" in refusal(uri, papers.right)


def test_verifying_can_be_turned_off_in_as_many_words(
    expired: Node, caplog: pytest.LogCaptureFixture
) -> None:
    config = {"AMQP_URI": expired.uri, "AMQP_SSL": {"cert_reqs": "CERT_NONE"}}
    assert call_echo(config, 1) == 1
    assert "anybody may pose as the broker" in caplog.text


@pytest.mark.parametrize("option", [None, False])
def test_no_option_is_no_tls(option: Any) -> None:
    assert read_tls(option) is None


def test_true_verifies_by_the_authorities_of_the_system() -> None:
    options = read_tls(True)
    assert options == ()
    context = make_context(options)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_context_of_the_hosts_own_is_taken_as_it_is() -> None:
    context = ssl.create_default_context()
    options = read_tls(context)
    assert options is not None
    assert make_context(options) is context


@pytest.mark.parametrize("value", ["CERT_NONE", "ssl.CERT_NONE", ssl.CERT_NONE, int(ssl.CERT_NONE)])
def test_cert_reqs_is_a_name_or_a_constant(value: Any) -> None:
    options = read_tls({"cert_reqs": value})
    assert options == (("cert_reqs", ssl.CERT_NONE),)
    assert make_context(options).verify_mode is ssl.CERT_NONE


def test_name_alone_can_be_left_unchecked(papers: Papers) -> None:
    options = read_tls({"ca_certs": papers.authority, "check_hostname": False})
    assert options is not None
    context = make_context(options)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, False)


def test_equal_options_are_equal(papers: Papers) -> None:
    reverse = dict(reversed(papers.right.items()))
    assert read_tls(papers.right) == read_tls({**reverse, "do_handshake_on_connect": True})


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("yes", "it must be true, or a mapping of options, not str"),
        ({"cafile": "x"}, "unknown option 'cafile'; there are: ca_certs"),
        ({"ca_certs": 1}, "ca_certs must be text, not int"),
        ({"ca_certs": "/no/such/file"}, "ca_certs '/no/such/file' cannot be used: No such file"),
        ({"cert_reqs": "sometimes"}, "cert_reqs must be CERT_REQUIRED"),
        ({"cert_reqs": True}, "cert_reqs must be CERT_REQUIRED"),
        ({"keyfile": "x"}, "keyfile needs a certfile"),
        ({"ciphers": "no-such-cipher"}, "ciphers cannot be used"),
        ({"certfile": __file__}, "cannot be used"),
    ],
)
def test_unusable_option_is_refused_in_one_line(option: Any, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_tls(option)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_password_of_a_key_is_in_no_error(papers: Papers) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_tls({"certfile": "/no/such", "keyfile_password": "sekret"})
    assert "sekret" not in str(caught.value)
