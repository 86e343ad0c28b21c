import random
import struct

import pika.frame
import pika.spec
import pytest

from threadko.amqp.message import (
    Delivery,
    Properties,
    ack_frame,
    check_sendable,
    decode_properties,
    encode_properties,
    encode_reply_properties,
    find_correlation_id,
    parse_deliver,
    parse_return,
    publish_frames,
    read_delivery_mode,
    reject_frame,
)
from threadko.exceptions import ConfigurationError, EncodeError

ALL = {
    "content_type": "application/json",
    "content_encoding": "utf-8",
    "headers": {"nameko.call_id_stack": ["a.b.1"], "n": {"x": [1, None]}},
    "delivery_mode": 2,
    "priority": 9,
    "correlation_id": "c-1",
    "reply_to": "r-1",
    "expiration": "1500",
    "message_id": "m-1",
    "timestamp": 1_800_000_000,
    "type": "t",
    "user_id": "guest",
    "app_id": "app",
    "cluster_id": "cluster",
}
REQUEST = {
    name: ALL[name]
    for name in ("content_type", "content_encoding", "headers", "delivery_mode", "correlation_id")
}
CASES = [{}, ALL, REQUEST, {"headers": {}}, {"priority": 0}, *({name: ALL[name]} for name in ALL)]


def encode_with_pika(values):
    return b"".join(pika.spec.BasicProperties(**values).encode())


@pytest.mark.parametrize("values", CASES, ids="-".join)
def test_properties_survive_encoding_and_decoding(values):
    properties = Properties(**values)
    assert decode_properties(encode_properties(properties)) == properties


@pytest.mark.parametrize("values", CASES, ids="-".join)
def test_pika_reads_properties_that_were_encoded(values):
    read = pika.spec.BasicProperties().decode(encode_properties(Properties(**values)))
    assert read == pika.spec.BasicProperties(**values)


@pytest.mark.parametrize("values", CASES, ids="-".join)
def test_properties_that_pika_encoded_are_read(values):
    assert decode_properties(encode_with_pika(values)) == Properties(**values)


@pytest.mark.parametrize("values", CASES, ids="-".join)
def test_properties_are_read_as_a_dict_of_those_that_there_are(values):
    properties = Properties(**values)
    as_kombu = {name.replace("headers", "application_headers"): values[name] for name in values}
    assert dict(properties) == as_kombu
    copied = properties.copy()
    assert copied == {name: as_kombu[name] for name in as_kombu if name != "expiration"}
    copied.clear()
    assert dict(properties) == as_kombu
    assert {name: properties.get(name, "none") for name in ALL} == {
        name: values.get(name, "none") for name in ALL
    }
    assert [name for name in ALL if name in properties] == list(values)
    assert list(properties) == list(as_kombu)


def test_headers_have_kombu_s_name_as_well():
    properties = Properties(headers={"a": 1}, priority=3)
    assert properties["application_headers"] is properties["headers"] is properties.headers
    copied = properties.copy()
    assert copied.pop("application_headers") == {"a": 1}
    assert copied == {"priority": 3}
    assert properties.headers == {"a": 1}


@pytest.mark.parametrize("name", ["reply_to", "get", "__class__", "application_headers", 0])
def test_property_that_is_not_there_is_a_key_error(name):
    properties = Properties(correlation_id="c-1")
    assert name not in properties
    assert properties.get(name) is None
    with pytest.raises(KeyError) as caught:
        properties[name]
    assert caught.value.args == (name,)


def test_float_in_headers_survives():
    header = encode_properties(Properties(headers={"nameko.ratio": 1.5}))
    assert decode_properties(header).headers == {"nameko.ratio": 1.5}


def test_correlation_id_that_is_no_utf8_is_echoed_exactly():
    raw = b"\x04\x00\x03a\xff\xfe"
    assert encode_properties(decode_properties(raw)) == raw


@pytest.mark.parametrize("values", CASES, ids="-".join)
def test_correlation_id_is_found_without_decoding_the_rest(values):
    header = encode_properties(Properties(**values))
    assert find_correlation_id(header) == values.get("correlation_id")


def test_correlation_id_is_found_behind_headers_that_cannot_be_decoded():
    header = b"\x24\x00" + b"\0\0\0\3???" + b"\2id"
    assert find_correlation_id(header) == "id"


@pytest.mark.parametrize(
    "raw",
    [b"", b"\x04", b"\x04\x00", b"\x04\x00\x05abc", b"\x24\x00\xff\xff\xff\xff\2id", b"\xff\xff"],
)
def test_no_correlation_id_is_found_in_malformed_properties(raw):
    assert find_correlation_id(raw) is None


@pytest.mark.parametrize(("value", "mode"), [(1, 1), (2, 2), ("transient", 1), ("persistent", 2)])
def test_delivery_mode_is_a_number_or_its_word(value, mode):
    assert read_delivery_mode(value) == mode


@pytest.mark.parametrize("value", [0, 3, True, 1.0, "1", "Persistent", "", None, []])
def test_other_delivery_mode_is_an_error_that_names_those_there_are(value):
    with pytest.raises(ConfigurationError, match=r"must be 1 or 'transient', 2 or 'persistent'"):
        read_delivery_mode(value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("content_type", b"bytes"),
        ("correlation_id", 17),
        ("reply_to", "x" * 256),
        ("message_id", "\ud800"),
        ("headers", [("a", 1)]),
        ("headers", {"a": object()}),
        ("delivery_mode", 256),
        ("delivery_mode", "2"),
        ("priority", -1),
        ("expiration", 1500),
        ("expiration", "1.5"),
        ("expiration", "-1"),
        ("expiration", ""),
        ("expiration", "²"),
        ("expiration", "4294967296"),
        ("expiration", "9" * 5000),
        ("timestamp", 1.5),
        ("timestamp", 2**64),
    ],
)
def test_bad_property_is_refused_by_name(name, value):
    with pytest.raises(EncodeError, match=name.removesuffix("s")):
        encode_properties(Properties(**{name: value}))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x80",
        b"\x80\x00",
        b"\x80\x00\x05abc",
        b"\x00\x40\x00\x00",
        b"\x20\x00\x00\x00\x00\x05",
        b"\x10\x00",
        b"\x00\x01\x00\x00",
        b"\x00\x02",
        b"\x00\x00rest",
    ],
)
def test_malformed_properties_are_a_value_error(raw):
    with pytest.raises(ValueError, match=r"propert|string|field"):
        decode_properties(raw)


def test_mutated_properties_raise_nothing_but_value_error():
    chance = random.Random(20261124)
    originals = [encode_properties(Properties(**values)) for values in CASES]
    for _ in range(10_000):
        raw = bytearray(chance.choice(originals))
        for _ in range(chance.randint(1, 4)):
            raw[chance.randrange(len(raw))] = chance.randrange(256)
        del raw[chance.randint(1, len(raw)) :]
        found = find_correlation_id(bytes(raw))
        try:
            properties = decode_properties(bytes(raw))
        except ValueError:
            continue
        assert properties.correlation_id == found


def make_delivery(header):
    return Delivery(3, 7, True, "nameko-rpc", "service.method", header, b"{}")


def test_delivery_decodes_its_properties_once():
    delivery = make_delivery(encode_properties(Properties(**ALL)))
    assert delivery.properties == Properties(**ALL)
    assert delivery.properties is delivery.properties


def test_delivery_with_bad_properties_raises_each_time():
    delivery = make_delivery(b"\x80\x00")
    for _ in range(2):
        with pytest.raises(ValueError, match="cut off"):
            delivery.properties  # noqa: B018 (the look at it)


def test_delivery_says_how_it_came():
    assert make_delivery(b"").info == {
        "delivery_tag": 7,
        "redelivered": True,
        "exchange": "nameko-rpc",
        "routing_key": "service.method",
    }


def test_delivery_shows_no_payload_in_its_repr():
    delivery = make_delivery(b"")
    delivery.body = b"secret"
    assert repr(delivery) == "<Delivery 3/7 'nameko-rpc' 'service.method'>"


def frames_of_pika(channel, exchange, routing_key, mandatory, values, body, frame_max):
    method = pika.spec.Basic.Publish(
        exchange=exchange, routing_key=routing_key, mandatory=mandatory
    )
    frames = [
        pika.frame.Method(channel, method),
        pika.frame.Header(channel, len(body), pika.spec.BasicProperties(**values)),
    ]
    step = frame_max - 8
    frames += [pika.frame.Body(channel, body[at : at + step]) for at in range(0, len(body), step)]
    return b"".join(frame.marshal() for frame in frames)


@pytest.mark.parametrize("mandatory", [True, False])
@pytest.mark.parametrize("size", [0, 1, 4087, 4088, 4089, 8176, 8177, 100_000])
def test_publish_frames_are_those_of_pika(size, mandatory):
    body = bytes(range(256)) * (size // 256 + 1)
    ours = publish_frames(
        2, "exchange", "käse", mandatory, encode_with_pika(ALL), body[:size], 4096
    )
    assert ours == frames_of_pika(2, "exchange", "käse", mandatory, ALL, body[:size], 4096)


@pytest.mark.parametrize("body", [b"", b"x" * 300_000])
def test_body_is_one_frame_when_there_is_no_limit(body):
    ours = publish_frames(1, "", "q", False, encode_with_pika({}), body, 0)
    assert ours == frames_of_pika(1, "", "q", False, {}, body, 1_000_000)


@pytest.mark.parametrize("flag", [True, False])
@pytest.mark.parametrize("tag", [1, 2**63])
def test_settling_frames_are_those_of_pika(tag, flag):
    ack = pika.spec.Basic.Ack(tag, multiple=flag)
    reject = pika.spec.Basic.Reject(tag, requeue=flag)
    assert ack_frame(5, tag, flag) == pika.frame.Method(5, ack).marshal()
    assert reject_frame(5, tag, flag) == pika.frame.Method(5, reject).marshal()


@pytest.mark.parametrize("redelivered", [True, False])
def test_deliver_is_parsed_as_pika_wrote_it(redelivered):
    method = pika.spec.Basic.Deliver("ctag", 2**40, redelivered, "x", "käse.#")
    payload = b"1234" + b"".join(method.encode())
    assert parse_deliver(payload, 4) == (2**40, redelivered, "x", "käse.#")


def test_return_is_parsed_as_pika_wrote_it():
    method = pika.spec.Basic.Return(312, "NO_ROUTE", "nameko-rpc", "a.b")
    payload = b"1234" + b"".join(method.encode())
    assert parse_return(payload, 4) == (312, "NO_ROUTE", "nameko-rpc", "a.b")


@pytest.mark.parametrize(
    ("parse", "method"),
    [
        (parse_deliver, pika.spec.Basic.Deliver("ctag", 1, False, "exchange", "key")),
        (parse_return, pika.spec.Basic.Return(312, "NO_ROUTE", "exchange", "key")),
    ],
)
def test_method_that_is_cut_off_is_a_value_error(parse, method):
    payload = b"".join(method.encode())
    for length in range(len(payload)):
        with pytest.raises(ValueError, match=r"cut off|longer than its frame"):
            parse(payload[:length], 0)


def test_largest_header_and_body_are_sendable():
    check_sendable(b"x" * (4096 - 20), b"x" * 100, 4096, 100, exchange="x", routing_key="k" * 255)
    check_sendable(b"x" * 1_000_000, b"", 0, 100)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"header": b"x" * 4077}, "4077 bytes.*frame_max of 4096.*room for 4076"),
        ({"body": b"x" * 101}, "101 bytes.*MAX_MESSAGE_SIZE allows 100"),
        ({"body": "text"}, "must be bytes, not str"),
        ({"exchange": "x" * 256}, "exchange.* 256 bytes"),
        ({"routing_key": "x" * 256}, "routing key.* 256 bytes"),
    ],
)
def test_unsendable_message_is_refused_with_the_figures(changed, message):
    sent = {"header": b"\0\0", "body": b"", "frame_max": 4096, "max_message_size": 100, **changed}
    with pytest.raises(EncodeError, match=message):
        check_sendable(**sent)


def test_header_payload_of_a_frame_is_what_the_codec_writes():
    header = encode_properties(Properties(**ALL))
    frames = publish_frames(1, "", "q", False, header, b"body", 131072)
    start = frames.index(struct.pack(">BH", 2, 1), 8)
    assert frames[start + 7 + 12 :].startswith(header)


@pytest.mark.parametrize("correlation_id", [None, "", "a" * 36, "käse", "x" * 255])
def test_reply_properties_are_the_usual_ones(correlation_id):
    usual = Properties(
        content_type="application/x-yaml",
        content_encoding="utf-8",
        headers={},
        delivery_mode=2,
        priority=0,
        correlation_id=correlation_id,
    )
    encoded = encode_reply_properties("application/x-yaml", "utf-8", correlation_id)
    assert encoded == encode_properties(usual)


def test_reply_properties_name_what_is_too_long():
    with pytest.raises(EncodeError, match="correlation_id is 256 bytes long"):
        encode_reply_properties("application/json", "utf-8", "x" * 256)
