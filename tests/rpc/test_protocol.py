from decimal import Decimal

import pytest

from threadko.exceptions import MalformedRequest, MethodNotFound, RemoteError
from threadko.rpc.protocol import (
    parse_reply,
    parse_request,
    reply_body,
    reply_queue,
    request_body,
    request_queue,
    rpc_exchange,
)


def test_exchange_is_the_one_that_nameko_declares():
    exchange = rpc_exchange("nameko-rpc")
    assert (exchange.name, exchange.type, exchange.durable) == ("nameko-rpc", "topic", True)
    assert not exchange.auto_delete


def test_request_queue_is_the_one_that_nameko_declares():
    queue = request_queue("orders", rpc_exchange("nameko-rpc"))
    assert (queue.name, queue.routing_key) == ("rpc-orders", "orders.*")
    assert (queue.durable, queue.exclusive, queue.auto_delete) == (True, False, False)
    assert not queue.declare_arguments


def test_request_queue_has_arguments_when_some_are_configured():
    queue = request_queue("orders", rpc_exchange("x"), {"x-queue-type": "quorum"})
    assert queue.declare_arguments == {"x-queue-type": "quorum"}


def test_reply_queue_is_the_one_that_nameko_declares():
    queue = reply_queue("orders", "1-2-3", rpc_exchange("nameko-rpc"))
    assert (queue.name, queue.routing_key) == ("rpc.reply-orders-1-2-3", "1-2-3")
    assert (queue.durable, queue.exclusive, queue.auto_delete) == (True, False, False)
    assert queue.declare_arguments == {"x-expires": 300_000}


def test_arguments_are_found_in_the_body_that_a_caller_makes():
    assert parse_request(request_body((1, 2), {"a": 3})) == ([1, 2], {"a": 3})


def test_keys_that_are_not_known_are_ignored_in_a_request():
    assert parse_request({"args": [], "kwargs": {}, "more": 1}) == ([], {})


@pytest.mark.parametrize(
    "body",
    [
        None,
        5,
        "text",
        b"bytes",
        [],
        [1],
        {},
        {"args": []},
        {"kwargs": {}},
        Decimal(1),
        {"args": None, "kwargs": {}},
        {"args": "text", "kwargs": {}},
        {"args": {"a": 1}, "kwargs": {}},
        {"args": 1, "kwargs": {}},
        {"args": [], "kwargs": None},
        {"args": [], "kwargs": []},
        {"args": [], "kwargs": {1: 2}},
    ],
    ids=repr,
)
def test_request_is_malformed_when_its_body_has_no_arguments(body):
    with pytest.raises(MalformedRequest):
        parse_request(body)


def test_request_is_malformed_in_nameko_s_words_when_a_key_is_missing():
    with pytest.raises(MalformedRequest, match="Message missing `args` or `kwargs`"):
        parse_request({"args": []})


def test_reply_brings_the_result():
    assert parse_reply(reply_body([1], None)) == [1]


def test_reply_brings_the_error_as_an_instance_when_its_class_is_registered():
    with pytest.raises(MethodNotFound, match="spam"):
        parse_reply(reply_body(None, MethodNotFound("spam")))


def test_reply_names_nameko_s_class_when_the_error_is_one_of_nameko_s():
    error = reply_body(None, MethodNotFound("spam"))["error"]
    assert error["exc_path"] == "nameko.exceptions.MethodNotFound"
    assert error["exc_args"] == ["spam"]


def test_reply_brings_a_remote_error_when_its_class_is_not_registered():
    with pytest.raises(RemoteError, match="ValueError too small") as caught:
        parse_reply(reply_body(None, ValueError("too small")))
    assert (caught.value.exc_type, caught.value.value) == ("ValueError", "too small")


@pytest.mark.parametrize("error", [None, {}, "", 0], ids=repr)
def test_reply_brings_the_result_when_its_error_is_empty(error):
    assert parse_reply({"result": 1, "error": error}) == 1


@pytest.mark.parametrize(
    "body", [None, 5, "text", [], [1], {"error": "text"}, {"error": ["a"]}, {"error": 7}], ids=repr
)
def test_reply_raises_a_remote_error_when_it_is_not_of_the_right_shape(body):
    with pytest.raises(RemoteError):
        parse_reply(body)


def test_result_is_none_when_a_reply_brings_neither_result_nor_error():
    assert parse_reply({}) is None
