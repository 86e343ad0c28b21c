"""Another try."""

import threading
import time

import pytest

from tests.support.timing import TIMEOUT
from threadko.concurrency.threads import start_thread
from threadko.utils.retry import retry


class Fails:
    """Raises a number of times, then returns what it was called with."""

    def __init__(self, times, error=ValueError):
        self.left = times
        self.error = error
        self.moments = []

    def __call__(self, *args, **kwargs):
        self.moments.append(time.monotonic())
        if self.left:
            self.left -= 1
            raise self.error(f"{self.left} left")
        return args, kwargs

    @property
    def calls(self):
        return len(self.moments)

    @property
    def waits(self):
        return [
            later - earlier for earlier, later in zip(self.moments, self.moments[1:], strict=False)
        ]


def test_function_that_returns_is_called_once():
    function = Fails(0)
    assert retry(function)(1, a=2) == ((1,), {"a": 2})
    assert function.calls == 1


@pytest.mark.parametrize("max_attempts", [0, 1, 3])
def test_function_is_tried_again_as_often_as_allowed(max_attempts):
    function = Fails(max_attempts)
    assert retry(function, max_attempts=max_attempts, delay=0)() == ((), {})
    assert function.calls == max_attempts + 1


@pytest.mark.parametrize("max_attempts", [0, 1, 3])
def test_last_exception_is_passed_on(max_attempts):
    function = Fails(10)
    with pytest.raises(ValueError, match=f"^{9 - max_attempts} left$") as caught:
        retry(function, max_attempts=max_attempts, delay=0)()
    assert function.calls == max_attempts + 1
    assert caught.value.__context__ is None


def test_there_need_be_no_limit():
    function = Fails(500)
    retry(function, max_attempts=None, delay=0)()
    assert function.calls == 501


def test_three_further_attempts_are_the_default():
    function = Fails(10)
    with pytest.raises(ValueError, match="left"):
        retry(function, delay=0)()
    assert function.calls == 4


@pytest.mark.parametrize("for_exceptions", [KeyError, (KeyError, OSError), ()])
def test_other_exceptions_are_passed_on_at_once(for_exceptions):
    function = Fails(1)
    with pytest.raises(ValueError, match="left"):
        retry(function, for_exceptions=for_exceptions, delay=0)()
    assert function.calls == 1


@pytest.mark.parametrize("for_exceptions", [ValueError, (KeyError, ValueError), Exception])
def test_given_exceptions_are_tried_again(for_exceptions):
    function = Fails(1)
    retry(function, for_exceptions=for_exceptions, delay=0)()
    assert function.calls == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_process_is_not_tried_again(error):
    function = Fails(1, error)
    with pytest.raises(error):
        retry(function, delay=0)()
    assert function.calls == 1


@pytest.mark.parametrize(
    ("options", "least"),
    [
        ({"delay": 0.02}, [0.02, 0.02, 0.02]),
        ({"delay": 0.01, "backoff": 2}, [0.01, 0.02, 0.04]),
        ({"delay": 0.01, "backoff": 2, "max_delay": 0.02}, [0.01, 0.02, 0.02]),
        ({"delay": 100, "max_delay": 0.01}, [0.01, 0.01, 0.01]),
        ({"delay": 0.04, "backoff": 0.5}, [0.04, 0.02, 0.01]),
    ],
)
def test_delay_begins_as_given_and_grows_by_the_backoff(options, least):
    function = Fails(3)
    retry(function, **options)()
    assert all(wait >= seconds for wait, seconds in zip(function.waits, least, strict=True))
    assert sum(function.waits) < sum(least) + TIMEOUT


def test_each_call_begins_with_the_first_delay_and_all_attempts():
    function = Fails(0)
    wrapped = retry(function, max_attempts=3, delay=0.001, backoff=20)
    for _ in range(3):
        function.left = 3
        wrapped()
    assert function.calls == 12
    # With a delay that were never reset, the third call would wait for a thousand years.
    assert sum(function.waits) < TIMEOUT


def test_calls_in_many_threads_do_not_disturb_one_another():
    begin = threading.Barrier(8)
    done = []

    @retry(max_attempts=2, delay=0.001, backoff=2)
    def function(state):
        state.append(1)
        if len(state) < 3:
            raise ValueError("again")

    def run():
        begin.wait(TIMEOUT)
        state = []
        function(state)
        done.append(len(state))

    threads = [start_thread(run, f"retry-{n}") for n in range(8)]
    for thread in threads:
        thread.join(TIMEOUT)
    assert done == [3] * 8


def test_methods_are_tried_again_and_keep_their_names():
    class Service:
        def __init__(self):
            self.calls = 0

        @retry(delay=0)
        def method(self, value):
            """What it does."""
            self.calls += 1
            if self.calls < 3:
                raise ValueError("again")
            return value

        @retry
        def other(self):
            return self

    service = Service()
    assert service.method(5) == 5
    assert service.calls == 3
    assert service.other() is service
    assert Service.method.__name__ == "method"
    assert Service.method.__doc__ == "What it does."


@pytest.mark.parametrize("name", ["max_attempts", "delay", "backoff", "max_delay"])
@pytest.mark.parametrize("value", [-1, float("nan")])
def test_number_below_0_is_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be 0 or more, not "):
        retry(**{name: value})
