import datetime
import decimal
import enum
import math
import random
import struct

import pika.data
import pytest

from threadko.amqp.tables import MAX_DEPTH, MAX_SIZE, decode_table, encode_shortstr, encode_table
from threadko.exceptions import EncodeError

UTC = datetime.timezone.utc


class Colour(enum.IntEnum):
    RED = 3


class Label(str):
    __slots__ = ()


def encode_with_pika(table):
    pieces = []
    pika.data.encode_table(pieces, table)
    return b"".join(pieces)


def field(letter, content, key=b"k"):
    """A table of one field, written by hand."""
    entry = bytes([len(key)]) + key + letter + content
    return struct.pack(">I", len(entry)) + entry


def nested_tables(levels):
    raw = b"\0\0\0\0"
    for _ in range(levels):
        raw = field(b"F", raw)
    return raw


SURVIVORS = {
    "empty": {},
    "text": {"language": "de", "empty": "", "umlaut": "Käse €", "zero": "a\0b"},
    "stack": {"nameko.call_id_stack": ["a.b.1", "c.d.2"]},
    "integers": {"a": 0, "b": -1, "c": 2**31 - 1, "d": -(2**31), "e": 2**31, "f": -(2**63)},
    "floats": {"a": 1.5, "b": -0.1, "c": 1e300, "d": 5e-324},
    "booleans": {"a": True, "b": False},
    "nothing": {"a": None},
    "bytes": {"a": b"\xff\0x", "b": b""},
    "datetime": {"a": datetime.datetime(2026, 11, 23, 12, 30, tzinfo=UTC)},
    "decimals": {"a": decimal.Decimal("1.50"), "b": decimal.Decimal("-2147483647")},
    "nested": {"a": {"b": {"c": [1, [2, {"d": None}], "x"]}}, "e": [], "f": {}},
}


@pytest.mark.parametrize("name", SURVIVORS)
def test_table_survives_encoding_and_decoding(name):
    table = SURVIVORS[name]
    raw = encode_table(table)
    assert decode_table(raw, 0) == (table, len(raw))


@pytest.mark.parametrize("name", [name for name in SURVIVORS if name != "floats"])
def test_pika_reads_what_was_encoded(name):
    raw = encode_table(SURVIVORS[name])
    assert pika.data.decode_table(raw, 0) == (SURVIVORS[name], len(raw))


@pytest.mark.parametrize("name", [name for name in SURVIVORS if name != "floats"])
def test_what_pika_encoded_is_read(name):
    table = SURVIVORS[name]
    assert decode_table(encode_with_pika(table), 0)[0] == table


def test_types_are_kept_when_values_compare_equal():
    table = {"a": True, "b": 1, "c": 1.0, "d": decimal.Decimal("1.0")}
    decoded, _ = decode_table(encode_table(table), 0)
    assert [type(value) for value in decoded.values()] == [bool, int, float, decimal.Decimal]
    assert str(decoded["d"]) == "1.0"


def test_tuples_and_subclasses_travel_as_their_plain_types():
    decoded, _ = decode_table(encode_table({"a": (1, 2), "b": Colour.RED, "c": Label("x")}), 0)
    assert decoded == {"a": [1, 2], "b": 3, "c": "x"}
    assert [type(value) for value in decoded.values()] == [list, int, str]


def test_naive_datetime_is_taken_as_utc():
    decoded, _ = decode_table(encode_table({"a": datetime.datetime(2026, 1, 2, 3, 4, 5, 6)}), 0)
    assert decoded == {"a": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)}


def test_datetime_is_converted_to_utc():
    zone = datetime.timezone(datetime.timedelta(hours=2))
    sent = datetime.datetime(2026, 1, 2, 3, tzinfo=zone)
    decoded, _ = decode_table(encode_table({"a": sent}), 0)
    assert decoded["a"] == sent
    assert decoded["a"].utcoffset() == datetime.timedelta(0)


def test_decimal_with_positive_exponent_keeps_its_value():
    decoded, _ = decode_table(encode_table({"a": decimal.Decimal("12E+3")}), 0)
    assert decoded == {"a": 12000}


def test_decimal_is_decoded_exactly_when_the_context_is_coarse():
    raw = encode_table({"a": decimal.Decimal("123.456")})
    with decimal.localcontext() as context:
        context.prec = 2
        assert decode_table(raw, 0)[0] == {"a": decimal.Decimal("123.456")}


def test_integers_take_32_bits_where_they_fit_and_64_where_not():
    assert encode_table({"k": 2**31 - 1}) == field(b"I", struct.pack(">i", 2**31 - 1))
    assert encode_table({"k": 2**31}) == field(b"l", struct.pack(">q", 2**31))


@pytest.mark.parametrize(
    ("letter", "layout", "value"),
    [
        (b"b", ">b", -5),
        (b"B", ">B", 250),
        (b"s", ">h", -300),
        (b"U", ">h", -300),
        (b"u", ">H", 60000),
        (b"I", ">i", -70000),
        (b"i", ">I", 4000000000),
        (b"l", ">q", -(2**40)),
        (b"L", ">q", -(2**40)),
        (b"f", ">f", 1.5),
        (b"d", ">d", 0.1),
        (b"t", ">B", True),
    ],
)
def test_every_number_type_of_the_broker_is_read(letter, layout, value):
    assert decode_table(field(letter, struct.pack(layout, value)), 0)[0] == {"k": value}


def test_decoding_begins_at_the_offset_and_says_where_it_ends():
    raw = encode_table({"a": 1})
    assert decode_table(b"xyz" + raw + b"rest", 3) == ({"a": 1}, 3 + len(raw))


def test_timestamp_out_of_range_is_read_as_the_raw_number():
    for seconds in (2**40, 2**63, 2**64 - 1):
        assert decode_table(field(b"T", struct.pack(">Q", seconds)), 0)[0] == {"k": seconds}


def test_text_that_is_no_utf8_comes_as_bytes_and_can_be_sent_on():
    raw = field(b"S", b"\0\0\0\2\xff\xfe")
    table, _ = decode_table(raw, 0)
    assert table == {"k": b"\xff\xfe"}
    assert decode_table(encode_table(table), 0)[0] == table


def test_key_that_is_no_utf8_comes_as_str():
    assert decode_table(field(b"V", b"", key=b"\xff"), 0)[0] == {"\udcff": None}


def test_nesting_is_read_to_the_limit_and_refused_beyond():
    assert decode_table(nested_tables(MAX_DEPTH), 0)
    with pytest.raises(ValueError, match="deeper"):
        decode_table(nested_tables(MAX_DEPTH + 1), 0)


@pytest.mark.parametrize("levels", [2000, 20000])
def test_hostile_nesting_is_refused(levels):
    with pytest.raises(ValueError, match="deeper"):
        decode_table(nested_tables(levels), 0)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0\0\0",
        b"\0\0\0\5",
        b"\xff\xff\xff\xff",
        struct.pack(">I", 1) + b"\1",
        struct.pack(">I", 2) + b"\1a",
        field(b"S", b"\0\0\0\5abc"),
        field(b"x", b"\0\0\0\5abc"),
        field(b"F", b"\0\0\0\5abc"),
        field(b"A", b"\0\0\0\5abc"),
        field(b"I", b"\0\0"),
        field(b"D", b"\0\0"),
        field(b"T", b"\0\0"),
        field(b"t", b""),
        field(b"I", b"\0\0") + b"\0\0",
        field(b"?", b""),
        field(b"\0", b""),
    ],
)
def test_malformed_table_is_a_value_error(raw):
    with pytest.raises(ValueError, match="field"):
        decode_table(raw, 0)


def test_item_that_runs_past_its_array_is_a_value_error():
    with pytest.raises(ValueError, match="array"):
        decode_table(field(b"A", b"\0\0\0\2I\0\0\0\0"), 0)


def test_mutated_tables_raise_nothing_but_value_error():
    chance = random.Random(20261123)
    originals = [encode_table(table) for table in SURVIVORS.values()]
    for _ in range(10_000):
        raw = bytearray(chance.choice(originals))
        for _ in range(chance.randint(1, 4)):
            raw[chance.randrange(len(raw))] = chance.randrange(256)
        del raw[chance.randint(1, len(raw)) :]
        try:
            table, end = decode_table(bytes(raw), 0)
        except ValueError:
            continue
        assert isinstance(table, dict)
        assert end <= len(raw)


CIRCLE: list = []
CIRCLE.append(CIRCLE)
KNOT: dict = {}
KNOT["again"] = [KNOT, KNOT]
BUSH: list = ["leaf"]
for _ in range(60):
    BUSH = [BUSH, BUSH]


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        object(),
        2**63,
        -(2**63) - 1,
        2**70,
        10**5000,
        "\ud800",
        "a\udcff",
        1 + 2j,
        datetime.date(2026, 1, 1),
        datetime.datetime(1969, 12, 31),
        datetime.datetime(1, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=5))),
        math.nan,
        math.inf,
        -math.inf,
        decimal.Decimal("NaN"),
        decimal.Decimal("Infinity"),
        decimal.Decimal(2**31),
        decimal.Decimal("1E+999999"),
        decimal.Decimal("1E-256"),
        decimal.Decimal("1.23456789012345"),
        CIRCLE,
        KNOT,
        BUSH,
        "x" * (MAX_SIZE + 1),
        ["x" * 1000] * 2000,
    ],
    ids=lambda value: type(value).__name__,
)
def test_unencodable_value_is_refused_by_its_key(value):
    with pytest.raises(EncodeError, match=r"header 'nameko\.bad"):
        encode_table({"nameko.good": 1, "nameko.bad": value})


@pytest.mark.parametrize("number", [math.inf, -math.inf], ids=str)
def test_a_float_without_end_is_read_when_another_broker_lets_it_pass(number):
    raw = field(b"d", struct.pack(">d", number))
    assert decode_table(raw, 0)[0] == {"k": number}


def test_error_names_the_whole_path_to_the_value():
    with pytest.raises(EncodeError, match=r"header 'a\.b\[1\]\.c': .* set"):
        encode_table({"a": {"b": [0, {"c": set()}]}})


@pytest.mark.parametrize(
    ("key", "reason"), [(7, "int"), (b"k", "bytes"), ("k" * 256, "256 bytes"), ("\ud800", "UTF-8")]
)
def test_bad_key_is_refused(key, reason):
    with pytest.raises(EncodeError, match=reason):
        encode_table({key: 1})


def test_key_of_255_bytes_is_accepted():
    table = {"ä" * 127 + "x": 1}
    assert decode_table(encode_table(table), 0)[0] == table


def test_nesting_is_encoded_to_the_limit_and_refused_beyond():
    value: list = []
    for _ in range(MAX_DEPTH - 1):
        value = [value]
    assert decode_table(encode_table({"a": value}), 0)[0] == {"a": value}
    with pytest.raises(EncodeError, match="deeper"):
        encode_table({"a": [value]})


def test_short_string_has_its_length_in_front():
    assert encode_shortstr("ä", "it") == b"\2\xc3\xa4"


def test_foreign_bytes_in_a_short_string_go_out_as_they_came():
    assert encode_shortstr("a\udcff", "it") == b"\2a\xff"


@pytest.mark.parametrize(
    ("text", "reason"), [("x" * 256, "it is 256 bytes"), ("\ud800", "it holds"), (b"x", "it must")]
)
def test_bad_short_string_is_refused_by_its_name(text, reason):
    with pytest.raises(EncodeError, match=reason):
        encode_shortstr(text, "it")
