"""One publishing connection for all who publish to a broker."""

import gc
import os
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from tests.support.timing import TIMEOUT
from threadko.amqp.message import Properties
from threadko.amqp.parameters import BrokerParameters
from threadko.amqp.shared import Borrowed, end_links
from threadko.exceptions import ContainerStopped, PublishFailed


@pytest.fixture
def parameters(broker_uri):
    return BrokerParameters.from_uri(broker_uri)


def publish(link, key):
    link.publish(b"x", Properties(), exchange="", routing_key=key, timeout=TIMEOUT)


def link_of(borrowed):
    with borrowed.lent() as link:
        return link


def connections():
    return {each for each in threading.enumerate() if "-publisher-connection-" in each.name}


def expect_end(threads):
    """Wait for threads that a `close()` has ended: on a busy machine it does not wait for long."""
    for each in threads:
        each.join(TIMEOUT)
    assert not [each for each in threads if each.is_alive()]


def test_equal_keys_share_and_others_do_not(parameters):
    first, second, third = (Borrowed(key, parameters) for key in "aab")
    assert link_of(first) is link_of(second)
    assert link_of(third) is not link_of(first)


def test_many_threads_that_ask_at_once_get_one_connection(parameters):
    borrowed = [Borrowed("many", parameters) for _ in range(8)]
    barrier = threading.Barrier(8)
    got = []

    def ask(mine):
        barrier.wait(TIMEOUT)
        got.append(link_of(mine))

    threads = [threading.Thread(target=ask, args=(each,)) for each in borrowed]
    for each in threads:
        each.start()
    for each in threads:
        each.join(TIMEOUT)
    assert len(got) == 8
    assert len(set(map(id, got))) == 1


def test_the_last_to_go_ends_it_and_the_next_begins_anew(parameters, names):
    first, second = Borrowed("last", parameters), Borrowed("last", parameters)
    before = connections()
    link = link_of(first)
    publish(link, names.service("nobody"))
    (thread,) = connections() - before
    del first
    gc.collect()
    publish(link, names.service("nobody"))
    assert thread.is_alive()
    del second
    gc.collect()
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    assert link_of(Borrowed("last", parameters)) is not link


def test_closed_share_ends_the_connection_at_once_though_somebody_remembers_it(parameters, names):
    borrowed = Borrowed("closed", parameters)
    before = connections()
    with borrowed.lent() as link:
        publish(link, names.service("nobody"))
    (thread,) = connections() - before
    borrowed.close()
    expect_end([thread])
    borrowed.close()
    with pytest.raises(RuntimeError, match="the publisher is closed"), borrowed.lent():
        pass


def test_closed_share_leaves_the_connection_to_others(parameters, names):
    closed, other = Borrowed("shared", parameters), Borrowed("shared", parameters)
    before = connections()
    with closed.lent() as link:
        pass
    closed.close()
    closed.close()
    assert link_of(other) is link
    publish(link, names.service("nobody"))
    other.close()
    expect_end(connections() - before)


def test_share_that_is_closed_while_somebody_publishes_ends_after_that(parameters, names):
    borrowed = Borrowed("inside", parameters)
    before = connections()
    inside, closed = threading.Event(), threading.Event()
    failures = []

    def use():
        try:
            with borrowed.lent() as link:
                publish(link, names.service("nobody"))
                inside.set()
                assert closed.wait(TIMEOUT)
                publish(link, names.service("nobody"))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=use) for _ in range(2)]
    for each in threads:
        each.start()
    assert inside.wait(TIMEOUT)
    borrowed.close()
    assert connections() - before
    closed.set()
    for each in threads:
        each.join(TIMEOUT)
    # The second may have come too late to be let in.
    assert [error for error in failures if not isinstance(error, RuntimeError)] == []
    assert len(failures) < 2
    expect_end(connections() - before)


def test_publisher_that_a_finalizer_closes_in_the_midst_of_another_s_work(parameters, names):
    class Owner:
        def __init__(self):
            self.borrowed = Borrowed("finalized", parameters)
            self.itself = self  # for the collector alone

        def __del__(self):
            self.borrowed.close()
            closed.append(None)

    closed = []
    before = connections()
    was = gc.get_threshold()
    try:
        # So that the collector runs at each of the places, the lock being held at some.
        for threshold in range(1, 60):
            Owner()
            gc.set_threshold(threshold)
            borrowed = Borrowed(threshold, parameters)
            with borrowed.lent():
                pass
            gc.set_threshold(*was)
            borrowed.close()
    finally:
        gc.set_threshold(*was)
    gc.collect()
    assert len(closed) == 59
    expect_end(connections() - before)


FORKED = """
import os, sys, threading
from threadko.amqp.parameters import BrokerParameters
from threadko.amqp.shared import Borrowed

borrowed = Borrowed("forked", BrokerParameters.from_uri(sys.argv[1]))
inside, leave = threading.Event(), threading.Event()

def stay():
    with borrowed.lent():
        inside.set()
        leave.wait()

threading.Thread(target=stay, daemon=True).start()
inside.wait()
child = os.fork()
if child == 0:
    try:
        with borrowed.lent():
            [connection] = [each for each in threading.enumerate() if "connection" in each.name]
        borrowed.close()
        connection.join(20)
        assert not connection.is_alive(), threading.enumerate()
    except BaseException as error:
        print(repr(error), flush=True)
        os._exit(1)
    os._exit(0)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
leave.set()
borrowed.close()
sys.exit(code)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork needs a POSIX system")
def test_nobody_is_inside_in_a_forked_child(broker_uri):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED, broker_uri],
        capture_output=True,
        text=True,
        timeout=TIMEOUT * 2,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_refused_connection_is_replaced_at_the_next_use(broker_uri):
    wrong = broker_uri.replace("guest:guest@", "guest:wrong@", 1)
    borrowed = Borrowed("wrong", BrokerParameters.from_uri(wrong))
    before = connections()
    link = link_of(borrowed)
    with pytest.raises(PublishFailed):
        publish(link, "nobody")
    for each in connections() - before:
        each.join(TIMEOUT)
    assert link.has_ended
    # Whoever has it in hand still, as it ended, hears of the refusal as well.
    with pytest.raises(PublishFailed, match="refuse"):
        publish(link, "nobody")
    assert link_of(borrowed) is not link


def test_links_of_a_broker_end_and_later_use_begins_anew(parameters, names):
    elsewhere = replace(parameters, host="127.0.0.2", port=1)  # nobody is there
    cluster = replace(elsewhere, alternatives=(parameters,))
    tls = replace(parameters, port=5671)
    first, node, secure, other = (
        Borrowed(each.uri_redacted + str(each.alternatives), each)
        for each in (parameters, cluster, tls, elsewhere)
    )
    unused = Borrowed("unused", parameters)
    before = connections()
    link = link_of(first)
    publish(link, names.service("nobody"))
    (thread,) = connections() - before
    links = [link_of(each) for each in (node, secure)]
    kept = link_of(other)
    end_links(parameters.host, parameters.virtual_host)
    assert not thread.is_alive()
    with pytest.raises(ContainerStopped):
        publish(link, names.service("nobody"))
    assert link_of(first) is not link
    publish(link_of(first), names.service("nobody"))
    assert link_of(node) is not links[0]
    assert link_of(secure) is not links[1]
    assert link_of(other) is kept
    publish(link_of(unused), names.service("nobody"))


def test_publisher_that_is_forgotten_when_its_link_was_ended_leaves_nothing(parameters, names):
    before = connections()
    borrowed = Borrowed("ended", parameters)
    publish(link_of(borrowed), names.service("nobody"))
    end_links(parameters.host, parameters.virtual_host)
    del borrowed
    gc.collect()
    assert not connections() - before
