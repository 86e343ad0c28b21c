import contextlib
import inspect
import re
import ssl
import uuid

import pika
import pika.exceptions
import pytest
from pika.adapters.select_connection import IOLoop
from pika.adapters.utils.connection_workflow import (
    AMQPConnectionWorkflowFailed,
    AMQPConnectorAMQPHandshakeError,
    AMQPConnectorSocketConnectError,
    AMQPConnectorStackTimeout,
)

from threadko.amqp.errors import is_permanent, translate
from threadko.amqp.parameters import BrokerParameters
from threadko.exceptions import BrokerBlocked, BrokerError, BrokerRefused, ThreadkoError
from threadko.utils.redaction import REDACTED

PARAMETERS = BrokerParameters.from_uri("amqp://ann:sekret@broker/shop")

CHANNEL = pika.exceptions.ChannelClosedByBroker
CONNECTION = pika.exceptions.ConnectionClosedByBroker


def login_error(text, code=403):
    return pika.exceptions.ProbableAuthenticationError(repr(CONNECTION(code, text)))


def open_error(text, code=530):
    return pika.exceptions.ProbableAccessDeniedError(repr(CONNECTION(code, text)))


# Texts of RabbitMQ 3.10, by experiment; those of a node or vhost that is down, of a consumer's
# timeout, of sizes and of unknown delivery tags are from its documentation and sources.
PERMANENT = [
    (
        login_error(
            "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. "
            "For details see the broker logfile."
        ),
        "broker:5672 refused the login of user 'ann'.* correct user and password in AMQP_URI",
    ),
    (CONNECTION(403, "ACCESS_REFUSED - Login was refused"), "login of user 'ann'"),
    (ssl.SSLCertVerificationError(1, "self-signed"), "ca_certs .* renew the certificate .*signed"),
    (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER]"), "refused the TLS connection.*WRONG_VERSION"),
    (
        pika.exceptions.StreamLostError("SSLError(1, '[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED]')"),
        "correct port, certfile and keyfile",
    ),
    (pika.exceptions.AuthenticationError("EXTERNAL"), "does not offer the LOGIN_METHOD PLAIN"),
    (open_error("NOT_ALLOWED - vhost shop not found"), "no vhost 'shop': create it"),
    (
        open_error("NOT_ALLOWED - access to vhost 'shop' refused for user 'ann'"),
        "user 'ann' may not use the vhost 'shop'.*set_permissions",
    ),
    (CONNECTION(530, "NOT_ALLOWED - vhost limits not found"), "create it"),
    (
        CHANNEL(
            403, "ACCESS_REFUSED - access to queue 'q1' in vhost 'shop' refused for user 'ann'"
        ),
        "lacks a permission in the vhost 'shop'.*access to queue 'q1'",
    ),
    (
        CHANNEL(403, "ACCESS_REFUSED - queue name 'amq.q' contains reserved prefix 'amq.*'"),
        "choose another.*'amq.q'",
    ),
    (
        CHANNEL(
            406,
            "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'rpc-a' in vhost 'shop': "
            "received 'true' but current is 'false'",
        ),
        "^queue 'rpc-a' exists.*declared with other arguments: delete it.*RPC_QUEUE_ARGUMENTS",
    ),
    (
        CHANNEL(
            406,
            "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'x1' in vhost 'shop': "
            "received 'direct' but current is 'topic'",
        ),
        "^exchange 'x1' exists.*declared with other arguments",
    ),
    (CHANNEL(406, "PRECONDITION_FAILED - inequivalent arg 'durable'"), "^something exists"),
    (
        CHANNEL(
            406,
            "PRECONDITION_FAILED - invalid arg 'x-expires' for queue 'q2' in vhost 'shop': "
            '"expected integer, got longstr"',
        ),
        "refused a declaration.*invalid arg 'x-expires'",
    ),
    (
        CHANNEL(
            406,
            "PRECONDITION_FAILED - cannot declare queue 'q9': "
            "queue limit in vhost 'shop' (1) is reached",
        ),
        "refused a declaration.*queue limit",
    ),
    (
        CONNECTION(503, "COMMAND_INVALID - unknown exchange type 'nonsense'"),
        "refused a declaration.*'nonsense'",
    ),
]

TEMPORARY = [
    (
        open_error(
            "NOT_ALLOWED - access to vhost 'shop' refused for user 'ann': "
            "connection limit (0) is reached"
        ),
        r"\(530\) .*connection limit \(0\)",
    ),
    (
        open_error(
            "NOT_ALLOWED - connection refused for user 'ann': user connection limit (1) is reached"
        ),
        r"\(530\) .*user connection limit",
    ),
    (
        CONNECTION(
            530,
            "NOT_ALLOWED - number of channels opened for user 'ann' "
            "has reached the maximum allowed user limit of (0)",
        ),
        r"\(530\) .*number of channels",
    ),
    (
        CHANNEL(403, "ACCESS_REFUSED - queue 'qc' in vhost 'shop' in exclusive use"),
        r"\(403\) .*in exclusive use",
    ),
    (
        CHANNEL(
            405,
            "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'qx' "
            "in vhost 'shop'.",
        ),
        r"\(405\)",
    ),
    (CHANNEL(404, "NOT_FOUND - no queue 'nope' in vhost 'shop'"), r"\(404\) .*no queue 'nope'"),
    (
        CHANNEL(404, "NOT_FOUND - home node 'r@h' of durable queue 'q' in vhost 'shop' is down"),
        r"\(404\) .*home node",
    ),
    (CHANNEL(406, "PRECONDITION_FAILED - unknown delivery tag 7"), r"\(406\) .*delivery tag 7"),
    (
        CHANNEL(
            406,
            "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. "
            "Timeout value used: 1000 ms.",
        ),
        r"\(406\) .*timed out",
    ),
    (
        CHANNEL(406, "PRECONDITION_FAILED - message size 134217729 is larger than configured max"),
        r"\(406\) .*message size",
    ),
    (open_error("INTERNAL_ERROR - vhost 'shop' is down", 541), r"\(541\) .*is down"),
    (CONNECTION(320, "CONNECTION_FORCED - broker forced connection closure"), r"\(320\)"),
    (
        pika.exceptions.ProbableAuthenticationError("StreamLostError: ('Transport EOF',)"),
        "StreamLostError.*EOF",
    ),
    (
        pika.exceptions.ProbableAccessDeniedError("StreamLostError: ('Transport EOF',)"),
        "StreamLostError.*EOF",
    ),
    (pika.exceptions.IncompatibleProtocolError("closed"), "IncompatibleProtocolError: closed"),
    (pika.exceptions.StreamLostError("Stream connection lost"), "Stream connection lost"),
    (pika.exceptions.AMQPHeartbeatTimeout("no activity"), "no activity"),
    (AMQPConnectorStackTimeout("Timeout in AMQP handshake"), "Timeout in AMQP handshake"),
    (ConnectionRefusedError(111, "Connection refused"), "ConnectionRefusedError: Connection ref"),
    (OSError(24, "Too many open files"), "Too many open files"),
    (TimeoutError(), "^TimeoutError$"),
    (ValueError("nonsense"), "ValueError: nonsense"),
]


def wrap(exc):
    """As pika's connection workflow hands errors on."""
    failed = AMQPConnectionWorkflowFailed([AMQPConnectorAMQPHandshakeError(exc)])
    return pika.exceptions.AMQPConnectionError(failed)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(("exc", "text"), PERMANENT)
def test_refusal_is_permanent_and_says_what_to_change(exc, text, wrapped):
    error = translate(wrap(exc) if wrapped else exc, PARAMETERS)
    assert type(error) is BrokerRefused
    assert re.search(text, str(error))
    assert is_permanent(exc)
    assert is_permanent(error)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(("exc", "text"), TEMPORARY)
def test_error_that_may_pass_is_temporary(exc, text, wrapped):
    error = translate(wrap(exc) if wrapped else exc, PARAMETERS)
    assert type(error) is BrokerError
    assert re.search(text, str(error))
    assert not is_permanent(exc)
    assert not is_permanent(error)


def test_cause_is_what_the_driver_raised():
    exc = wrap(CONNECTION(320, "bye"))
    assert translate(exc, PARAMETERS).__cause__ is exc


def test_our_own_error_is_returned_as_it_is():
    error = BrokerError("ours")
    assert translate(error, PARAMETERS) is error
    assert not is_permanent(error)


def test_blocked_connection_is_named_so():
    error = translate(pika.exceptions.ConnectionBlockedTimeout("5 s"), PARAMETERS)
    assert type(error) is BrokerBlocked


def test_errors_that_wrap_each_other_in_a_circle_end():
    exc = AMQPConnectorSocketConnectError(None)
    exc.exception = exc
    assert isinstance(translate(exc, PARAMETERS), BrokerError)


def construct(cls):
    """Make an exception, whatever its constructor asks for."""
    for arguments in ((), ([],), (500, "text")):
        with contextlib.suppress(TypeError):
            return cls(*arguments)
    raise AssertionError(f"cannot make a {cls.__name__}")


@pytest.mark.parametrize(
    "cls",
    [
        cls
        for _, cls in inspect.getmembers(pika.exceptions, inspect.isclass)
        if issubclass(cls, BaseException)
    ],
    ids=lambda cls: cls.__name__,
)
def test_every_error_of_the_driver_becomes_one_of_ours(cls):
    exc = construct(cls)
    assert isinstance(translate(exc, PARAMETERS), ThreadkoError)
    assert isinstance(translate(wrap(exc), PARAMETERS), ThreadkoError)


@pytest.mark.parametrize(("exc", "text"), PERMANENT + TEMPORARY)
def test_password_is_in_no_error(exc, text):
    error = translate(exc, PARAMETERS)
    assert "sekret" not in str(error)
    assert REDACTED not in str(error)


# What a real broker says


def find_error(parameters, step=None):
    """Connect, take the step on a channel, and return the error that ends it."""
    errors = []
    loop = IOLoop()

    def end(connection, error):
        errors.append(error)
        loop.stop()

    def opened(connection):
        connection.channel(on_open_callback=channel_opened)

    def channel_opened(channel):
        channel.add_on_close_callback(channel_closed)
        if step is not None:
            step(channel)

    def channel_closed(channel, error):
        errors.append(error)
        if channel.connection.is_open:
            channel.connection.close()

    connection = pika.SelectConnection(
        parameters.to_pika(),
        on_open_callback=opened,
        on_open_error_callback=end,
        on_close_callback=end,
        custom_ioloop=loop,
    )
    loop.start()
    loop.close()
    assert connection.is_closed
    return translate(errors[0], parameters)


@pytest.fixture
def parameters(broker_uri):
    return BrokerParameters.from_uri(broker_uri)


@pytest.fixture
def exclusive_queue(broker_uri):
    """A queue that another connection owns."""
    connection = pika.BlockingConnection(pika.URLParameters(broker_uri))
    name = f"exclusive-{uuid.uuid4().hex}"
    connection.channel().queue_declare(name, exclusive=True)
    yield name
    connection.close()


@pytest.fixture
def consumed_queue(broker_uri):
    """A queue with a consumer that wants it for itself."""
    connection = pika.BlockingConnection(pika.URLParameters(broker_uri))
    channel = connection.channel()
    name = f"consumed-{uuid.uuid4().hex}"
    channel.queue_declare(name)
    channel.basic_consume(name, lambda *arguments: None, exclusive=True)
    yield name
    channel.queue_delete(name)
    connection.close()


def test_broker_refuses_a_wrong_password(broker_uri):
    wrong = pika.URLParameters(broker_uri)
    parameters = BrokerParameters(host=wrong.host, port=wrong.port, password="wrong")
    error = find_error(parameters)
    assert isinstance(error, BrokerRefused)
    assert "refused the login of user 'guest'" in str(error)
    assert "wrong" not in str(error)


def test_broker_refuses_a_vhost_that_is_not_there(broker_uri):
    vhost = f"missing-{uuid.uuid4().hex}"
    base = BrokerParameters.from_uri(broker_uri)
    error = find_error(
        BrokerParameters(
            host=base.host,
            port=base.port,
            user=base.user,
            password=base.password,
            virtual_host=vhost,
        )
    )
    assert isinstance(error, BrokerRefused)
    assert f"has no vhost '{vhost}': create it" in str(error)


def test_broker_refuses_a_queue_declared_with_other_arguments(parameters, consumed_queue):
    error = find_error(parameters, lambda channel: channel.queue_declare(consumed_queue, durable=1))
    assert isinstance(error, BrokerRefused)
    assert f"queue '{consumed_queue}' exists in the vhost" in str(error)


def test_broker_refuses_a_reserved_name(parameters):
    error = find_error(parameters, lambda channel: channel.queue_declare("amq.mine"))
    assert isinstance(error, BrokerRefused)
    assert "choose another" in str(error)


def test_queue_locked_by_another_connection_may_pass(parameters, exclusive_queue):
    error = find_error(
        parameters, lambda channel: channel.queue_declare(exclusive_queue, exclusive=True)
    )
    assert type(error) is BrokerError
    assert "(405)" in str(error)


def test_queue_in_exclusive_use_may_pass(parameters, consumed_queue):
    error = find_error(
        parameters, lambda channel: channel.basic_consume(consumed_queue, lambda *arguments: None)
    )
    assert type(error) is BrokerError
    assert "in exclusive use" in str(error)


def test_missing_queue_may_pass(parameters):
    name = f"missing-{uuid.uuid4().hex}"
    error = find_error(parameters, lambda channel: channel.queue_declare(name, passive=True))
    assert type(error) is BrokerError
    assert "(404)" in str(error)


def test_port_that_nobody_listens_on_may_pass():
    error = find_error(BrokerParameters(host="127.0.0.1", port=1))
    assert type(error) is BrokerError
    assert "Connection refused" in str(error)


def test_host_that_is_not_found_may_pass():
    error = find_error(BrokerParameters(host="no-such-host.invalid"))
    assert type(error) is BrokerError
    assert "gaierror" in str(error)
