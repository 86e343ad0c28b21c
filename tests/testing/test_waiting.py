"""Waiting for results and calls."""

import threading
from unittest.mock import Mock, call

import pytest

from tests.containers.dummies import in_thread
from tests.support.timing import TIMEOUT
from threadko.testing.waiting import WaitResult, WaitTimeout, describe_outcome, wait_for_call


class Echo:
    def upper(self, arg):
        return arg.upper()

    def fail(self):
        raise ValueError("broken")

    @classmethod
    def kind(cls, arg):
        return cls.__name__, arg

    @staticmethod
    def plain(arg):
        return arg


class SubEcho(Echo):
    pass


@pytest.fixture
def echo():
    return Echo()


def make_exc_info(error):
    return type(error), error, error.__traceback__


def test_result_is_not_ready_before_it_is_sent():
    result = WaitResult()
    assert not result.has_result
    with pytest.raises(WaitResult.NotReady):
        result.get()


def test_first_result_is_kept():
    result = WaitResult()
    assert result.send(1)
    assert not result.send(2)
    assert result.has_result
    assert (result.get(), result.get()) == (1, 1)


def test_result_that_is_an_exception_is_raised():
    result, error = WaitResult(), ValueError("broken")
    result.send(None, make_exc_info(error))
    with pytest.raises(ValueError, match="broken") as raised:
        result.get()
    assert raised.value is error


def test_outcome_is_described_in_a_few_words():
    assert describe_outcome([1], None) == "-> [1]"
    described = describe_outcome(None, make_exc_info(ValueError("broken")))
    assert described == "raised ValueError: broken"


def test_block_is_left_when_the_method_was_called(echo):
    started = threading.Event()

    def call_later():
        started.wait(TIMEOUT)
        echo.upper("a")

    later = in_thread(call_later)
    with wait_for_call(echo, "upper", timeout=TIMEOUT) as result:
        assert not result.has_result
        started.set()
    assert result.get() == "A"
    assert later.finish() is None
    assert "upper" not in vars(echo)


def test_callback_says_which_call_is_waited_for(echo):
    callback = Mock(side_effect=[False, True])
    with wait_for_call(echo, "upper", callback) as result:
        echo.upper("a")
        assert not result.has_result
        echo.upper(arg="b")
        echo.upper("c")
    assert result.get() == "B"
    assert callback.call_args_list == [
        call(("a",), {}, "A", None),
        call((), {"arg": "b"}, "B", None),
    ]


def test_calls_of_all_instances_count_when_a_class_is_watched(echo):
    callback = Mock(return_value=True)
    with wait_for_call(Echo, "upper", callback):
        echo.upper("a")
    assert callback.call_args_list == [call((echo, "a"), {}, "A", None)]
    assert Echo().upper("b") == "B"


@pytest.mark.parametrize("cls", [Echo, SubEcho])
@pytest.mark.parametrize(("target", "result"), [("kind", ("CLS", 1)), ("plain", 1)])
def test_methods_without_an_instance_can_be_watched(cls, target, result):
    before = vars(cls).get(target)
    with wait_for_call(cls, target) as called:
        getattr(cls(), target)(1)
    name = cls.__name__
    assert called.get() == (result if target == "plain" else (name, 1))
    assert vars(cls).get(target) is before


def test_call_of_a_mock_is_seen():
    mocked = Mock()
    mocked.method.return_value = 1
    with wait_for_call(mocked, "method") as result:
        assert mocked.method(2) == 1
    assert result.get() == 1
    assert mocked.method.call_args_list == [call(2)]


def test_exception_of_the_method_goes_to_its_caller_and_is_the_result(echo):
    with wait_for_call(echo, "fail") as result:
        with pytest.raises(ValueError, match="broken"):
            echo.fail()
    with pytest.raises(ValueError, match="broken"):
        result.get()


def test_exception_of_the_callback_is_raised_where_one_waits(echo):
    with pytest.raises(KeyError), wait_for_call(echo, "upper", Mock(side_effect=KeyError("own"))):
        assert echo.upper("a") == "A"


def test_exception_of_the_block_is_raised_at_once(echo):
    with pytest.raises(KeyError), wait_for_call(echo, "upper", timeout=None):
        raise KeyError("own")
    assert "upper" not in vars(echo)


def test_timeout_says_that_it_was_not_called_at_all(echo):
    with pytest.raises(WaitTimeout, match=r"upper of .* 0\.01 seconds; it was not called at all"):
        with wait_for_call(echo, "upper", timeout=0.01):
            pass


def test_timeout_says_how_it_was_called_instead(echo):
    def call_otherwise():
        with wait_for_call(echo, "upper", lambda *_: False, timeout=0.01):
            echo.upper("a")
            echo.upper(arg="b")

    with pytest.raises(WaitTimeout) as raised:
        call_otherwise()
    assert "; upper('a') -> 'A'; upper(arg='b') -> 'B'" in str(raised.value)
    assert isinstance(raised.value, TimeoutError)


def test_original_comes_back_in_whatever_order_they_leave(echo):
    waits = [wait_for_call(echo, "upper") for _ in range(3)]
    results = [wait.__enter__() for wait in waits]
    echo.upper("a")
    for wait in waits:  # the first in leaves first
        assert vars(echo)
        wait.__exit__(None, None, None)
    assert not vars(echo)
    assert [result.get() for result in results] == ["A", "A", "A"]


def test_original_comes_back_when_many_threads_wait(echo):
    def wait_and_call(letter):
        def is_own(args, *_):
            return args == (letter,)

        with wait_for_call(echo, "upper", is_own, timeout=TIMEOUT) as result:
            echo.upper(letter)
        results[letter] = result.get()

    results = {}
    threads = [threading.Thread(target=wait_and_call, args=(each,)) for each in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert results == {each: each.upper() for each in "abcdefgh"}
    assert not vars(echo)
