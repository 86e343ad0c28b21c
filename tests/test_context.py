"""Ids, and context data as headers."""

import contextvars
import subprocess
import sys
import uuid

import pytest

from tests.support.timing import TIMEOUT
from threadko.context import (
    current_worker,
    decode_headers,
    encode_headers,
    extend_call_id_stack,
    new_call_id,
    new_id,
    take_call_ids_from,
)


def test_a_new_id_is_a_random_uuid_in_its_usual_form() -> None:
    ids = [new_id() for _ in range(200)]
    assert len(set(ids)) == 200
    for text in ids:
        parsed = uuid.UUID(text)
        assert (str(parsed), parsed.version, parsed.variant) == (text, 4, uuid.RFC_4122)


@pytest.mark.parametrize(
    ("context_data", "expected"),
    [
        ({}, {}),
        (None, {}),
        ({"language": "de", "user_id": None}, {"nameko.language": "de"}),
        ({"ratio": 1.5, "off": False}, {"nameko.ratio": 1.5, "nameko.off": False}),
        ({"call_id_stack": ["a", "b"]}, {"nameko.call_id_stack": ["a", "b"]}),
    ],
)
def test_context_data_becomes_prefixed_headers(context_data: object, expected: object) -> None:
    assert encode_headers(context_data) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"nameko.language": "de"}, {"language": "de"}),
        ({"nameko.a.b": 1}, {"a.b": 1}),
        ({"x-death": [], "language": "de", "namekox": 1, "nameko": 2}, {}),
        ({5: 6, b"nameko.a": 1}, {}),
        ({"nameko.call_id_stack": ["a", "b"]}, {"call_id_stack": ["a", "b"]}),
        ({"nameko.call_id_stack": ["a", 5, None, b"c"]}, {"call_id_stack": ["a"]}),
        ({"nameko.call_id_stack": None}, {}),
        ({"nameko.call_id_stack": "abc"}, {}),
        ({"nameko.call_id_stack": {"a": 1}}, {}),
        (None, {}),
        ("nonsense", {}),
        ([("nameko.a", 1)], {}),
    ],
)
def test_headers_become_context_data(headers: object, expected: object) -> None:
    assert decode_headers(headers) == expected


def test_another_prefix_is_used_both_ways() -> None:
    headers = encode_headers({"a": 1}, prefix="other")
    assert headers == {"other.a": 1}
    assert decode_headers(headers, prefix="other") == {"a": 1}
    assert decode_headers(headers) == {}


@pytest.mark.parametrize(
    ("stack", "tracked", "expected"),
    [
        (["a", "b"], 10, ["a", "b", "me"]),
        (["a", "b", "c"], 2, ["b", "c", "me"]),
        (["a", "b"], 0, ["me"]),
        (("a",), 1, ["a", "me"]),
        ([], 10, ["me"]),
        (None, 10, ["me"]),
        ("abc", 10, ["me"]),
        (["a", 5], 10, ["a", "me"]),
    ],
)
def test_the_stack_keeps_the_last_parents_and_the_own_id(
    stack: object, tracked: int, expected: list[str]
) -> None:
    assert extend_call_id_stack(stack, "me", tracked) == expected


def test_the_given_stack_is_left_as_it_was() -> None:
    stack = ["a"]
    extend_call_id_stack(stack, "me", 10)
    assert stack == ["a"]


def test_there_is_no_current_worker_outside_of_workers() -> None:
    assert contextvars.Context().run(current_worker.get) is None


FORK = """
import os
from threadko.context import new_id
def tell():
    os.write(1, f"{new_id()}\\n".encode())  # in one piece, though two processes write
tell()  # so that there is a stock to share
child = os.fork()
tell()
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
"""


def test_ids_differ_between_a_process_and_its_fork() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK], capture_output=True, text=True, timeout=TIMEOUT, check=True
    )
    assert len(set(done.stdout.split())) == 3


def test_call_ids_come_from_elsewhere_while_a_test_wants_it() -> None:
    assert len(new_call_id()) == 36
    take_call_ids_from(iter("abc").__next__)
    try:
        assert [new_call_id(), new_call_id()] == ["a", "b"]
        assert len(new_id()) == 36
    finally:
        take_call_ids_from(None)
    assert len(new_call_id()) == 36
