"""Requests of every wrong shape: the service runs on, and answers each once where it can.

The service has one worker, so that its answer to the last request means that it has settled all
before.
"""

import itertools
import json
import random
import struct
from dataclasses import dataclass
from typing import Any

import pytest

from tests.faults.conftest import make_service, recording
from tests.rpc.raw import read_body
from tests.support.amqp import queue_depth
from tests.support.frames import RawSender, array, deep_table, entry, properties, shortstr, table
from threadko.rpc import ServiceRpc, rpc
from threadko.runners import run_services

RIGHT = b'{"args": [1], "kwargs": {}}'
ANY = "anything"  # an answer of whatever kind

SEED = 20261124


@dataclass(frozen=True)
class Case:
    """A request, and the answer that it gets: "result", the type of an error, ANY or None."""

    body: bytes = RIGHT
    answer: str | None = "result"
    key: bytes = b"echo"
    result: Any = None
    properties: tuple[tuple[str, Any], ...] = ()


def args(text: str) -> bytes:
    return f'{{"args": [{text}], "kwargs": {{}}}}'.encode("utf-8", "surrogatepass")


def kwargs(text: str, key: str = "optional") -> Case:
    return Case(f'{{"args": [], "kwargs": {text}}}'.encode(), "IncorrectSignature", key.encode())


def with_properties(answer: str | None = "result", body: bytes = RIGHT, **values: Any) -> Case:
    return Case(body, answer, properties=tuple(values.items()))


def with_headers(*entries: bytes, answer: str | None = "result") -> Case:
    return with_properties(answer, headers=table(*entries))


MALFORMED = [
    b"",
    b" ",
    b"null",
    b"true",
    b"0",
    b"-1.5e3",
    b'"text"',
    b"[]",
    b"{}",
    b"[[1], {}]",
    b'["args", "kwargs"]',
    b'{"args": [1]}',
    b'{"kwargs": {}}',
    b'{"Args": [1], "Kwargs": {}}',
    b'{"args": null, "kwargs": {}}',
    b'{"args": {"value": 1}, "kwargs": {}}',
    b'{"args": "x", "kwargs": {}}',
    b'{"args": 1, "kwargs": {}}',
    b'{"args": 1.5, "kwargs": {}}',
    b'{"args": true, "kwargs": {}}',
    b'{"args": [1], "kwargs": null}',
    b'{"args": [1], "kwargs": []}',
    b'{"args": [1], "kwargs": [["value", 1]]}',
    b'{"args": [1], "kwargs": "x"}',
    b'{"args": [1], "kwargs": 1}',
    b'{"args": [1], "kwargs": false}',
    b'{"args": [1], "kwargs": {}',
    b'{"args": [1], "kwargs": {}} {}',
    b'{"args": [1], "kwargs": {}}\x00',
    b"{'args': [1], 'kwargs': {}}",
    b'{"args": [1,], "kwargs": {}}',
    b'{"args": [01], "kwargs": {}}',
    b'{"args": [0x1], "kwargs": {}}',
    b'{"args": ["\\x"], "kwargs": {}}',
    b'{"args": ["\n"], "kwargs": {}}',
    b'{"args": ["\\ud8"], "kwargs": {}}',
    b'{"args": ["\xff"], "kwargs": {}}',
    b'{"args": ["\xed\xa0\x80"], "kwargs": {}}',
    b"\xef\xbb\xbf" + RIGHT,
    RIGHT.decode().encode("utf-16"),
    b"\x80\x04K\x01.",
    b"\x1f\x8b\x08\x00",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"[" * 100_000 + b"]" * 100_000,
    args("9" * 10_000),
    args("-" + "9" * 10_000),
    b'{"__type__": "decimal", "__value__": "1"}',
    b'{"__type__": "bytes", "__value__": "args"}',
    b'{"__type__": "datetime", "__value__": "2026-11-24T00:00:00"}',
    b'{"args": {"__type__": "bytes", "__value__": "x"}, "kwargs": {}}',
    *(
        args(json.dumps({"__type__": kind, "__value__": value}))
        for kind, value in [
            ("unknown", 1),
            ("", 1),
            (None, 1),
            (["datetime"], 1),
            ({"a": 1}, 1),
            ("__class__", "os.system"),
            ("datetime", 5),
            ("datetime", "yesterday"),
            ("datetime", None),
            ("date", []),
            ("time", {}),
            ("time", "25:00"),
            ("decimal", "one"),
            ("decimal", {"a": 1}),
            ("decimal", [1, 2, 3, 4]),
            ("uuid", {}),
            ("uuid", "x"),
            ("uuid", {"hex": 5}),
            ("uuid", {"hex": "x" * 32}),
            ("uuid", []),
            ("bytes", 5),
            ("bytes", None),
            ("bytes", "\ud800"),
            ("base64", "!"),
            ("base64", 5),
        ]
    ),
]

BODIES = {
    **{f"malformed {at}": Case(body, "MalformedRequest") for at, body in enumerate(MALFORMED)},
    "last key wins": Case(b'{"args": [1], "args": [2], "kwargs": {}}', result=2),
    "extra keys": Case(b'{"args": [3], "kwargs": {}, "more": [[]]}', result=3),
    "nan": Case(args("NaN"), ANY),
    "infinity": Case(args("-Infinity"), ANY),
    "too large for a double": Case(args("1e400"), ANY),
    "4000 digits": Case(args("9" * 4000), result=int("9" * 4000)),
    "lone surrogate": Case(args(r'"\ud800"'), "UnserializableValueError"),
    "lone surrogate in a key": Case(args(r'{"\udfff": 1}'), "UnserializableValueError"),
    "nul": Case(args(r'"\u0000"'), result="\0"),
    "200 deep": Case(args("[" * 200 + "]" * 200), ANY),
    "900 deep": Case(args("[" * 900 + "]" * 900), ANY),
    "990 deep": Case(args("[" * 990 + "]" * 990), ANY),
    "990 objects deep": Case(args('{"a":' * 980 + "1" + "}" * 980), ANY),
    "decimal out of range": Case(
        args('{"__type__": "decimal", "__value__": "1E+999999999999999999"}'), ANY
    ),
    "small decimal": Case(args('{"__type__": "decimal", "__value__": "sNaN"}'), ANY),
    "too many arguments": Case(args("1, 2"), "IncorrectSignature"),
    "too few arguments": Case(args(""), "IncorrectSignature"),
    "10000 arguments": Case(args(",".join("1" * 10_000)), "IncorrectSignature"),
    "self": kwargs('{"self": 1}'),
    "empty name": kwargs('{"": 1}'),
    "name with a lone surrogate": kwargs(r'{"\ud800": 1}'),
    "name with a nul": kwargs(r'{"\u0000": 1}'),
    "name of 50000": kwargs(f'{{"{"x" * 50_000}": 1}}'),
    "10000 names": kwargs(json.dumps({f"x{n}": n for n in range(10_000)})),
    "names of ours": kwargs('{"worker_ctx": 1, "args": 1, "kwargs": 2}'),
    "self among any": kwargs('{"self": 1}', "anything"),
    "method among any": Case(b'{"args": [], "kwargs": {"fn": 1, "func": 2}}', key=b"anything"),
    "close to the limit": Case(args('"' + "x" * 199_000 + '"'), ANY),
    "larger than we send": Case(args('"' + "x" * 400_000 + '"'), "EncodeError"),
}

ENCODINGS = [
    "rot13",
    "rot_13",
    "base64",
    "hex",
    "zlib",
    "bz2",
    "uu",
    "quopri",
    "idna",
    "punycode",
    "unicode_escape",
    "raw_unicode_escape",
    "undefined",
    "mbcs",
    "oem",
    "utf-7",
    "utf-16",
    "utf-32",
    "utf-8-sig",
    "cp037",
    "latin-1",
    "binary",
    "ascii-8bit",
    "BINARY",
    "us-ascii",
    "UTF8",
    "unheard-of",
    "aliases",
    ".",
    "..",
    "../../x",
    "os",
    "__init__",
]

PROPERTIES = {
    **{f"encoding {e}": with_properties(ANY, content_encoding=e.encode()) for e in ENCODINGS},
    "escape in an escaped encoding": with_properties(
        ANY, args(r'"\d"'), content_encoding=b"unicode_escape"
    ),
    "encoding of bytes": with_properties("MalformedRequest", content_encoding=b"\xff\xfe"),
    "encoding with a nul": with_properties("MalformedRequest", content_encoding=b"utf-8\0"),
    "encoding of 255": with_properties("MalformedRequest", content_encoding=b"x" * 255),
    "empty encoding": with_properties(content_encoding=b""),
    "no encoding": with_properties(content_encoding=None),
    "utf-16": with_properties(body=RIGHT.decode().encode("utf-16"), content_encoding=b"utf-16"),
    **{
        f"content type {each!r}": with_properties("MalformedRequest", content_type=each)
        for each in [
            None,
            b"",
            b"application/json; charset=utf-8",
            b"APPLICATION/JSON",
            b" application/json",
            b"application/json\0",
            b"application/x-python-serialize",
            b"application/x-yaml",
            b"application/x-msgpack",
            b"application/data",
            b"application/text",
            b"text/plain",
            b"json",
            b"\xff\xfe",
            b"x" * 255,
            b"\n\r{}%s",
        ]
    },
    "raw bytes": with_properties(
        "MalformedRequest", content_type=b"application/data", content_encoding=b"binary"
    ),
    "pickle": with_properties(
        "MalformedRequest",
        b"cos\nsystem\n(S'exit 1'\ntR.",
        content_type=b"application/x-python-serialize",
        content_encoding=b"binary",
    ),
    "priority 255": with_properties(priority=255),
    "no delivery mode": with_properties(delivery_mode=None),
    "far timestamp": with_properties(timestamp=2**64 - 1),
    "expiration": with_properties(expiration=b"4294967295"),
    "odd ids": with_properties(
        message_id=b"\xff" * 255, type=b"\0", app_id=b"\xfe", cluster_id=b""
    ),
    "own user": with_properties(user_id=b"guest"),
    "id with a line end": with_properties(message_id=b"a\nERROR b\r"),
}

VALUES = {
    "void": b"V",
    "true": b"t\x01",
    "boolean 255": b"t\xff",
    "signed octet": b"b\x80",
    "octet": b"B\xff",
    "short": b"s\x80\x00",
    "unsigned short": b"u\xff\xff",
    "int": b"I\x80\x00\x00\x00",
    "unsigned int": b"i\xff\xff\xff\xff",
    "long": b"l\x80" + bytes(7),
    "L": b"L\x80" + bytes(7),
    "float": b"f" + struct.pack(">f", 1.5),
    "double": b"d" + struct.pack(">d", 1.5),
    "decimal": b"D\xff\x80\x00\x00\x00",
    "timestamp": b"T" + struct.pack(">Q", 2**63),
    "text": b"S" + struct.pack(">I", 4) + b"text",
    "no utf-8": b"S" + struct.pack(">I", 2) + b"\xff\xfe",
    "long text": b"S" + struct.pack(">I", 50_000) + b"x" * 50_000,
    "bytes": b"x" + struct.pack(">I", 2) + b"\x00\xff",
    "empty table": b"F" + table(),
    "table": b"F" + table(entry(b"a", b"t", b"\x01"), entry(b"a", b"t", b"\x00")),
    "table with an empty key": b"F" + table(entry(b"", b"V", b"")),
    "empty array": b"A" + array(),
    "mixed array": b"A" + array(b"V", b"t\x01", b"S" + struct.pack(">I", 1) + b"a", b"F" + table()),
    "long array": b"A" + array(*([b"V"] * 20_000)),
    "array 90 deep": b"A"
    + b"".join(struct.pack(">I", 5 * n) + b"A" for n in range(90, 0, -1))
    + array(),
}

KEYS = [b"nameko.call_id_stack", b"nameko.language", b"nameko.", b"nameko", b"compression", b"x"]

TIMESTAMP_YEAR_36812 = entry(b"t", b"T", struct.pack(">Q", 2**40))

HEADERS = {
    **{
        f"{key.decode()}: {name}": with_headers(entry(key, value[:1], value[1:]), answer=ANY)
        for key in KEYS
        for name, value in VALUES.items()
    },
    "no headers at all": with_properties(headers=None),
    "year 36812": with_headers(TIMESTAMP_YEAR_36812),
    "key that is no utf-8": with_headers(entry(b"nameko.\xff\xfe", b"V", b""), answer=ANY),
    "key of 255": with_headers(entry(b"nameko." + b"k" * 248, b"t", b"\x01"), answer=ANY),
    "twice the same key": with_headers(*[entry(b"nameko.a", b"t", b"\x01")] * 2),
    "5000 keys": with_headers(*(entry(b"nameko.%d" % n, b"V", b"") for n in range(5000))),
    "120 kB": with_headers(entry(b"nameko.a", b"S", struct.pack(">I", 120_000) + b"x" * 120_000)),
    "100 deep": with_properties(ANY, headers=deep_table(100)),
}

#: What nobody can be told about: its headers cannot be read, and the reply's address with them.
UNREADABLE = {
    "2000 deep": deep_table(2000),
    "15000 deep": deep_table(15_000),
}

TARGETS = {
    "no dot": (b"nodots", "dropped"),
    "unknown method": (b"{name}.nowhere", "MethodNotFound"),
    "no method": (b"{name}.", "MethodNotFound"),
    "private method": (b"{name}.__init__", "MethodNotFound"),
    "unicode": ("{name}.grüße".encode(), "MethodNotFound"),
    "no utf-8": (b"{name}.\xff\xfe", "MethodNotFound"),
    "nul": (b"{name}.a\0b", "MethodNotFound"),
    "line end": (b"{name}.a\nERROR b", "MethodNotFound"),
    "format": (b"{name}.%s%d{}", "MethodNotFound"),
}


@pytest.fixture
def sender(broker_uri):
    with RawSender(broker_uri) as made:
        yield made


def send_all(sender, exchange, name, reply_to, cases):
    """Send each case, and return them by the correlation id that their replies will have."""
    sent = {}
    for number, (title, case) in enumerate(cases.items()):
        correlation_id = b"case-%d" % number
        header = properties(
            **{
                "content_type": b"application/json",
                "content_encoding": b"utf-8",
                "headers": table(),
                "correlation_id": correlation_id,
                "reply_to": reply_to.encode(),
                **dict(case.properties),
            }
        )
        sender.send(exchange, name.encode() + b"." + case.key, header, case.body)
        if case.answer is not None:
            sent[correlation_id.decode()] = (title, case)
    sender.flush()
    return sent


def check(title, case, reply, body):
    answer = read_body(reply, body)
    assert set(answer) == {"result", "error"}, title
    error = answer["error"]
    if case.answer == ANY:
        return
    found = "result" if error is None else error["exc_type"]
    assert found == case.answer, f"{title}: {str(error)[:300]}"
    if error is not None:
        assert answer["result"] is None, title
        assert len(body) < 200_000, title
    elif case.result is not None:
        assert answer["result"] == case.result, title


@pytest.mark.parametrize(
    "cases", [BODIES, PROPERTIES, HEADERS], ids=["bodies", "properties", "headers"]
)
def test_each_odd_request_is_answered_once(cases, attack, box, sender, rpc_exchange, figure):
    with attack(max_workers=1, PREFETCH_COUNT=100, MAX_MESSAGE_SIZE=200_000) as target:
        replies = box()
        sent = send_all(sender, rpc_exchange, target.name, replies.reply_to, cases)
        found = replies.take(len(sent))
        assert replies.left() == 0
        ids = [reply.correlation_id for reply, _ in found]
        assert sorted(ids) == sorted(sent)
        for reply, body in found:
            check(*sent[reply.correlation_id], reply, body)
    figure("amqp", f"{len(found)} as requests, each answered")


def test_request_is_dropped_when_its_headers_cannot_be_read(attack, box, sender, rpc_exchange):
    with attack(max_workers=1) as target:
        replies = box()
        for headers in UNREADABLE.values():
            header = properties(
                headers=headers, reply_to=replies.reply_to.encode(), correlation_id=b"1"
            )
            sender.send(rpc_exchange, f"{target.name}.echo".encode(), header, RIGHT)
        sender.flush()


@pytest.mark.parametrize("key", TARGETS)
def test_caller_is_told_when_its_target_is_odd(key, attack, box, sender, rpc_exchange):
    pattern, answer = TARGETS[key]
    with attack(max_workers=1) as target:
        replies = box()
        header = properties(
            content_type=b"application/json",
            reply_to=replies.reply_to.encode(),
            correlation_id=b"1",
        )
        routing_key = pattern.replace(b"{name}", target.name.encode())
        sender.send(rpc_exchange, routing_key, header, RIGHT)
        sender.flush()
        if answer != "dropped":
            ((_, body),) = replies.take(1)
            assert json.loads(body)["error"]["exc_type"] == answer


@pytest.mark.parametrize("body", [RIGHT, b"", b"\xff", b'{"args": []}'], ids=repr)
def test_caller_is_told_when_it_came_past_the_exchange(body, attack, box, sender):
    with attack(max_workers=1) as target:
        replies = box()
        header = properties(
            content_type=b"application/json",
            reply_to=replies.reply_to.encode(),
            correlation_id=b"1",
        )
        sender.send("", f"rpc-{target.name}".encode(), header, body)
        sender.flush()
        ((_, answer),) = replies.take(1)
        assert json.loads(answer)["error"]["exc_type"] in ("MethodNotFound", "MalformedRequest")


CORRELATION_IDS = {
    "missing": None,
    "empty": b"",
    "of 255": b"c" * 255,
    "no utf-8": b"\xff\xfe\x80",
    "nul": b"a\0b",
    "line end": b"a\r\nb",
    "surrogate": b"\xed\xa0\x80",
}


def test_correlation_id_comes_back_as_it_was_sent(attack, box, sender, rpc_exchange):
    with attack(max_workers=1) as target:
        replies = box()
        for correlation_id in CORRELATION_IDS.values():
            header = properties(
                content_type=b"application/json",
                reply_to=replies.reply_to.encode(),
                correlation_id=correlation_id,
            )
            sender.send(rpc_exchange, f"{target.name}.echo".encode(), header, RIGHT)
        sender.flush()
        found = [reply.correlation_id for reply, _ in replies.take(len(CORRELATION_IDS))]
        wanted = [None if id_ is None else id_ for id_ in CORRELATION_IDS.values()]
        # pika gives bytes where it finds no UTF-8.
        assert [id_.encode() if isinstance(id_, str) else id_ for id_ in found] == wanted


def test_request_is_carried_out_when_its_reply_can_go_nowhere(attack, sender, rpc_exchange, name):
    nowhere = [
        None,
        b"",
        b"nobody-s",
        b"n" * 255,
        b"\xff\xfe",
        b"a\0b",
        b"#",
        b"*",
        b".",
        b"\xed\xa0\x80",
        b"a\nb",
        # The reply is a request to the service itself, which knows better than to reply to that.
        f"{name}.echo".encode(),
        f"{name}.nowhere".encode(),
    ]
    with attack(max_workers=1) as target:
        for reply_to, body in itertools.product(nowhere, [RIGHT, b"\xff"]):
            header = properties(content_type=b"application/json", reply_to=reply_to)
            sender.send(rpc_exchange, f"{target.name}.echo".encode(), header, body)
        sender.flush()


def mutate(chance, body):
    """Change, drop, double or put in a few bytes."""
    body = bytearray(body)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(body) + 1)
        match chance.randrange(4):
            case 0 if at < len(body):
                body[at] = chance.randrange(256)
            case 1:
                del body[at : at + chance.randint(1, 4)]
            case 2:
                body[at:at] = body[at : at + chance.randint(1, 8)]
            case _:
                body[at:at] = chance.randbytes(chance.randint(1, 4))
    return bytes(body)


ORIGINALS = [
    RIGHT,
    b'{"args": [], "kwargs": {"value": {"a": [1, 2.5, null, true, "x"]}}}',
    b'{"args": [{"__type__": "datetime", "__value__": "2026-11-24T01:02:03"}], "kwargs": {}}',
    b'{"args": [{"__type__": "uuid", "__value__": {"hex": "' + b"0" * 32 + b'"}}], "kwargs": {}}',
]


@pytest.mark.parametrize("kind", ["random bytes", "mutated bodies"])
def test_each_of_a_thousand_bodies_is_answered_once(kind, attack, box, sender, rpc_exchange):
    chance = random.Random(SEED)
    if kind == "random bytes":
        bodies = [chance.randbytes(chance.choice([0, 1, 7, 100, 5000])) for _ in range(1000)]
    else:
        bodies = [mutate(chance, chance.choice(ORIGINALS)) for _ in range(1000)]
    cases = {f"{at}: {body[:80]!r}": Case(body, ANY) for at, body in enumerate(bodies)}
    with attack() as target:
        replies = box()
        sent = send_all(sender, rpc_exchange, target.name, replies.reply_to, cases)
        found = replies.take(len(sent))
        assert sorted(reply.correlation_id for reply, _ in found) == sorted(sent)
        assert replies.left() == 0
        for reply, body in found:
            check(*sent[reply.correlation_id], reply, body)


def test_random_properties_and_tables_cost_one_message_each(attack, box, sender, rpc_exchange):
    """The broker passes on what is well formed outside, with any types and bytes inside."""
    chance = random.Random(SEED)
    values = list(VALUES.values())
    with attack(max_workers=1) as target:
        replies = box()
        for number in range(300):
            chosen = [chance.choice(values) for _ in range(chance.randint(0, 3))]
            entries = [
                entry(chance.choice(KEYS) + chance.randbytes(3), value[:1], value[1:])
                for value in chosen
                if len(value) < 10_000
            ]
            header = properties(
                content_type=chance.choice([b"application/json", None, chance.randbytes(8)]),
                content_encoding=chance.choice([b"utf-8", None, chance.randbytes(8)]),
                headers=table(*entries),
                priority=chance.randrange(256),
                correlation_id=b"%d" % number,
                reply_to=replies.reply_to.encode(),
                message_id=chance.randbytes(chance.randrange(256)),
                timestamp=chance.getrandbits(64),
                type=chance.randbytes(9),
                app_id=shortstr(chance.randbytes(9)),
            )
            body = chance.choice([RIGHT, chance.randbytes(40)])
            sender.send(rpc_exchange, f"{target.name}.echo".encode(), header, body)
        sender.flush()
        found = [reply.correlation_id for reply, _ in replies.take(300)]
        assert found == [str(number) for number in range(300)]


def test_odd_context_costs_its_own_request_when_it_is_passed_on(
    names, amqp_config, broker_uri, proxy, box, sender, rpc_exchange
):
    callee_name, middle_name = names.service("callee"), names.service("middle")

    class Middle:
        name = middle_name
        callee = ServiceRpc(callee_name)

        @rpc
        def echo(self, value):
            return self.callee.echo(value)

    config = {**amqp_config, "AMQP_URI": proxy.uri_for(broker_uri), "max_workers": 1}
    quiet = recording("threadko.amqp", "threadko.rpc.requests", "threadko.rpc.replies")
    with run_services(make_service(callee_name), config=amqp_config), quiet as records:
        with run_services(Middle, config=config):
            replies = box()
            sent = send_all(sender, rpc_exchange, middle_name, replies.reply_to, HEADERS)
            found = replies.take(len(sent))
            assert replies.left() == 0
            outcomes = {}
            for reply, body in found:
                title, _ = sent[reply.correlation_id]
                error = json.loads(body)["error"]
                outcomes[title] = "result" if error is None else error["exc_type"]
    # What came in is passed on, or refused as what cannot be sent; the connections know of nothing.
    assert len(found) == len(outcomes) == len(HEADERS)
    assert set(outcomes.values()) <= {"result", "EncodeError", "MalformedRequest"}, outcomes
    assert outcomes["nameko.language: text"] == "result"
    assert [record.getMessage() for record in records] == []
    assert proxy.accepted == 2
    assert queue_depth(broker_uri, f"rpc-{middle_name}") == 0
