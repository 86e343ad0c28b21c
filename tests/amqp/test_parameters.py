import pytest

from threadko.amqp.parameters import BrokerParameters
from threadko.exceptions import ConfigurationError


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("amqp://h", ("h", 5672, "guest", "guest", "/")),
        ("amqp://h/", ("h", 5672, "guest", "guest", "/")),
        ("amqp://", ("localhost", 5672, "guest", "guest", "/")),
        ("amqp:///v", ("localhost", 5672, "guest", "guest", "v")),
        ("amqp://h//", ("h", 5672, "guest", "guest", "/")),
        ("amqp://h/%2F", ("h", 5672, "guest", "guest", "/")),
        ("amqp://h/%2f", ("h", 5672, "guest", "guest", "/")),
        ("amqp://h//shop", ("h", 5672, "guest", "guest", "/shop")),
        ("amqp://h/a%2Fb/c", ("h", 5672, "guest", "guest", "a/b/c")),
        ("pyamqp://u:p@h:1/v", ("h", 1, "u", "p", "v")),
        ("AMQP://u:p@h:65535/v", ("h", 65535, "u", "p", "v")),
        ("amqp://u@h/v", ("h", 5672, "u", "guest", "v")),
        ("amqp://a%40b:%2F%3A%40%3F%23%25@h/%C3%A4", ("h", 5672, "a@b", "/:@?#%", "ä")),
        ("amqp://u:p:q@h", ("h", 5672, "u", "p:q", "/")),
        ("amqp://[::1]:5673/v", ("::1", 5673, "guest", "guest", "v")),
        ("amqp://10.0.0.1:5673", ("10.0.0.1", 5673, "guest", "guest", "/")),
        ("amqps://h", ("h", 5671, "guest", "guest", "/")),
        ("pyamqps://h:1", ("h", 1, "guest", "guest", "/")),
        ("amqp://rabbit_1.shop-net", ("rabbit_1.shop-net", 5672, "guest", "guest", "/")),
        ("amqp://bücher.example", ("bücher.example", 5672, "guest", "guest", "/")),
    ],
)
def test_uri_is_taken_apart(uri, expected):
    found = BrokerParameters.from_uri(uri)
    assert (found.host, found.port, found.user, found.password, found.virtual_host) == expected


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("", "must begin with amqp://"),
        ("localhost", "must begin with amqp://"),
        ("u:sekret@h", "must begin with amqp://"),
        ("ftps://u:sekret@h", "or amqps:// for TLS"),
        ("amqp://u:sekret@a b/v", "cannot be the name of one"),
        ("amqp://u:sekret@a..b/v", "cannot be the name of one"),
        ("amqp://u:sekret@-a/v", "cannot be the name of one"),
        ("amqp://u:sekret@" + "a" * 64, "cannot be the name of one"),
        ("amqp://u:sekret@" + "ab." * 90, "cannot be the name of one"),
        ([], "the list of brokers is empty"),
        (["amqp://a", 5], "must be a str, not int"),
        ("amqp://a;x://u:sekret@b", "must begin with amqp://"),
        ("memory://u:sekret@h", "must begin with amqp://"),
        ("http://u:sekret@h", "must begin with amqp://"),
        ("amqp:rabbit.example/v", "names no host"),
        ("amqp:u:sekret", "names no host"),
        ("amqps:h", "names no host"),
        ("amqp:/h/v", "names no host"),
        ("amqp://:5672", "names no host"),
        ("amqp://u:sekret@/v", "names no host"),
        ("amqp://u:sekret@h:0/v", "port must be"),
        ("amqp://u:sekret@h:99999/v", "host or port"),
        ("amqp://u:sekret@h:-1/v", "host or port"),
        ("amqp://u:sekret@h:sekret/v", "host or port"),
        ("amqp://u:sek#ret@h/v", "percent-encoded"),
        ("amqp://u:sek/ret@h/v", "percent-encoded"),
        ("amqp://u:sek?ret@h/v", "percent-encoded"),
        ("amqp://u:1/sekret@h/v", "percent-encoded"),
        ("amqp://u:1?sekret@h/v", "percent-encoded"),
        ("amqp://u:1#sekret@h/v", "percent-encoded"),
        ("amqp://u:sek[ret@h/v", "host or port"),
        ("amqp://u:%FFsekret@h/v", "the password is not percent-encoded UTF-8"),
        ("amqp://%FF:sekret@h/v", "the user is not percent-encoded UTF-8"),
        ("amqp://u:sekret@h/%FF", "the vhost is not percent-encoded UTF-8"),
        ("amqp://u:sekret@h/" + "v" * 256, "longer than 255"),
        ("amqp://u:sekret@h/\ud800", "the vhost is not percent-encoded UTF-8"),
        ("amqp://u:sekret@a;b/", "cannot be the name of one"),
        ("amqp://u:sekret@h/v?ssl=1", "unknown option"),
        ("amqp://u:1?sekret", "unknown option"),
        ("amqp://u:sekret@h/v?heartbeat=x", "whole seconds"),
        ("amqp://u:sekret@h/v?heartbeat=", "whole seconds"),
        ("amqp://u:sekret@h/v?heartbeat=0", "never noticed"),
        ("amqp://u:sekret@h/v?heartbeat=99999", "1 to 65535"),
        (b"amqp://u:sekret@h", "must be a str, not bytes"),
        (None, "must be a str, not NoneType"),
    ],
)
def test_unusable_uri_is_refused_in_one_line_without_the_password(uri, reason):
    with pytest.raises(ConfigurationError, match=reason) as caught:
        BrokerParameters.from_uri(uri)
    text = str(caught.value)
    assert "\n" not in text
    assert "sek" not in text.lower()
    assert "ret" not in text.replace("retr", "")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_heartbeat_is_the_given_one_unless_the_uri_names_one():
    assert BrokerParameters.from_uri("amqp://h").heartbeat == 20
    assert BrokerParameters.from_uri("amqp://h", 7).heartbeat == 7
    assert BrokerParameters.from_uri("amqp://h/v?heartbeat=5", 7).heartbeat == 5


@pytest.mark.parametrize("heartbeat", [0, -1, 65536, 1.5, True, None, "20"])
def test_unusable_heartbeat_is_refused(heartbeat):
    with pytest.raises(ConfigurationError, match="heartbeat must be"):
        BrokerParameters(host="h", heartbeat=heartbeat)


def test_password_is_in_no_text():
    parameters = BrokerParameters.from_uri("amqp://u:sekret@h/v")
    assert "sekret" not in repr(parameters)
    assert "sekret" not in parameters.uri_redacted


@pytest.mark.parametrize(
    ("uri", "redacted"),
    [
        ("amqp://u:p@h/v", "amqp://u:********@h:5672/v"),
        ("pyamqp://h", "amqp://guest:********@h:5672/"),
        ("amqp://a%40b:p@[::1]:1/x%2Fy", "amqp://a%40b:********@[::1]:1/x%2Fy"),
    ],
)
def test_redacted_uri_names_all_but_the_password(uri, redacted):
    assert BrokerParameters.from_uri(uri).uri_redacted == redacted


def test_equal_parameters_are_one_key():
    first, second = (BrokerParameters.from_uri(f"amqp://h{tail}") for tail in ("", "//"))
    assert len({first, second}) == 1
    assert first != BrokerParameters.from_uri("amqp://u:other@h")


def test_pika_is_given_everything():
    parameters = BrokerParameters.from_uri("amqp://u:p@h:1/v", 7, connection_name="shop")
    given = parameters.to_pika()
    assert (given.host, given.port, given.virtual_host) == ("h", 1, "v")
    assert (given.credentials.username, given.credentials.password) == ("u", "p")
    assert given.client_properties == {"connection_name": "shop"}
    assert (given.heartbeat, given.connection_attempts) == (7, 1)
    assert (given.socket_timeout, given.stack_timeout) == (10, 15)
    assert given.blocked_connection_timeout is None


@pytest.mark.parametrize(
    "uri",
    [
        ["amqp://u:p;q@a/v", "amqps://b", "amqp://c:1"],
        ("amqp://u:p;q@a/v", "amqps://b", "amqp://c:1"),
        "amqp://u:p;q@a/v;amqps://b;amqp://c:1",
        " amqp://u:p;q@a/v ; amqps://b; amqp://c:1; ",
        ["amqp://u:p;q@a/v;amqps://b", "amqp://c:1"],
    ],
)
def test_several_addresses_are_the_nodes_of_one_cluster(uri):
    parameters = BrokerParameters.from_uri(uri, 7, connection_name="shop")
    nodes = parameters.nodes
    assert [(each.host, each.port, each.tls) for each in nodes] == [
        ("a", 5672, None),
        ("b", 5671, ()),
        ("c", 1, None),
    ]
    assert nodes[0].password == "p;q"
    assert {(each.heartbeat, each.connection_name) for each in nodes} == {(7, "shop")}
    assert all(each.alternatives == () for each in nodes)
    assert parameters != nodes[0]


def test_tls_changes_the_port_and_the_scheme():
    parameters = BrokerParameters.from_uri("amqp://h", ssl=True)
    assert (parameters.port, parameters.tls) == (5671, ())
    assert parameters.uri_redacted == "amqps://guest:********@h:5671/"
    options = parameters.to_pika().ssl_options
    assert options.server_hostname == "h"
    assert options.context.check_hostname


def test_name_to_expect_of_the_broker_can_be_given():
    parameters = BrokerParameters.from_uri("amqps://10.0.0.1", ssl={"server_hostname": "rabbit"})
    assert parameters.to_pika().ssl_options.server_hostname == "rabbit"


@pytest.mark.parametrize(
    ("method", "kind"), [(None, "PLAIN"), ("amqplain", "AMQPLAIN"), ("EXTERNAL", "EXTERNAL")]
)
def test_login_method_chooses_the_credentials(method, kind):
    parameters = BrokerParameters.from_uri("amqp://u:p@h", login_method=method)
    assert kind == parameters.to_pika().credentials.TYPE


def test_unusable_options_are_refused():
    with pytest.raises(ConfigurationError, match="AMQP_SSL"):
        BrokerParameters.from_uri("amqp://h", ssl="yes")
    with pytest.raises(ConfigurationError, match="LOGIN_METHOD"):
        BrokerParameters.from_uri("amqp://h", login_method="KERBEROS")
