"""JSON with envelopes, pinned byte for byte: the peers read and write just this."""

import json
import math
import random
import uuid
from collections import OrderedDict, namedtuple
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from types import MappingProxyType
from typing import Any

import pytest

from threadko.exceptions import DecodeError, EncodeError
from threadko.serialization import JSON, Codec
from threadko.serialization.codecs import MSGPACK, PICKLE, YAML

EAST = timezone(timedelta(hours=2))
Pair = namedtuple("Pair", "a b")


class Color(Enum):
    RED = 1


class Size(IntEnum):
    BIG = 3


class Reducible:
    def __json__(self) -> object:
        return {"on": date(2020, 1, 2)}


class Own(datetime):
    pass


def nest(depth: int) -> list[Any]:
    deep: list[Any] = []
    for _ in range(depth):
        deep = [deep]
    return deep


def to_json(value: object) -> str:
    return JSON.encode(value).body.decode("ascii")


def from_json(text: str) -> Any:
    return JSON.decode(text.encode("utf-8"), "utf-8")


def envelope(kind: object, value: object) -> str:
    return json.dumps({"__type__": kind, "__value__": value})


ROUND_TRIPS = [
    (datetime(2020, 1, 2, 3, 4, 5), "datetime", "2020-01-02T03:04:05"),
    (datetime(2020, 1, 2, 3, 4, 5, 678900), "datetime", "2020-01-02T03:04:05.678900"),
    (datetime(2020, 1, 2, 3, 4, 5, tzinfo=EAST), "datetime", "2020-01-02T03:04:05+02:00"),
    (date(2020, 1, 2), "date", "2020-01-02"),
    (time(1, 2, 3), "time", "01:02:03"),
    (time(1, 2, 3, 5, tzinfo=EAST), "time", "01:02:03.000005+02:00"),
    (Decimal("1.50"), "decimal", "1.50"),
    (uuid.UUID(int=5), "uuid", {"hex": "00000000000000000000000000000005"}),
    (b"abc", "bytes", "abc"),
    (b"", "bytes", ""),
    ("ü".encode(), "bytes", "ü"),
    (b"\xff\x00", "base64", "/wA="),
]


@pytest.mark.parametrize(("value", "kind", "wrapped"), ROUND_TRIPS)
def test_a_value_without_a_json_form_travels_in_an_envelope(
    value: object, kind: str, wrapped: object
) -> None:
    assert to_json(value) == envelope(kind, wrapped)
    back = from_json(to_json(value))
    assert (type(back), back) == (type(value), value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "null"),
        ("é😀", '"\\u00e9\\ud83d\\ude00"'),
        ("\\ud800 as text", '"\\\\ud800 as text"'),
        ([1, 2.5, True], "[1, 2.5, true]"),
        ({"a": 1, "b": [None]}, '{"a": 1, "b": [null]}'),
        ({1: 2, None: 3}, '{"1": 2, "null": 3}'),
        ((1, 2), "[1, 2]"),
        (Pair(1, 2), "[1, 2]"),
        (OrderedDict(a=1), '{"a": 1}'),
        (Size.BIG, "3"),
        (math.inf, "Infinity"),
        (math.nan, "NaN"),
        (Reducible(), '{"on": {"__type__": "date", "__value__": "2020-01-02"}}'),
        (Own(2020, 1, 2), envelope("datetime", "2020-01-02T00:00:00")),
        (Decimal("NaN"), envelope("decimal", "NaN")),
    ],
)
def test_json_is_written_as_the_peers_write_it(value: object, expected: str) -> None:
    assert to_json(value) == expected


def make_cycle() -> list[Any]:
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


@pytest.mark.parametrize(
    "value",
    [
        {1},
        frozenset(),
        object(),
        Color.RED,
        1j,
        bytearray(b"x"),
        memoryview(b"x"),
        timedelta(1),
        MappingProxyType({}),
        {(1,): 2},
        {date(2020, 1, 1): 2},
        (n for n in [1]),
        make_cycle(),
        pytest.param(nest(100_000), id="deep nesting"),
        pytest.param(10**5000, id="an immense number"),
        "\ud800",
        {"\udfff": 1},
        ["😀", "\ud800"],
        [{"deep": [date(2020, 1, 2), {1}]}],
    ],
)
def test_what_cannot_be_encoded_is_an_encode_error(value: object) -> None:
    with pytest.raises(EncodeError, match="as json"):
        JSON.encode(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": [1, 2.5, null, true, "x"]}', {"a": [1, 2.5, None, True, "x"]}),
        ('{"a": 1, "a": 2}', {"a": 2}),
        (envelope("datetime", "2020-01-01T00:00:00Z"), datetime(2020, 1, 1, tzinfo=timezone.utc)),
        (envelope("datetime", "2020-01-01"), datetime(2020, 1, 1)),
        (envelope("date", "2020-01-01T00:00:00"), date(2020, 1, 1)),
        (envelope("time", "01:02:03Z"), time(1, 2, 3, tzinfo=timezone.utc)),
        (envelope("decimal", 1.5), Decimal("1.5")),
        (f"[{envelope('date', '2020-01-02')}]", [date(2020, 1, 2)]),
        ('{"__type__": "date"}', {"__type__": "date"}),
        ('{"__type__": "x", "__value__": 1, "y": 2}', {"__type__": "x", "__value__": 1, "y": 2}),
        ('{"__type__": 1, "value": 2}', {"__type__": 1, "value": 2}),
        ('"__type__"', "__type__"),
    ],
)
def test_json_is_read_as_the_peers_read_it(text: str, expected: object) -> None:
    result = from_json(text)
    assert (type(result), result) == (type(expected), expected)


def test_not_a_number_is_read_as_json_reads_it() -> None:
    assert math.isnan(from_json("NaN"))


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2",
        "{'a': 1}",
        "1 2",
        " ",
        "\ufeff1",
        pytest.param("1" * 5000, id="an immense number"),
        pytest.param("[" * 100_000, id="deep lists"),
        pytest.param('{"a":' * 100_000, id="deep objects"),
        envelope("x", 1),
        envelope(None, 1),
        envelope(["a"], 1),
        envelope("datetime", 5),
        envelope("datetime", "yesterday"),
        envelope("time", None),
        envelope("decimal", "abc"),
        envelope("decimal", None),
        envelope("uuid", "00000000000000000000000000000005"),
        envelope("uuid", {"hex": "5"}),
        envelope("uuid", {}),
        envelope("bytes", 5),
        envelope("base64", "!!"),
        envelope("base64", 5),
    ],
)
def test_bad_json_is_a_decode_error(text: str) -> None:
    with pytest.raises(DecodeError):
        from_json(text)


def test_what_was_pickled_is_read_as_it_was() -> None:
    value = {"at": datetime(2020, 1, 2), "pair": (1, {2}), "size": Size.BIG}
    encoded = PICKLE.encode(value)
    assert (encoded.content_type, encoded.content_encoding) == (
        "application/x-python-serialize",
        "binary",
    )
    assert PICKLE.decode(encoded.body, "binary") == value


@pytest.mark.parametrize(
    "body", [b"x", b"\x80", b".", b"\x80\x04N", b"cos\nsystem\n.", b"\x80\x04X."]
)
def test_noise_is_no_pickle(body: bytes) -> None:
    with pytest.raises(DecodeError):
        PICKLE.decode(body, "binary")


def test_what_cannot_be_pickled_is_an_encode_error() -> None:
    with pytest.raises(EncodeError, match="as pickle"):
        PICKLE.encode(lambda: None)


@pytest.mark.parametrize("codec", [JSON, YAML, PICKLE, MSGPACK], ids=lambda codec: codec.name)
def test_random_bytes_never_raise_anything_but_a_decode_error(codec: Codec) -> None:
    chance = random.Random(codec.name)
    usual = codec.encode({"args": [1, "x", None, 2.5], "kwargs": {"a": [True]}}).body
    for _ in range(2_000):
        body = bytearray(usual if chance.random() < 0.7 else chance.randbytes(40))
        for _ in range(chance.randint(0, 4)):
            body[chance.randrange(len(body))] = chance.randrange(256)
        try:
            codec.decode(bytes(body[: chance.randint(1, len(body))]), None)
        except DecodeError:
            continue
