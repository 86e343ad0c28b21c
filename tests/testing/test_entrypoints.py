"""Firing entrypoints by hand, and waiting for those that others fire."""

import threading
from unittest.mock import Mock

import pytest

from tests.containers.dummies import in_thread, spawn
from tests.support.timing import TIMEOUT
from tests.testing.conftest import Service
from threadko.containers import ServiceContainer
from threadko.exceptions import (
    ContainerStopped,
    ExtensionNotFound,
    LifecycleError,
    WorkerKilled,
)
from threadko.extensions import DependencyProvider, Entrypoint
from threadko.rpc import rpc
from threadko.standalone.rpc import ServiceRpcClient
from threadko.testing.entrypoints import (
    EntrypointWaiterTimeout,
    Once,
    dummy,
    entrypoint_hook,
    entrypoint_waiter,
    once,
)
from threadko.testing.utils import assert_stops_raising
from threadko.testing.waiting import WaitResult


def raise_error(error):
    raise error


def assert_waiting(container):
    assert container.observers.on_death


class TestHook:
    def test_result_is_that_of_the_method(self, container):
        with entrypoint_hook(container, "method") as method:
            assert method(1) == 1
            assert method(do=2) == 2

    def test_result_is_the_object_itself(self, container):
        given = object()
        with entrypoint_hook(container, "method") as method:
            assert method(given) is given

    def test_exception_is_that_of_the_method(self, container):
        error = ValueError("broken")
        with entrypoint_hook(container, "method") as method:
            with pytest.raises(ValueError, match="broken") as raised:
                method(lambda: raise_error(error))
        assert raised.value is error

    def test_worker_is_torn_down_when_it_returns(self, container):
        with entrypoint_hook(container, "method") as method:
            method()
            assert container.dependencies[0].lines == ["result", "teardown"]

    def test_worker_has_a_copy_of_the_context_data(self, container):
        data = {"language": "de", "call_id_stack": ["parent"]}
        contexts = []
        container.observers.add(Mock(on_worker_setup=contexts.append))
        with entrypoint_hook(container, "method", data) as method:
            method()
            method()
        assert data == {"language": "de", "call_id_stack": ["parent"]}
        assert [ctx.context_data["language"] for ctx in contexts] == ["de", "de"]
        assert [ctx.call_id_stack for ctx in contexts] == [["parent", c.call_id] for c in contexts]

    def test_unknown_method_is_an_error_that_lists_those_there_are(self, container):
        with pytest.raises(ExtensionNotFound, match=r"no entrypoint 'nothing'; .* method, other"):
            with entrypoint_hook(container, "nothing"):
                pytest.fail("entered")

    def test_container_that_was_not_started_is_an_error(self, container_factory):
        with entrypoint_hook(container_factory(Service, {}), "method") as method:
            with pytest.raises(LifecycleError, match="has not been started"):
                method()

    def test_two_hooks_at_once_do_not_swap_results(self, container):
        barrier = threading.Barrier(4)
        results = {}

        def fire(number):
            with entrypoint_hook(container, "method", timeout=TIMEOUT) as method:
                for each in range(20):
                    value = (number, each)
                    results[value] = method(
                        lambda value=value: (barrier.wait(TIMEOUT) and 0) or value
                    )

        calls = [in_thread(lambda number=number: fire(number)) for number in range(4)]
        assert [call.finish() for call in calls] == [None] * 4
        assert all(key == value for key, value in results.items())
        assert len(results) == 80

    def test_one_hook_serves_many_threads(self, container):
        results = []
        with entrypoint_hook(container, "method", timeout=TIMEOUT) as method:
            calls = [in_thread(lambda n=n: results.append(method(n))) for n in range(10)]
            assert [call.finish() for call in calls] == [None] * 10
        assert sorted(results) == list(range(10))

    def test_timeout_tells_where_the_worker_is_and_what_else_fired(self, container, gate):
        with entrypoint_hook(container, "method", timeout=TIMEOUT / 8) as method:
            with entrypoint_hook(container, "other") as other:
                slow = in_thread(lambda: method(gate.hold))
                gate.wait_reached()
                other("meanwhile")
            error = slow.finish()
        assert isinstance(error, EntrypointWaiterTimeout)
        text = str(error)
        assert text.startswith(f"Timeout on service.method after {TIMEOUT / 8} seconds; ")
        assert "meanwhile fired: other -> 'meanwhile'" in text
        assert "method still runs, at:" in text
        assert "in hold" in text

    def test_timeout_tells_that_all_workers_are_busy(self, container_factory, gate):
        container = container_factory(Service, {"max_workers": 1})
        container.start()
        spawn(container, gate.hold)
        with entrypoint_hook(container, "other", timeout=0.05) as other:
            with pytest.raises(entrypoint_waiter.Timeout, match="all 1 workers are busy"):
                other()

    def test_worker_that_was_not_waited_for_never_begins(self, container_factory, gate):
        container = container_factory(Service, {"max_workers": 1})
        container.start()
        fired = Mock()
        spawn(container, gate.hold)
        with entrypoint_hook(container, "method", timeout=0.01) as method:
            with pytest.raises(EntrypointWaiterTimeout):
                method(fired)
        gate.released.set()
        container.stop()
        fired.assert_not_called()

    def test_call_that_waits_when_the_block_is_left_is_refused(self, container_factory, gate):
        container = container_factory(Service, {"max_workers": 1})
        container.start()
        spawn(container, gate.hold)
        with entrypoint_hook(container, "other", timeout=None) as other:
            call = in_thread(other)
            assert_stops_raising(lambda: assert_waiting(container), AssertionError, TIMEOUT)
        # Refused in the line, or at its end if it came too late even for that.
        assert isinstance(call.finish(), (RuntimeError, ContainerStopped))
        with pytest.raises(ContainerStopped, match="takes no more work"):
            other()

    def test_container_that_is_killed_meanwhile_raises_its_error_at_once(self, container, gate):
        with entrypoint_hook(container, "method", timeout=None) as method:
            call = in_thread(lambda: method(gate.hold))
            gate.wait_reached()
            container.kill(ValueError("its end"))
            error = call.finish()
        assert isinstance(error, ValueError)
        assert str(error) == "its end"

    def test_container_that_died_before_raises_its_error(self, container):
        container.kill(ValueError("its end"))
        with entrypoint_hook(container, "method", timeout=None) as method:
            with pytest.raises(ValueError, match="its end"):
                method()

    def test_container_that_has_stopped_is_an_error(self, container):
        container.stop()
        with entrypoint_hook(container, "method", timeout=None) as method:
            with pytest.raises(ContainerStopped, match="has stopped"):
                method()

    def test_hook_that_waits_for_a_slot_hears_of_a_stop(self, container_factory, gate):
        container = container_factory(Service, {"max_workers": 1})
        container.start()
        spawn(container, gate.hold)
        with entrypoint_hook(container, "other", timeout=None) as other:
            call = in_thread(other)
            stop = in_thread(container.stop)
            assert container.stopping.wait(TIMEOUT)
            gate.released.set()
            assert stop.finish() is None
            # Either it was let in before the stop, or it is refused; it does not hang.
            error = call.finish()
        assert error is None or isinstance(error, ContainerStopped)

    def test_worker_that_ends_itself_is_no_timeout(self, container):
        with entrypoint_hook(container, "method", timeout=None) as method:
            with pytest.raises(WorkerKilled, match="was ended by WorkerKilled"):
                method(lambda: raise_error(WorkerKilled()))

    def test_failure_to_set_a_worker_up_is_raised(self, container_factory):
        class Broken(DependencyProvider):
            def worker_setup(self, worker_ctx):
                raise ValueError("no database")

        class Service:
            name = "service"
            broken = Broken()

            @dummy
            def method(self):
                pass

        container = container_factory(Service, {})
        container.start()
        with entrypoint_hook(container, "method", timeout=None) as method:
            with pytest.raises(ValueError, match="no database"):
                method()

    def test_worker_that_cannot_be_made_is_an_error(self, container_factory):
        class Own(ServiceContainer):
            def run_worker(self, *args, **kwargs):
                raise ValueError("refused")

        container = Own(Service, config={})
        container.start()
        try:
            with entrypoint_hook(container, "method", timeout=None) as method:
                with pytest.raises(ValueError, match="refused"):
                    method()
        finally:
            container.kill()

    def test_outcome_is_not_settled_by_the_entrypoint(self, container_factory):
        settled = []

        class Settling(Entrypoint):
            def settle(self, worker_ctx, result=None, exc_info=None):
                settled.append(result)

        class Service:
            name = "service"

            @Settling.decorator
            def method(self):
                return 1

        container = container_factory(Service, {})
        container.start()
        with entrypoint_hook(container, "method") as method:
            assert method() == 1
        assert settled == []


class TestWaiter:
    def test_second_wait_is_refused_and_gives_no_stale_result(self, container):
        waiter = entrypoint_waiter(container, "method")
        with waiter:
            spawn(container, lambda: 1)
        with pytest.raises(RuntimeError, match="make another"), waiter:
            pass

    def test_block_is_left_when_the_worker_is_torn_down(self, container, gate):
        left = threading.Event()

        def wait():
            with entrypoint_waiter(container, "method", timeout=None) as result:
                spawn(container, gate.hold)
            left.set()
            assert result.has_result
            assert result.worker_ctx.entrypoint.method_name == "method"
            assert container.dependencies[0].lines == ["result", "teardown"]

        call = in_thread(wait)
        gate.wait_reached()
        assert not left.is_set()
        gate.released.set()
        assert call.finish() is None

    def test_result_is_that_of_the_worker(self, container):
        with entrypoint_waiter(container, "method") as result:
            spawn(container, 5)
        assert result.get() == 5

    def test_result_is_not_ready_before(self, container):
        with entrypoint_waiter(container, "method") as result:
            with pytest.raises(WaitResult.NotReady):
                result.get()
            assert result.worker_ctx is None
            spawn(container)

    def test_exception_is_raised_when_it_is_asked_for(self, container):
        with entrypoint_waiter(container, "method") as result:
            spawn(container, lambda: raise_error(ValueError("broken")))
        with pytest.raises(ValueError, match="broken"):
            result.get()

    def test_other_methods_do_not_count(self, container):
        with entrypoint_waiter(container, "method") as result:
            spawn(container, 1, method="other")
            spawn(container, 2)
        assert result.get() == 2

    def test_first_worker_that_the_callback_accepts_is_waited_for(self, container):
        seen = []

        def callback(worker_ctx, result, exc_info):
            seen.append((worker_ctx.entrypoint.method_name, result, exc_info))
            return result == 3

        with entrypoint_waiter(container, "method", callback=callback) as result:
            with entrypoint_hook(container, "method") as method:
                for number in range(1, 6):
                    method(number)
        assert result.get() == 3
        assert seen == [("method", 1, None), ("method", 2, None), ("method", 3, None)]

    def test_callback_is_called_with_exceptions_too(self, container):
        def callback(worker_ctx, result, exc_info):
            return exc_info is not None and exc_info[0] is ValueError

        with entrypoint_waiter(container, "method", callback=callback) as result:
            spawn(container, 1)
            spawn(container, lambda: raise_error(ValueError("broken")))
        with pytest.raises(ValueError, match="broken"):
            result.get()

    def test_exception_of_the_callback_is_raised_to_the_test(self, container, caplog):
        with pytest.raises(KeyError, match="own"):
            with entrypoint_waiter(container, "method", callback=Mock(side_effect=KeyError("own"))):
                spawn(container)
        assert caplog.records == []
        with entrypoint_hook(container, "method") as method:
            assert method(1) == 1

    def test_exception_of_the_block_is_raised_at_once(self, container):
        with pytest.raises(KeyError), entrypoint_waiter(container, "method", timeout=None):
            raise KeyError

    def test_nested_waiters_all_get_their_result(self, container):
        with entrypoint_waiter(container, "method") as first:
            with entrypoint_waiter(container, "other") as second:
                with entrypoint_waiter(container, "method", callback=lambda *a: a[1] == 3) as third:
                    spawn(container, 1)
                    spawn(container, 2, method="other")
                    spawn(container, 3)
        assert first.get() in (1, 3)
        assert (second.get(), third.get()) == (2, 3)

    def test_unknown_method_is_an_error_that_lists_those_there_are(self, container):
        with pytest.raises(RuntimeError, match="no entrypoint 'nothing'; there are: method, other"):
            with entrypoint_waiter(container, "nothing"):
                pytest.fail("entered")

    def test_service_without_entrypoints_says_so(self, container_factory):
        class Empty:
            name = "empty"

        with pytest.raises(RuntimeError, match="it has none at all"):
            with entrypoint_waiter(container_factory(Empty, {}), "nothing"):
                pytest.fail("entered")

    def test_timeout_says_that_nothing_fired(self, container):
        with pytest.raises(EntrypointWaiterTimeout) as raised:
            with entrypoint_waiter(container, "method", timeout=0.01):
                pass
        expected = "Timeout on service.method after 0.01 seconds; nothing fired meanwhile"
        assert str(raised.value) == expected

    def test_timeout_names_a_worker_that_began_before_its_block(self, container, gate):
        spawn(container, gate.hold)
        gate.wait_reached()
        with pytest.raises(EntrypointWaiterTimeout) as raised:
            with entrypoint_waiter(container, "method", timeout=0.01):
                pass
        text = str(raised.value)
        assert "; nothing fired meanwhile\nand method still runs, at:\n" in text
        assert text.count("still runs") == 1
        assert "in hold" in text

    def test_timeout_names_a_worker_whose_dependencies_hang(self, container, gate, monkeypatch):
        monkeypatch.setattr(container.dependencies[0], "worker_setup", lambda _: gate.hold())

        def wait():
            with entrypoint_waiter(container, "method", timeout=0.01):
                spawn(container)
                gate.wait_reached()

        with pytest.raises(
            EntrypointWaiterTimeout, match=r"nothing fired .*\nand method still runs"
        ):
            wait()

    def test_worker_that_has_just_fired_does_not_run_any_more(self, container, gate):
        def wait():
            with entrypoint_waiter(container, "other", timeout=0.01):
                # Called behind the waiter's, before the container has let the worker go.
                container.observers.add(Mock(on_worker_teardown=lambda *_: gate.hold()))
                spawn(container, 1)
                gate.wait_reached()

        with pytest.raises(EntrypointWaiterTimeout) as raised:
            wait()
        assert str(raised.value).endswith("meanwhile fired: method -> 1")

    def test_timeout_names_what_fired_with_its_results(self, container):
        def wait_for_another():
            with entrypoint_waiter(container, "other", timeout=0.01):
                with entrypoint_hook(container, "method") as method:
                    method("a result")
                    with pytest.raises(ValueError, match="broken"):
                        method(lambda: raise_error(ValueError("broken")))

        with pytest.raises(entrypoint_waiter.Timeout) as raised:
            wait_for_another()
        assert "meanwhile fired: method -> 'a result'; method raised ValueError: broken" in str(
            raised.value
        )

    def test_waiter_can_be_entered_before_the_container_starts(self, container_factory):
        class Service:
            name = "service"

            @once(1)
            def method(self, value):
                return value

        container = container_factory(Service, {})
        with entrypoint_waiter(container, "method") as result:
            container.start()
        assert result.get() == 1

    def test_container_that_is_killed_ends_the_wait_with_its_error(self, container):
        def wait():
            with entrypoint_waiter(container, "method", timeout=None):
                entered.set()

        entered = threading.Event()
        call = in_thread(wait)
        assert entered.wait(TIMEOUT)
        container.kill(ValueError("its end"))
        assert str(call.finish()) == "its end"

    def test_container_that_is_killed_without_an_error_ends_the_wait(self, container):
        with pytest.raises(ContainerStopped, match="was killed, so the worker"):
            with entrypoint_waiter(container, "method", timeout=None):
                container.kill()

    def test_container_that_stops_ends_the_wait_when_the_worker_never_came(self, container):
        with pytest.raises(ContainerStopped, match="has stopped, so the worker"):
            with entrypoint_waiter(container, "method", timeout=None):
                container.stop()

    def test_worker_that_ended_before_the_container_counts(self, container):
        with entrypoint_waiter(container, "method", timeout=None) as result:
            spawn(container, 1)
            container.stop()
        assert result.get() == 1

    def test_container_that_was_dead_before_is_an_error(self, container):
        container.kill(ValueError("its end"))
        with pytest.raises(ValueError, match="its end"):
            with entrypoint_waiter(container, "method", timeout=None):
                pass

    def test_nothing_of_the_container_is_left_changed(self, container):
        before = dict(vars(container))
        with entrypoint_waiter(container, "method"):
            spawn(container)
        assert vars(container) == before
        assert not container.observers.on_worker_result


class TestOnce:
    def test_method_is_fired_once_with_the_arguments(self, container_factory):
        fired = []

        class Service:
            name = "service"

            @once
            def plain(self):
                fired.append("plain")

            @once(1, two=2, expected_exceptions=ValueError, sensitive_arguments="two")
            def method(self, one, two):
                fired.append((one, two))

        container = container_factory(Service, {"max_workers": 1})
        with entrypoint_waiter(container, "plain"), entrypoint_waiter(container, "method"):
            container.start()
        container.stop()
        assert sorted(fired, key=str) == [(1, 2), "plain"]
        assert container.entrypoints[1].expected_exceptions == (ValueError,)
        assert container.entrypoints[1].sensitive_arguments == "two"

    def test_it_never_fires_when_the_container_stops_first(self, container_factory, gate):
        fired = []

        class Service:
            name = "service"

            @once(1)
            @once(2)
            def method(self, number):
                fired.append(number)
                gate.hold()

        container = container_factory(Service, {"max_workers": 1})
        container.start()
        gate.wait_reached()
        stop = in_thread(container.stop)
        assert container.stopping.wait(TIMEOUT)
        gate.released.set()
        assert stop.finish() is None
        assert len(fired) >= 1

    def test_declaration_is_an_entrypoint(self):
        assert issubclass(Once, Entrypoint)


def test_waiter_hears_of_entrypoints_of_the_broker(container_factory, amqp_config, names):
    class Service:
        name = names.service()

        @rpc
        def method(self):
            return 1

    container = container_factory(Service, amqp_config)
    container.start()
    with entrypoint_waiter(container, "method") as result:
        with ServiceRpcClient(Service.name, config=amqp_config, timeout=TIMEOUT) as client:
            assert client.method() == 1
    assert result.get() == 1
