"""Replies of every wrong shape: each call ends with a clear error, and no other is disturbed."""

import json
import random
import threading

import pytest

from tests.faults.conftest import recording
from tests.faults.test_hostile_requests import HEADERS
from tests.support.amqp import declare_queue, delete_queue, queue_depth, take_messages
from tests.support.frames import RawSender, deep_table, entry, properties, table
from tests.support.timing import TIMEOUT
from threadko.exceptions import (
    IncorrectSignature,
    MalformedRequest,
    MethodNotFound,
    RemoteError,
    RpcTimeout,
    deserialize_to_instance,
    registry,
)
from threadko.standalone.rpc import ClusterRpcClient

SEED = 20261124
JSON = b"application/json"
GOOD = b'{"result": "good", "error": null}'


class Picky(Exception):  # noqa: N818 - a name for the wire
    def __init__(self, *, code):
        super().__init__(code)


class Vain(Exception):  # noqa: N818 - a name for the wire
    def __init__(self, *args):
        raise SystemExit("no")


class Never(Exception):  # noqa: N818 - nobody has registered it
    made = 0

    def __init__(self, *args):
        Never.made += 1
        super().__init__(*args)


def error(**fields):
    return json.dumps({"result": None, "error": fields}).encode()


def named(path, *args, value="text"):
    return error(exc_type=path.rpartition(".")[2], exc_path=path, exc_args=list(args), value=value)


#: Body, and the class of what the call raises, or what it returns.
BODIES = {
    b"": RemoteError,
    b"null": RemoteError,
    b"5": RemoteError,
    b'"error"': RemoteError,
    b"[]": RemoteError,
    b'["result", "error"]': RemoteError,
    b"{": RemoteError,
    b"\xff\xfe": RemoteError,
    b"\x80\x04K\x01.": RemoteError,
    b"[" * 100_000: RemoteError,
    b"[" * 900 + b"]" * 900: RemoteError,
    b'{"result": ' + b"9" * 10_000 + b"}": RemoteError,
    b'{"result": {"__type__": "unknown", "__value__": 1}}': RemoteError,
    b'{"__type__": "bytes", "__value__": "x"}': RemoteError,
    b'{"result": "\xed\xa0\x80"}': RemoteError,
    b"{}": None,
    b'{"result": 1}': 1,
    b'{"result": 1, "error": 0}': 1,
    b'{"result": 1, "error": {}}': 1,
    b'{"result": 1, "error": []}': 1,
    b'{"result": 1, "error": false}': 1,
    b'{"result": 1, "error": "", "more": 2}': 1,
    b'{"result": 1, "error": "text"}': RemoteError,
    b'{"result": 1, "error": ["exc_type"]}': RemoteError,
    b'{"result": 1, "error": 5}': RemoteError,
    b'{"result": 1, "error": true}': RemoteError,
    b'{"error": {"unknown": 1}}': RemoteError,
    b'{"error": {"exc_type": %s, "value": 1}}' % (b"[" * 900 + b"]" * 900): RemoteError,
    b'{"error": {"exc_type": "x", "value": %s}}' % (b"[" * 900 + b"]" * 900): RemoteError,
    error(exc_type=None, value=None): RemoteError,
    error(exc_type=5, exc_path=5, exc_args=5, value=5): RemoteError,
    error(exc_type=[], exc_path=[], exc_args=[[]], value={}): RemoteError,
    error(exc_type={"a": 1}, exc_path={"a": 1}, exc_args={"a": 1}, value=[1]): RemoteError,
    error(exc_type="\ud800", exc_path="\ud800", exc_args=["\ud800"], value="\ud800"): RemoteError,
    error(exc_type="x" * 100_000, value="y" * 100_000): RemoteError,
    **{
        named(path): RemoteError
        for path in [
            "builtins.SystemExit",
            "builtins.KeyboardInterrupt",
            "builtins.BaseException",
            "builtins.Exception",
            "exceptions.ValueError",
            "builtins.eval",
            "os.system",
            "subprocess.Popen",
            "threadko.exceptions.WorkerKilled",
            "nameko.exceptions.WorkerKilled",
            "threadko.exceptions.RemoteError",
            "nameko.exceptions.",
            "nameko.exceptions.__init__",
            "nameko.exceptions.nameko.exceptions.MethodNotFound",
            f"{__name__}.Never",
            "",
            ".",
            "\n",
        ]
    },
    named("builtins.eval", "exit()"): RemoteError,
    named("nameko.exceptions.MethodNotFound", "m"): MethodNotFound,
    named("threadko.exceptions.MethodNotFound"): MethodNotFound,
    named("nameko.exceptions.MethodNotFound", *range(1000)): MethodNotFound,
    named("nameko.exceptions.IncorrectSignature", {"a": [1]}): IncorrectSignature,
    named("nameko.exceptions.MalformedRequest", None, "\ud800"): MalformedRequest,
    error(exc_path="nameko.exceptions.MethodNotFound", exc_args=None): MethodNotFound,
    error(exc_path="nameko.exceptions.MethodNotFound", exc_args="text"): MethodNotFound,
    error(exc_path="nameko.exceptions.MethodNotFound", exc_args={"a": 1}): MethodNotFound,
    named(f"{__name__}.Picky", "one"): RemoteError,
    named(f"{__name__}.Vain"): RemoteError,
}

PROPERTIES = {
    "no content type": ({"content_type": None}, RemoteError),
    "pickle": ({"content_type": b"application/x-python-serialize"}, RemoteError),
    "yaml": ({"content_type": b"application/x-yaml"}, RemoteError),
    "no utf-8": ({"content_type": b"\xff\xfe"}, RemoteError),
    "nul": ({"content_type": b"application/json\0"}, RemoteError),
    "rot13": ({"content_encoding": b"rot13"}, RemoteError),
    "odd encoding": ({"content_encoding": b"\xff\0"}, RemoteError),
    "unicode_escape": ({"content_encoding": b"unicode_escape"}, "good"),
    "2000 deep": ({"headers": deep_table(2000)}, RemoteError),
    "120 kB": ({"headers": table(entry(b"a", b"S", b"\0\1\xd4\xc0" + b"x" * 120_000))}, "good"),
    "year 36812": (
        {"headers": table(entry(b"t", b"T", (2**40).to_bytes(8, "big")))},
        "good",
    ),
    "rubbish": (
        {"priority": 255, "timestamp": 2**64 - 1, "type": b"\xff", "app_id": b"\0"},
        "good",
    ),
    **{
        f"header {title}": (dict(case.properties), None)
        for title, case in HEADERS.items()
        if case.properties
    },
}


@pytest.fixture
def registered():
    before = dict(registry)
    deserialize_to_instance(Picky)
    deserialize_to_instance(Vain)
    yield
    registry.clear()
    registry.update(before)


class FarSide:
    """Takes the requests of one client, and writes replies that no service would."""

    def __init__(self, uri, exchange, name):
        self.uri = uri
        self.exchange = exchange
        self.name = name
        self.queue = declare_queue(
            uri, f"rpc-{name}", durable=True, exchange=exchange, routing_key=f"{name}.*"
        )
        self.sender = RawSender(uri)

    def take(self, count):
        return take_messages(self.uri, self.queue, count)

    def reply(self, request, body, **values):
        header = {
            "content_type": JSON,
            "content_encoding": b"utf-8",
            "headers": table(),
            "correlation_id": request.properties.correlation_id.encode(),
            **values,
        }
        self.sender.send(
            self.exchange, request.properties.reply_to.encode(), properties(**header), body
        )


@pytest.fixture
def client(amqp_config, proxy, broker_uri):
    """A client that has come to no harm when the test is over."""
    config = {**amqp_config, "AMQP_URI": proxy.uri_for(broker_uri)}
    rpc_client = ClusterRpcClient(config=config, timeout=TIMEOUT)
    with recording("threadko.amqp", "threadko.rpc") as records:
        with rpc_client:
            yield rpc_client
            assert rpc_client.pending == 0
    assert [record.getMessage() for record in records] == []
    assert proxy.accepted == 1, "the connection was lost"


@pytest.fixture
def far_side(client, broker_uri, rpc_exchange, name):
    made = FarSide(broker_uri, rpc_exchange, name)
    with made.sender:
        yield made
    delete_queue(broker_uri, made.queue)


@pytest.fixture
def call(client, name):
    services = client.start()  # the client that there is
    return lambda method="method": services[name][method].call_async()


def outcome_of(call):
    """What a call brings; an error is one that can be printed, and no BaseException."""
    try:
        found = call.result(TIMEOUT)
    except Exception as error:
        found = error
    assert str(found) is not None
    assert repr(found)
    return found


def check_neighbours(far_side, calls, requests):
    """Calls that were in flight all the while are answered."""
    for request in requests:
        far_side.reply(request, GOOD)
    far_side.sender.flush()
    assert [call.result(TIMEOUT) for call in calls] == ["good"] * len(calls)


def reply_queue_of(request):
    return f"rpc.reply-standalone_rpc_client-{request.properties.reply_to}"


@pytest.mark.usefixtures("registered")
def test_call_ends_clearly_whatever_its_reply_holds(far_side, call):
    neighbours = [call() for _ in range(5)]
    waiting = far_side.take(5)
    calls = [call() for _ in BODIES]
    for request, body in zip(far_side.take(len(calls)), BODIES, strict=True):
        far_side.reply(request, body)
    far_side.sender.flush()
    for each, (body, wanted) in zip(calls, BODIES.items(), strict=True):
        found = outcome_of(each)
        if isinstance(wanted, type):
            assert type(found) is wanted, f"{body[:80]!r}: {found!r:.200}"
        else:
            assert found == wanted, f"{body[:80]!r}: {found!r:.200}"
    assert Never.made == 0
    check_neighbours(far_side, neighbours, waiting)


def test_call_ends_clearly_whatever_properties_its_reply_has(far_side, call):
    neighbours = [call() for _ in range(5)]
    waiting = far_side.take(5)
    calls = [call() for _ in PROPERTIES]
    for request, (values, _) in zip(far_side.take(len(calls)), PROPERTIES.values(), strict=True):
        far_side.reply(request, GOOD, **values)
    far_side.sender.flush()
    for each, (title, (_, wanted)) in zip(calls, PROPERTIES.items(), strict=True):
        found = outcome_of(each)
        if isinstance(wanted, type):
            assert type(found) is wanted, f"{title}: {found!r:.200}"
        elif wanted is not None:
            assert found == wanted, title
        else:
            assert found == "good" or type(found) is RemoteError, title
    check_neighbours(far_side, neighbours, waiting)


@pytest.mark.parametrize("kind", ["random bytes", "random shapes"])
def test_call_ends_clearly_when_its_reply_is_random(far_side, call, kind):
    chance = random.Random(SEED)

    def shape(depth=0):
        match chance.randrange(4 if depth > 3 else 7):
            case 0:
                return chance.choice([None, True, 0, 1.5, -1, "", "text", "\ud800"])
            case 1:
                return chance.choice(["nameko.exceptions.MethodNotFound", "builtins.SystemExit"])
            case 2 | 3:
                return chance.getrandbits(chance.choice([1, 64, 200]))
            case 4:
                return [shape(depth + 1) for _ in range(chance.randrange(4))]
            case _:
                keys = ["result", "error", "exc_type", "exc_path", "exc_args", "value", "__type__"]
                return {key: shape(depth + 1) for key in chance.sample(keys, chance.randrange(7))}

    if kind == "random bytes":
        bodies = [chance.randbytes(chance.choice([0, 1, 9, 300])) for _ in range(400)]
    else:
        bodies = [json.dumps(shape()).encode() for _ in range(200)]
        bodies += [json.dumps({"error": shape()}).encode() for _ in range(200)]
    calls = [call() for _ in bodies]
    for request, body in zip(far_side.take(len(calls)), bodies, strict=True):
        far_side.reply(request, body)
    far_side.sender.flush()
    found = [outcome_of(each) for each in calls]
    if kind == "random bytes":
        assert {type(each) for each in found} == {RemoteError}


def test_replies_that_nobody_waits_for_are_taken_off_the_queue(far_side, call, broker_uri):
    neighbour = call()
    (request,) = far_side.take(1)
    for correlation_id in [None, b"", b"unknown", b"\xff\xfe", b"x" * 255, b"a\0b", b"a\nb"]:
        far_side.reply(request, GOOD, correlation_id=correlation_id)
    for number in range(1000):
        far_side.reply(request, GOOD, correlation_id=b"%d" % number)
    check_neighbours(far_side, [neighbour], [request])
    assert queue_depth(broker_uri, reply_queue_of(request)) == 0


def test_first_reply_counts_when_a_call_is_answered_twice(far_side, call):
    calls = [call() for _ in range(10)]
    requests = far_side.take(10)
    for request in requests:
        far_side.reply(request, GOOD)
        far_side.reply(request, b'{"result": "second", "error": null}')
        far_side.reply(request, error(exc_type="Third", value="x"))
    far_side.sender.flush()
    assert [each.result(TIMEOUT) for each in calls] == ["good"] * 10
    last = call()
    check_neighbours(far_side, [last], far_side.take(1))


def test_late_reply_changes_nothing(far_side, client, name, call):
    given_up, timed_out = call(), call()
    requests = far_side.take(2)
    assert given_up.cancel()
    with pytest.raises(RpcTimeout):
        timed_out.result(0.05)
    assert timed_out.cancel()
    for request in requests:
        far_side.reply(request, GOOD)
        far_side.reply(request, b"rubbish")
    far_side.sender.flush()
    last = call()
    check_neighbours(far_side, [last], far_side.take(1))


def test_callback_sees_a_hostile_reply_as_an_error(far_side, call):
    seen, done = [], threading.Event()

    def note(ended):
        seen.append(ended.exception())
        done.set()

    each = call()
    each.add_done_callback(note)
    (request,) = far_side.take(1)
    far_side.reply(request, b"\xff")
    far_side.sender.flush()
    assert done.wait(TIMEOUT)
    assert [type(found) for found in seen] == [RemoteError]
    assert "MalformedReply" in str(seen[0])
