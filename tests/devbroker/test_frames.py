"""Bytes to frames, properties and tables."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties, spec
from pika.frame import Header, Method

from threadko.devbroker.frames import (
    FaultError,
    Parser,
    check_properties,
    content_frames,
    decode_method,
    deliver_method,
    find_headers,
    get_ok_method,
    iter_table,
    method_frame,
    parse_publish,
    read_properties,
    return_method,
    splice_header,
)


def properties(**values):
    return Header(1, 0, BasicProperties(**values)).marshal()[19:-1]


def decode(header):
    return BasicProperties().decode(header)


def fault_of(call):
    """The code of the fault that a call ends with; every other exception is one of ours."""
    try:
        call()
    except FaultError as fault:
        return fault.code
    return None


FRAMES = [(1, 0, b"abcd"), (3, 7, b""), (8, 0, b""), (2, 65535, b"x" * 1000)]
STREAM = b"".join(
    struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"
    for kind, channel, payload in FRAMES
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_stream_is_cut_however_it_arrives(cuts):
    parser = Parser(131072)
    edges = [0, *sorted(cuts), len(STREAM)]
    found = []
    for start, end in itertools.pairwise(edges):
        found += parser.feed(STREAM[start:end])
    assert found == FRAMES


@given(st.binary(max_size=2000))
def test_rubbish_is_a_fault_or_not_yet_a_frame(data):
    assert fault_of(lambda: list(Parser(4096).feed(data))) in (None, 501)


def test_frame_beyond_the_limit_is_refused_before_it_has_arrived():
    with pytest.raises(FaultError, match="frame_too_large"):
        list(Parser(4096).feed(struct.pack(">BHI", 3, 1, 4089)))
    assert list(Parser(4096).feed(struct.pack(">BHI", 3, 1, 4088))) == []


@given(st.binary(max_size=200))
def test_any_payload_is_a_method_or_a_fault(payload):
    assert fault_of(lambda: decode_method(payload)) in (None, 501, 503)
    assert fault_of(lambda: parse_publish(payload)) in (None, 501)


def test_publish_is_read_like_the_driver_s():
    method = spec.Basic.Publish(exchange="e", routing_key="ü", mandatory=True)
    payload = method_frame(1, method)[7:-1]
    assert parse_publish(payload) == ("e", "ü", True, False)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            deliver_method(3, b"\x03tag", 77, True, "e", "k"),
            spec.Basic.Deliver("tag", 77, True, "e", "k"),
        ),
        (get_ok_method(3, 77, True, "e", "k", 5), spec.Basic.GetOk(77, True, "e", "k", 5)),
        (return_method(3, 312, "NO_ROUTE", "e", "k"), spec.Basic.Return(312, "NO_ROUTE", "e", "k")),
    ],
)
def test_frames_made_by_hand_are_the_driver_s(ours, theirs):
    assert ours == Method(3, theirs).marshal()


def test_names_that_are_no_text_come_out_as_they_came_in():
    payload = b"\x00\x3c\x00\x28\x00\x00\x01\xff\x01\xfe\x00"
    exchange, key, *_ = parse_publish(payload)
    assert b"\x01\xff\x01\xfe" in return_method(1, 312, "", exchange, key)


@given(st.binary(max_size=5000), st.integers(4096, 8192))
def test_body_is_cut_and_whole_again(body, frame_max):
    frames = list(Parser(frame_max).feed(content_frames(1, b"\0\0", body, frame_max)))
    assert frames[0][2] == struct.pack(">HHQ", 60, 0, len(body)) + b"\0\0"
    assert b"".join(payload for _, _, payload in frames[1:]) == body


FULL = {
    "content_type": "t",
    "headers": {"a": 1, "b": {"c": ["x"]}},
    "priority": 5,
    "expiration": "100",
    "message_id": "m",
    "timestamp": 7,
    "user_id": "guest",
    "cluster_id": "c",
}


def test_properties_are_found_raw():
    found = read_properties(properties(**FULL))
    assert found["expiration"] == b"100"
    assert found["priority"] == b"\x05"
    assert set(found) == set(FULL)


@given(st.binary(max_size=100))
def test_any_header_is_read_or_a_fault(header):
    def read():
        found = read_properties(header)
        list(iter_table(found.get("headers", b"")))
        find_headers(header)

    assert fault_of(read) == fault_of(lambda: check_properties(header))
    assert fault_of(read) in (None, 541)


def test_headers_are_spliced_and_nothing_else_changes():
    header = splice_header(
        properties(**FULL), {"new": [{"x": 1}], "a": "other"}, ("b",), drop_expiration=True
    )
    got = decode(header)
    assert got.headers == {"new": [{"x": 1}], "a": "other"}
    expected = {**FULL, "headers": got.headers, "expiration": None}
    assert got == BasicProperties(**expected)


def test_what_the_driver_cannot_read_survives_a_splice():
    double = b"\x01dd" + struct.pack(">d", 1.5)
    header = struct.pack(">HI", 1 << 13, len(double)) + double
    spliced = splice_header(header, {"x": 1})
    assert double in spliced


def test_table_is_made_where_there_was_none():
    assert decode(splice_header(b"\0\0", {"x": 1})).headers == {"x": 1}


def test_headers_are_found_by_name_and_bad_ones_are_left_out():
    bad = b"\x03badT" + b"\xff" * 8
    good = b"\x04goodI\x00\x00\x00\x05"
    header = struct.pack(">HI", 1 << 13, len(bad + good)) + bad + good
    assert find_headers(header) == {"good": 5}
    assert find_headers(header, "other") == {}
