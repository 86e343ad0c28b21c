import asyncio
import concurrent.futures
import gc
import threading
import traceback
import weakref

import pytest

from tests.support.timing import TIMEOUT
from threadko.exceptions import RemoteError, RpcTimeout, UnknownService
from threadko.rpc.calls import PendingCalls, RawReply, RpcCall

REPLY = RawReply(b"header", b"body")


class Desk:
    """Pending calls and the calls made for them, as a link has them."""

    def __init__(self, decode=lambda reply: reply.body.decode()):
        self.pending = PendingCalls()
        self.decode = decode

    def make(self, correlation_id="1"):
        call = RpcCall(
            correlation_id,
            "orders.place",
            decode=self.decode,
            forget=lambda: self.pending.pop(correlation_id) is not None,
        )
        self.pending.add(call)
        return call

    def answer(self, correlation_id="1", outcome=REPLY):
        call = self.pending.pop(correlation_id)
        if call is not None:
            call.resolve(outcome)
        return call is not None


@pytest.fixture
def desk():
    return Desk()


def fail_decoding(reply):
    raise RemoteError("ValueError", "too small")


def test_result_is_what_the_reply_decodes_to(desk):
    call = desk.make()
    desk.answer()
    assert (call.result(), call.exception(), call.done()) == ("body", None, True)


def test_result_can_be_asked_for_again(desk):
    call = desk.make()
    desk.answer()
    assert call.result() == call.result(0)


def test_reply_is_not_decoded_before_somebody_asks():
    decoded = []
    desk = Desk(decoded.append)
    call = desk.make()
    desk.answer()
    assert decoded == []
    call.result()
    assert decoded == [REPLY]


def test_result_raises_when_the_reply_brings_an_error():
    desk = Desk(fail_decoding)
    call = desk.make()
    desk.answer()
    with pytest.raises(RemoteError, match="too small"):
        call.result()
    assert isinstance(call.exception(), RemoteError)


def test_result_raises_the_failure_when_there_is_no_reply(desk):
    call = desk.make()
    desk.answer(outcome=lambda: UnknownService("orders"))
    with pytest.raises(UnknownService):
        call.result()
    assert isinstance(call.exception(), UnknownService)


@pytest.mark.parametrize("decode", [fail_decoding, None], ids=["from reply", "from failure"])
def test_each_who_asks_gets_an_exception_of_its_own(decode):
    desk = Desk(decode)
    call = desk.make()
    desk.answer(outcome=REPLY if decode else lambda: UnknownService("orders"))
    errors = []
    for _ in range(50):
        with pytest.raises((RemoteError, UnknownService)) as caught:
            call.result()
        errors.append(caught.value)
    assert len({id(error) for error in (*errors, call.exception(), call.exception())}) == 52
    lengths = {len(traceback.extract_tb(error.__traceback__)) for error in errors}
    assert len(lengths) == 1


@pytest.mark.parametrize("ask", [RpcCall.result, RpcCall.exception])
def test_wait_times_out_and_the_call_goes_on(desk, ask):
    call = desk.make()
    with pytest.raises(RpcTimeout, match=r"orders\.place") as caught:
        ask(call, 0.01)
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, concurrent.futures.TimeoutError)
    desk.answer()
    assert call.result() == "body"


def test_cancelled_call_is_forgotten_and_says_so(desk):
    call = desk.make()
    assert call.cancel()
    assert call.cancel()
    assert (call.cancelled(), call.done(), len(desk.pending)) == (True, True, 0)
    with pytest.raises(concurrent.futures.CancelledError):
        call.result()
    with pytest.raises(concurrent.futures.CancelledError):
        call.exception()


def test_reply_is_nobody_s_when_the_call_was_cancelled_before(desk):
    desk.make().cancel()
    assert not desk.answer()


def test_cancelling_is_refused_when_the_reply_is_there(desk):
    call = desk.make()
    desk.answer()
    assert not call.cancel()
    assert call.result() == "body"


def test_call_ends_once_when_reply_and_cancelling_meet(desk):
    for number in range(300):
        call = desk.make(str(number))
        barrier = threading.Barrier(2, timeout=TIMEOUT)
        answered = []

        def answer(number=number, barrier=barrier, answered=answered):
            barrier.wait()
            answered.append(desk.answer(str(number)))

        thread = threading.Thread(target=answer)
        thread.start()
        barrier.wait()
        cancelled = call.cancel()
        thread.join(TIMEOUT)
        assert answered == [not cancelled]
        assert call.cancelled() is cancelled
        if not cancelled:
            assert call.result(TIMEOUT) == "body"


def test_call_is_found_once_when_two_answer_it(desk):
    call = desk.make()
    assert [desk.answer(), desk.answer(outcome=lambda: UnknownService("x"))] == [True, False]
    assert call.result() == "body"


def test_wait_and_as_completed_see_calls_end(desk):
    calls = [desk.make(str(number)) for number in range(3)]
    desk.answer("1")
    done, not_done = concurrent.futures.wait(
        calls, TIMEOUT, return_when=concurrent.futures.FIRST_COMPLETED
    )
    assert (done, not_done) == ({calls[1]}, {calls[0], calls[2]})
    calls[0].cancel()
    desk.answer("2")
    assert set(concurrent.futures.as_completed(calls, TIMEOUT)) == set(calls)


def test_call_can_be_awaited(desk):
    async def main(outcome):
        call = desk.make()
        future = asyncio.wrap_future(call)
        threading.Thread(target=desk.answer, kwargs={"outcome": outcome}).start()
        return await asyncio.wait_for(future, TIMEOUT)

    assert asyncio.run(main(REPLY)) == "body"
    with pytest.raises(UnknownService):
        asyncio.run(main(lambda: UnknownService("orders")))


def test_call_is_forgotten_when_its_awaiting_is_cancelled(desk):
    async def main():
        future = asyncio.wrap_future(desk.make())
        future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await future

    asyncio.run(main())
    assert len(desk.pending) == 0


def test_done_callback_runs_on_a_thread_of_its_own(desk):
    call = desk.make()
    seen = concurrent.futures.Future()
    call.add_done_callback(lambda done: seen.set_result((done, threading.current_thread())))
    desk.answer()
    done, thread = seen.result(TIMEOUT)
    assert done is call
    assert thread is not threading.current_thread()
    thread.join(TIMEOUT)


def test_done_callbacks_still_run_when_one_leaves_its_thread(desk):
    call = desk.make()
    ran = threading.Event()

    def leave(_):
        raise SystemExit

    call.add_done_callback(leave)
    call.add_done_callback(lambda _: ran.set())
    desk.answer()
    assert ran.wait(TIMEOUT)


def test_all_calls_fail_when_the_desk_closes(desk):
    calls = [desk.make(str(number)) for number in range(3)]
    desk.pending.close(lambda: UnknownService("x"))
    assert [type(call.exception(0)) for call in calls] == [UnknownService] * 3
    errors = [call.exception(0) for call in calls]
    assert len({id(error) for error in errors}) == 3
    assert len(desk.pending) == 0


def test_no_call_is_taken_once_the_desk_is_closed_for_the_first_reason_given(desk):
    desk.pending.close(lambda: UnknownService("first"))
    desk.pending.close(lambda: UnknownService("second"))
    with pytest.raises(UnknownService, match="first"):
        desk.make()


def test_ids_are_those_of_the_calls_that_wait(desk):
    desk.make("1")
    desk.make("2")
    desk.answer("1")
    assert desk.pending.ids() == ["2"]


def test_call_that_is_answered_is_freed_with_its_request_and_without_the_collector():
    class Holder:
        call = None

    def make():
        holder = Holder()
        holder.call = RpcCall("id", "a.b", decode=len, forget=lambda: holder is None)
        return holder

    holder = make()
    seen = weakref.ref(holder)
    gc.disable()
    try:
        holder.call.resolve(RawReply(b"", b""))
        del holder
        assert seen() is None
    finally:
        gc.enable()


def test_result_may_wait_for_ever_and_not_for_nonsense():
    desk = Desk()
    call = desk.make()
    desk.pending.pop(call.correlation_id).resolve(REPLY)
    assert call.result(float("inf")) == call.result(1e308) == "body"
    with pytest.raises(ValueError, match="NaN"):
        call.result(float("nan"))


def test_calls_to_a_service_are_found_by_its_whole_name(desk):
    desk.make("1")
    desk.make("2")
    assert desk.pending.find_to("orders") == {"1", "2"}
    assert desk.pending.find_to("order") == set()
    desk.answer("1")
    assert desk.pending.find_to("orders") == {"2"}
