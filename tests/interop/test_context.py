"""Context data and the stack of call ids, over as many hops as there are, whoever takes part."""

from datetime import date, datetime, timezone
from decimal import Decimal
from typing import Any

import pytest

from tests.interop.conftest import Pair
from tests.interop.contract import CONTEXT
from tests.interop.sides import THREADKO, CallError, Framework, World, new_name
from tests.rpc.raw import RawCaller

pytestmark = pytest.mark.interop

#: How each framework's standalone clients sign.
SIGNATURES = {
    "threadko": "standalone_rpc_client.",
    "nameko2": "standalone_rpc_proxy.call.",
    "nameko3": "standalone_rpc_client.",
}

_PARENTS_TRACKED = 10  # by default, in all of them


def without_stack(data: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key != "call_id_stack"}


@pytest.mark.parametrize(("key", "value"), CONTEXT.items(), ids=CONTEXT)
def test_context_data_reaches_the_worker_with_its_type_when_the_caller_sends_it(
    pair: Pair, key: str, value: Any
) -> None:
    seen = pair.caller.call(pair.service.name, "context", context={key: value})["data"]

    assert repr(without_stack(seen)) == repr({key: value})


def test_none_is_left_out_when_the_caller_has_it_in_its_context(pair: Pair) -> None:
    context = {"auth_token": None, "language": "en"}

    seen = pair.caller.call(pair.service.name, "context", context=context)["data"]

    assert without_stack(seen) == {"language": "en"}


def test_a_moment_arrives_to_the_second_and_in_utc_when_it_is_in_the_context(pair: Pair) -> None:
    # AMQP's timestamps are seconds since 1970. threadko's say that they are in UTC.
    moment = datetime(2024, 2, 29, 1, 2, 3, 4, tzinfo=timezone.utc)
    zone = timezone.utc if pair.service.framework is THREADKO else None

    seen = pair.caller.call(pair.service.name, "context", context={"at": moment})["data"]["at"]

    assert seen == moment.replace(microsecond=0, tzinfo=zone)


@pytest.mark.parametrize("sent", [b"text", b"\xff\x00"], ids=repr)
def test_bytes_arrive_as_bytes_save_text_from_nameko_when_they_are_in_the_context(
    pair: Pair, sent: bytes
) -> None:
    seen = pair.caller.call(pair.service.name, "context", context={"raw": sent})["data"]["raw"]

    is_taken_for_text = sent == b"text" and pair.caller.framework is not THREADKO
    assert seen == (sent.decode() if is_taken_for_text else sent)


@pytest.mark.parametrize(
    "value",
    [date(2024, 2, 29), {1}, 2**63, float("nan"), float("inf"), Decimal("123456789012.5")],
    ids=str,
)
def test_the_caller_is_refused_by_threadko_when_no_header_can_carry_its_context(
    world: World, value: Any
) -> None:
    caller = world.caller(THREADKO)

    with pytest.raises(CallError, match=r"header 'nameko\.bad'") as caught:
        caller.call(new_name(), "anything", context={"bad": value})

    assert caught.value.path == "threadko.exceptions.EncodeError"


def test_the_worker_finds_the_callers_id_below_its_own_when_it_is_called(pair: Pair) -> None:
    seen = pair.caller.call(pair.service.name, "context")

    caller, worker = seen["data"]["call_id_stack"]
    assert caller.startswith(SIGNATURES[pair.caller.framework.name])
    assert worker == seen["call_id"]
    assert worker.startswith(f"{pair.service.name}.context.")


@pytest.mark.parametrize("caller", ["threadko", "nameko"])
@pytest.mark.parametrize("order", ["threadko in the middle", "nameko in the middle"])
def test_each_hop_adds_its_id_and_passes_the_rest_on_when_frameworks_alternate(
    world: World, nameko: Framework, caller: str, order: str
) -> None:
    outer, inner = (nameko, THREADKO) if order.startswith("threadko") else (THREADKO, nameko)
    calling = THREADKO if caller == "threadko" else nameko
    names = [world.service(each).name for each in (outer, inner, outer)]

    hops = world.caller(calling).call(names[0], "relay", [names[1:]], context=CONTEXT)

    assert [hop["package"] for hop in hops] == [outer.package, inner.package, outer.package]
    stack = hops[0]["data"]["call_id_stack"][:1]
    assert stack[0].startswith(SIGNATURES[calling.name])
    for name, hop in zip(names, hops, strict=True):
        assert hop["call_id"].startswith(f"{name}.relay.")
        stack.append(hop["call_id"])
        assert hop["data"]["call_id_stack"] == stack
        assert repr(sorted(without_stack(hop["data"]).items())) == repr(sorted(CONTEXT.items()))
    assert len(set(stack)) == 4


def test_the_oldest_ids_are_dropped_when_more_hops_follow_than_are_tracked(
    world: World, frameworks: tuple[Framework, Framework]
) -> None:
    calling, called = frameworks
    pair = [world.service(each).name for each in (called, calling)]

    hops = world.caller(calling).call(pair[0], "relay", [[pair[1], pair[0]] * 6])

    ids = [hops[0]["data"]["call_id_stack"][0], *(hop["call_id"] for hop in hops)]
    assert len(hops) == 13
    for number, hop in enumerate(hops, 1):
        stack = ids[: number + 1][-_PARENTS_TRACKED - 1 :]
        assert hop["data"]["call_id_stack"] == stack


def test_a_foreign_header_is_passed_on_by_nameko_and_left_out_by_threadko(
    world: World, nameko: Framework
) -> None:
    names = {each: world.service(each).name for each in (THREADKO, nameko)}
    headers = {"nameko.language": "cs", "x-foreign": "yes"}

    def hops_of(first: Framework, second: Framework) -> list[dict[str, Any]]:
        body = {"args": [[names[second]]], "kwargs": {}}
        with RawCaller(world.uri, "nameko-rpc") as raw:
            hops = raw.ask(f"{names[first]}.relay", body, headers=headers)["result"]
        return [without_stack(hop["data"]) for hop in hops]

    whole, rest = {"language": "cs", "x-foreign": "yes"}, {"language": "cs"}
    assert hops_of(nameko, THREADKO) == [whole, whole]
    assert hops_of(THREADKO, nameko) == [rest, rest]
