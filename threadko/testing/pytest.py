"""The pytest plugin: options and fixtures.

Loading it imports nothing of threadko and touches nothing; what a fixture needs is imported when a
test asks for it. So it costs nothing in an environment where other tests run as well.

A conftest.py that says `from threadko.testing.pytest import *` means these fixtures, should
another plugin have some of the same names (nameko's has them all).
"""

import contextlib
import importlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urljoin, urlsplit, urlunsplit

import pytest

__all__ = [
    "amqp_uri",
    "container_factory",
    "empty_config",
    "get_message_from_queue",
    "mock_container",
    "predictable_call_ids",
    "rabbit_config",
    "rabbit_manager",
    "rabbit_ssl_config",
    "rabbit_ssl_options",
    "rabbit_ssl_uri",
    "rabbit_uri",
    "runner_factory",
    "threadko_broker",
    "threadko_scope",
    "web_config",
    "web_config_port",
    "web_session",
    "websocket",
]

_AMQP_URI = "--amqp-uri"
_API_URI = "--rabbit-api-uri"
_TLS_PORT = "--amqp-ssl-port"
_TLS_OPTION = "--amqp-ssl-option"

#: What nameko's plugin says of its options if nobody has said anything.
_SAID_BY_NOBODY = ("pyamqp://guest:guest@localhost:5672/", "http://guest:guest@localhost:15672")
_NAMEKO_PLUGIN = "pytest_nameko"


def _load(room: str) -> Any:
    """Import a room of threadko, now that a test needs it."""
    return importlib.import_module(f"threadko.{room}")


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the options, unless nameko's plugin brings the same: then both read those."""
    # Whichever plugin is loaded second would fail, and take the whole run along.
    if not pluginmanager.is_blocked(_NAMEKO_PLUGIN) and any(
        point.value.startswith("nameko.") for point in entry_points(group="pytest11")
    ):
        return
    group = parser.getgroup("threadko")
    for names, options in (
        (
            (_AMQP_URI, "--rabbit-amqp-uri"),
            {"metavar": "URI", "help": "test on this RabbitMQ, not on the development broker"},
        ),
        (
            (_API_URI, "--rabbit-ctl-uri"),
            {"metavar": "URI", "help": "its management API, for a fresh vhost per test"},
        ),
        ((_TLS_PORT,), {"default": 5671, "help": "its port for TLS"}),
        (
            (_TLS_OPTION,),
            {
                "action": "append",
                "metavar": "KEY=VALUE",
                "help": "an entry of AMQP_SSL, its value in YAML; such as certfile=client.pem",
            },
        ),
        # Of nameko's plugin, and about eventlet: a project may have them in its addopts.
        (("--blocking-detection",), {"action": "store_true", "help": "accepted and ignored"}),
        (
            ("--suppress-nameko-eventlet-notification",),
            {"action": "store_true", "help": "accepted and ignored"},
        ),
    ):
        with contextlib.suppress(ValueError):  # another plugin has it already
            group.addoption(*names, **options)


def _get_option(config: pytest.Config, name: str) -> str | None:
    value = config.getoption(name, None)
    return None if value is None or value in _SAID_BY_NOBODY else str(value)


# What the others stand on


@pytest.fixture(scope="session")
def threadko_broker(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The source of brokers of this run; nothing is started before a test asks it."""
    amqp_uri = _get_option(request.config, _AMQP_URI)
    api_uri = _get_option(request.config, _API_URI)
    source = _load("testing.brokers").make_broker(amqp_uri, api_uri)
    yield source
    source.close()


@pytest.fixture
def threadko_scope(request: pytest.FixtureRequest, threadko_broker: Any) -> Iterator[Any]:
    """The life of one test: ends what it made, and reports what it left."""
    amqp_uri = _get_option(request.config, _AMQP_URI)
    scope = _load("testing.scope").Scope(lambda: threadko_broker, amqp_uri)
    yield scope
    scope.close()


# Containers


@pytest.fixture
def container_factory(threadko_scope: Any) -> Any:
    """Make containers, `container_factory(service_cls, config=None)`, and kill them at the end."""
    return threadko_scope.make_container_factory()


@pytest.fixture
def runner_factory(threadko_scope: Any) -> Any:
    """Make runners, `runner_factory(*classes, config=None)`, and kill them at the end."""
    return threadko_scope.make_runner_factory()


@pytest.fixture
def mock_container() -> Any:
    """A mock of a container, for extensions that are tested by themselves."""
    return _load("testing.factories").make_mock_container()


@pytest.fixture
def empty_config() -> Iterator[dict[str, Any]]:
    """An empty global configuration, and as a dict."""
    with _load("configuration").config.patch({}, clear=True):
        yield {}


@pytest.fixture
def predictable_call_ids() -> Iterator[mock.Mock]:
    """Number the calls: their ids end in 0, 1, 2 ...; gives the mock that makes the numbers."""
    take_call_ids_from = _load("context").take_call_ids_from
    make_id = mock.Mock(side_effect=map(str, itertools.count()))
    take_call_ids_from(make_id)
    yield make_id
    take_call_ids_from(None)


# The broker


@pytest.fixture
def rabbit_uri(threadko_scope: Any) -> str:
    """The URI of a broker that is as good as new."""
    uri: str = threadko_scope.get_broker().uri
    return uri


@pytest.fixture
def rabbit_config(rabbit_uri: str) -> Iterator[dict[str, Any]]:
    """Have the global configuration name that broker; gives the entry as a dict."""
    entries = {"AMQP_URI": rabbit_uri}
    with _load("configuration").config.patch(entries):
        yield entries


@pytest.fixture
def amqp_uri(rabbit_config: Mapping[str, Any]) -> str:
    """The URI that the global configuration names."""
    uri: str = _load("configuration").config["AMQP_URI"]
    return uri


@pytest.fixture(scope="session")
def rabbit_manager(request: pytest.FixtureRequest) -> Any:
    """A client of the management API."""
    uri = _get_option(request.config, _API_URI)
    if uri is None:
        pytest.skip(
            "there is no management API: run a RabbitMQ that has one, and give its address"
            f" by {_API_URI}"
        )
    return _load("testing.rabbit").Client(uri)


@pytest.fixture
def get_message_from_queue(amqp_uri: str) -> Callable[..., Any]:
    """Take a message out of a queue: `get(name, ack=True, block=True, timeout=1, accept=None)`."""

    def get(
        queue_name: str,
        ack: bool = True,
        block: bool = True,
        timeout: float = 1.0,
        accept: Any = None,
    ) -> Any:
        take = _load("testing.messages").take_message
        return take(amqp_uri, queue_name, ack=ack, block=block, timeout=timeout, accept=accept)

    return get


# The broker over TLS


@pytest.fixture
def rabbit_ssl_options(request: pytest.FixtureRequest) -> Any:
    """What `AMQP_SSL` is to be: the options given, beside certificates in `certs/`."""
    options: dict[str, Any] = {
        "ca_certs": "certs/cacert.pem",
        "certfile": "certs/clientcert.pem",
        "keyfile": "certs/clientkey.pem",
        "cert_reqs": importlib.import_module("ssl").CERT_REQUIRED,
    }
    for given in request.config.getoption(_TLS_OPTION, None) or ():
        # nameko's plugin has taken them apart, ours has not.
        options.update([given] if isinstance(given, tuple) else _parse_option(given))
    for key in ("ca_certs", "certfile", "keyfile"):
        path = options.get(key)
        if path and not Path(path).exists():
            pytest.skip(f"there is no {path}: put it there, or give {_TLS_OPTION} {key}=FILE")
    return options


def _parse_option(text: str) -> dict[str, Any]:
    parsed: dict[str, Any] = _load("configuration.sources").read_defines([text])
    return parsed


@pytest.fixture
def rabbit_ssl_uri(request: pytest.FixtureRequest, rabbit_uri: str) -> str:
    """The URI of that broker's port for TLS."""
    if _get_option(request.config, _AMQP_URI) is None:
        pytest.skip(
            "the development broker speaks no TLS: give a RabbitMQ that does by"
            f" {_AMQP_URI}, and its port by {_TLS_PORT}"
        )
    parts = urlsplit(rabbit_uri)
    login, at, _ = parts.netloc.rpartition("@")
    host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
    port = request.config.getoption(_TLS_PORT, 5671)
    return urlunsplit(parts._replace(netloc=f"{login}{at}{host}:{port}"))


@pytest.fixture
def rabbit_ssl_config(rabbit_ssl_uri: str, rabbit_ssl_options: Any) -> Iterator[dict[str, Any]]:
    """Have the global configuration name that broker, over TLS; gives the entries as a dict."""
    entries = {"AMQP_URI": rabbit_ssl_uri, "AMQP_SSL": rabbit_ssl_options}
    with _load("configuration").config.patch(entries):
        yield entries


# HTTP and websockets


@pytest.fixture
def web_config() -> Iterator[dict[str, Any]]:
    """Have the global configuration name a free port for the web server; gives the entry."""
    entries = {"WEB_SERVER_ADDRESS": f"127.0.0.1:{_load('testing.utils').find_free_port()}"}
    with _load("configuration").config.patch(entries):
        yield entries


@pytest.fixture
def web_config_port(web_config: Mapping[str, Any]) -> int:
    """The port of the web server."""
    address = _load("configuration").config["WEB_SERVER_ADDRESS"]
    return int(address.rpartition(":")[2])


@pytest.fixture
def web_session(web_config_port: int) -> Iterator[Any]:
    """A session of `requests` that takes paths: `web_session.get("/page")`."""
    try:
        requests = importlib.import_module("requests")
    except ImportError:
        pytest.fail("web_session needs requests: pip install requests", pytrace=False)

    class WebSession(requests.Session):  # type: ignore[misc, name-defined]  # imported by name
        def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
            url = urljoin(f"http://127.0.0.1:{web_config_port}/", url)
            return super().request(method, url, *args, **kwargs)

    with WebSession() as session:
        session.trust_env = False  # a proxy of the environment would not find this machine
        yield session


@pytest.fixture
def websocket(web_config_port: int, threadko_scope: Any) -> Iterator[Any]:
    """Open websockets, `websocket()`, and close them at the end."""
    with _load("testing.websocket").open_sockets("127.0.0.1", web_config_port) as open_socket:
        yield open_socket
