"""The context of a worker."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from tests.containers.dummies import FakeContainer
from threadko.extensions import Entrypoint, WorkerContext


def make(data: Any = None, **options: Any) -> WorkerContext:
    entrypoint = Entrypoint().bind(FakeContainer(), "method")
    return WorkerContext(FakeContainer(), None, entrypoint, data=data, **options)


def test_call_id_names_service_and_method() -> None:
    first, second = make(), make()
    assert first.call_id.startswith("fake.method.")
    assert first.call_id != second.call_id


def test_arguments_are_empty_when_none_are_given() -> None:
    ctx = make()
    assert (ctx.args, ctx.kwargs) == ((), {})


def test_call_is_its_own_stack_when_nobody_called() -> None:
    ctx = make()
    assert ctx.call_id_stack == [ctx.call_id]
    assert ctx.origin_call_id is None
    assert ctx.immediate_parent_call_id is None


def test_stack_is_trimmed_and_the_origin_kept_when_it_is_long() -> None:
    ctx = make({"call_id_stack": ["a", "b", "c"]})
    assert ctx.call_id_stack == ["b", "c", ctx.call_id]
    assert ctx.origin_call_id == "a"
    assert ctx.immediate_parent_call_id == "c"


@pytest.mark.parametrize("rubbish", [None, "text", 7, {"a": 1}])
def test_stack_begins_anew_when_rubbish_came(rubbish: Any) -> None:
    ctx = make({"call_id_stack": rubbish})
    assert ctx.call_id_stack == [ctx.call_id]
    assert ctx.origin_call_id is None


def test_what_is_no_text_is_left_out_of_the_stack() -> None:
    ctx = make({"call_id_stack": [1, "a", None]})
    assert ctx.call_id_stack == ["a", ctx.call_id]
    assert ctx.origin_call_id == ctx.immediate_parent_call_id == "a"


def test_context_data_is_a_copy_that_carries_the_stack() -> None:
    given = {"language": "en", "call_id_stack": ["a"]}
    ctx = make(given)
    assert ctx.context_data is ctx.data
    assert ctx.data == {"language": "en", "call_id_stack": ["a", ctx.call_id]}
    assert given == {"language": "en", "call_id_stack": ["a"]}


def test_message_facts_are_empty_without_a_message() -> None:
    ctx = make()
    assert (ctx.redelivered, ctx.message_id, dict(ctx.headers)) == (False, None, {})


@pytest.mark.parametrize(("headers", "seen"), [({"x": 1}, {"x": 1}), (None, {})])
def test_message_facts_are_those_of_the_message(headers: Any, seen: Any) -> None:
    properties = SimpleNamespace(message_id="m-1", headers=headers)
    ctx = make(message=SimpleNamespace(redelivered=True, properties=properties))
    assert (ctx.redelivered, ctx.message_id, ctx.headers) == (True, "m-1", seen)


def test_cancelled_is_set_when_the_worker_is_abandoned() -> None:
    ctx = make()
    event = ctx.cancelled
    assert not event.is_set()
    ctx.abandon()
    assert event.is_set()
    assert ctx.cancelled is event


def test_cancelled_is_set_when_it_is_first_asked_for_afterwards() -> None:
    ctx = make()
    ctx.abandon()
    assert ctx.cancelled.is_set()


def test_cancelled_is_one_event_when_many_threads_ask_at_once() -> None:
    ctx = make()
    barrier = threading.Barrier(8)
    events: list[threading.Event] = []

    def ask() -> None:
        barrier.wait()
        events.append(ctx.cancelled)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(events) == 8
    assert len(set(map(id, events))) == 1


def test_repr_names_service_and_method() -> None:
    assert repr(make()).startswith("<WorkerContext fake.method at ")
