import itertools

import pika.exceptions
import pytest

from threadko.amqp.confirms import ConfirmChannel, Outgoing
from threadko.amqp.entities import Exchange, Queue
from threadko.amqp.message import Properties, encode_properties
from threadko.concurrency.timers import TimerHeap

OURS = Exchange("ours", "topic")


class FakeChannel:
    """Pika's side of a channel: answers what it is asked when told to, in order."""

    def __init__(self, connection, on_open, on_close, prompt):
        self._connection = connection
        self._on_open = on_open
        self._on_close = on_close
        self._prompt = prompt
        self._unanswered = []
        self.is_open = False
        self.is_closing = False
        self.is_closed = False
        self.declared = []

    def answer_all(self):
        while self._unanswered:
            self._unanswered.pop(0)()

    def answer_next(self):
        self._unanswered.pop(0)()

    def confirm_delivery(self, ack_nack_callback, callback):
        self._ask(lambda: callback(None))

    def exchange_declare(self, name, *_, callback, **__):
        # pika raises where a closing channel is used
        assert self.is_open, "the channel is not open"
        self.declared.append(name)
        self._ask(lambda: callback(None))

    def queue_declare(self, name, *, callback, **_):
        assert self.is_open, "the channel is not open"
        self.declared.append(name)
        self._ask(lambda: callback(None))

    def queue_bind(self, name, exchange, *, callback, **_):
        assert self.is_open, "the channel is not open"
        self.declared.append(f"{name} to {exchange}")
        self._ask(lambda: callback(None))

    def close(self):
        assert self.is_open, "the channel is not open"
        self.is_open, self.is_closing = False, True

    def closed_by_broker(self, code=406, text="not like this"):
        self._end(pika.exceptions.ChannelClosedByBroker(code, text))

    def close_ok(self):
        assert self.is_closing
        self._end(pika.exceptions.ChannelClosedByClient(200, "ok"))

    def ask_open(self):
        self._ask(self._open)

    def _ask(self, answer):
        self._unanswered.append(answer)
        if self._prompt:
            self.answer_all()

    def _open(self):
        self.is_open = True
        self._on_open(self)

    def _end(self, reason):
        self.is_open, self.is_closing, self.is_closed = False, False, True
        self._connection.in_callback = True
        self._on_close(self, reason)
        self._connection.in_callback = False
        self._connection.link.run_due()


class FakeConnection:
    blocked = False

    frame_max = 4096

    def __init__(self, link, prompt=True):
        self.link = link
        self.is_open = True
        self.in_callback = False
        self.channels = []
        self.handler = None
        self.prompt = prompt

    @property
    def channel(self):
        return self.channels[-1]

    def open_channel(self, number, handler, *, on_open, on_close):
        # pika forgets the channel of that number when the callback of the old one is over
        assert not self.in_callback, "opened while the old channel is being closed"
        self.handler = handler
        self.channels.append(FakeChannel(self, on_open, on_close, self.prompt))
        self.channel.ask_open()
        return self.channel

    def write(self, frames):
        assert self.channel.is_open, "written on a channel that is not open"


class FakeLink:
    answer_timeout = 60.0

    def __init__(self):
        self.connection = FakeConnection(self)
        self.resets = []
        self._timers = TimerHeap()
        self.call_at = self._timers.add
        self.cancel_timer = self._timers.cancel

    def run_due(self):
        self._timers.run_due(0.0)

    def reset(self, error):
        self.resets.append(error)


class Message(Outgoing):
    """Writes what happens to it into a log that all messages of a test share."""

    def __init__(self, name, log, **options):
        super().__init__(
            exchange="",
            routing_key="",
            header=encode_properties(Properties()),
            body=b"",
            **options,
        )
        self.name = name
        self.log = log
        self.error = None

    def on_written(self):
        self.log.append(("written", self.name))

    def on_confirmed(self):
        self.log.append(("confirmed", self.name))

    def on_returned(self, code, text):
        self.log.append(("returned", self.name))

    def on_failed(self, error):
        self.error = error
        self.log.append(("failed", self.name))


class Desk:
    """A channel on a fake link, and the log of its messages."""

    def __init__(self, prompt=True, **options):
        self.log = []
        self.ready = 0
        self.link = FakeLink()
        self.link.connection.prompt = prompt
        self.channel = ConfirmChannel(self.link, 1, on_ready=self._on_ready, **options)

    def _on_ready(self):
        self.ready += 1

    @property
    def broker(self):
        return self.link.connection.channel

    def open(self):
        self.channel.open(self.link.connection)

    def reconnect(self, error=None):
        self.link.connection = FakeConnection(self.link)
        self.channel.detach(error or OSError("lost"))
        self.open()

    def send(self, *names, **options):
        messages = [Message(name, self.log, **options) for name in names]
        for message in messages:
            self.channel.send(message)
        return messages

    def confirm(self, *tags, accepted=True):
        for tag in tags:
            self.channel.on_confirm(tag, False, accepted)

    def names(self, what):
        return "".join(name for happened, name in self.log if happened == what)


@pytest.fixture
def desk():
    desk = Desk()
    desk.open()
    return desk


def header(**properties):
    return encode_properties(Properties(**properties))


# Confirms


def test_confirms_settle_their_own_messages_in_any_order(desk):
    desk.send("a", "b", "c")
    desk.confirm(2, 3)
    assert desk.names("confirmed") == "bc"
    assert len(desk.channel) == 1
    desk.confirm(1)
    assert desk.names("confirmed") == "bca"
    assert len(desk.channel) == 0


def test_multiple_confirm_settles_all_up_to_its_tag(desk):
    desk.send("a", "b", "c", "d")
    desk.confirm(2)
    desk.channel.on_confirm(3, True, True)
    assert desk.names("confirmed") == "bac"
    assert len(desk.channel) == 1


def test_nack_fails_the_message_alone(desk):
    desk.send("a", "b")
    desk.confirm(1, accepted=False)
    desk.confirm(2)
    assert desk.log[2:] == [("failed", "a"), ("confirmed", "b")]


def test_multiple_nack_fails_all_up_to_its_tag(desk):
    desk.send("a", "b", "c")
    desk.channel.on_confirm(2, True, False)
    assert desk.names("failed") == "ab"


def test_confirm_of_an_unknown_tag_is_ignored_and_counted(desk):
    desk.send("a")
    desk.confirm(7)
    desk.confirm(1, 1)
    assert desk.names("confirmed") == "a"
    assert desk.channel.confirms == 3


def test_confirm_of_a_message_settled_elsewhere_is_not_reported(desk):
    (message,) = desk.send("a")
    desk.channel.forget(message)
    desk.confirm(1)
    assert desk.log == [("written", "a")]
    assert len(desk.channel) == 0


# Returns


def test_returned_message_is_told_before_its_confirm(desk):
    desk.send("a", message_id="id-a", mandatory=True)
    desk.send("b", message_id="id-b", mandatory=True)
    desk.channel.on_return(312, "NO_ROUTE", header(message_id="id-b"), b"")
    desk.confirm(1, 2)
    assert desk.log[2:] == [("returned", "b"), ("confirmed", "a"), ("confirmed", "b")]


@pytest.mark.parametrize(
    "raw",
    [b"", b"\xff\xff", header(), header(message_id="of somebody else")],
    ids=["empty", "garbage", "no id", "unknown id"],
)
def test_return_that_fits_no_message_is_ignored(desk, raw):
    desk.send("a", message_id="id-a", mandatory=True)
    desk.channel.on_return(312, "NO_ROUTE", raw, b"")
    assert desk.names("returned") == ""


def test_return_is_not_taken_for_a_message_that_cannot_come_back(desk):
    desk.send("a", message_id="same")
    desk.send("b", message_id="same", mandatory=True)
    desk.channel.on_return(312, "NO_ROUTE", header(message_id="same"), b"")
    assert desk.names("returned") == "b"


def test_returned_message_settled_elsewhere_is_not_told(desk):
    (message,) = desk.send("a", message_id="id-a", mandatory=True)
    desk.channel.forget(message)
    desk.channel.on_return(312, "NO_ROUTE", header(message_id="id-a"), b"")
    assert desk.names("returned") == ""


# Before the channel stands


def test_messages_wait_in_order_until_confirms_are_on_and_exchanges_declared():
    desk = Desk(prompt=False, declare=[OURS])
    desk.send("a", "b")
    desk.open()
    desk.send("c")
    assert desk.names("written") == ""
    assert desk.ready == 0
    desk.broker.answer_all()
    assert desk.broker.declared == ["ours"]
    assert desk.names("written") == "abc"
    assert desk.ready == 1


def test_message_forgotten_before_it_is_written_is_not_written():
    desk = Desk()
    message, _ = desk.send("a", "b")
    desk.channel.forget(message)
    desk.open()
    assert desk.log == [("written", "b")]


def test_message_settled_by_its_owner_before_it_is_written_is_not_written():
    desk = Desk()
    message, _ = desk.send("a", "b")
    message.settled = True
    desk.open()
    assert desk.log == [("written", "b")]


def test_refused_declaring_is_reported_and_not_repeated():
    refusals = []
    desk = Desk(prompt=False, declare=[OURS], on_refused=refusals.append)
    desk.send("a")
    desk.open()
    desk.broker.closed_by_broker(406, "inequivalent arg")
    assert [error.reply_code for error in refusals] == [406]
    assert len(desk.link.connection.channels) == 1
    assert desk.link.resets == []


def test_refused_declaring_costs_the_connection_where_nobody_asked_to_hear_of_it():
    desk = Desk(prompt=False, declare=[OURS])
    desk.open()
    desk.broker.closed_by_broker(406, "inequivalent arg")
    assert [error.reply_code for error in desk.link.resets] == [406]


# The connection is lost


def test_unconfirmed_messages_are_written_again_before_newer_ones(desk):
    desk.send("a", "b", "c")
    desk.confirm(2)
    desk.link.connection.is_open = False
    desk.link.connection.channel.closed_by_broker()
    desk.send("d")
    desk.reconnect()
    assert desk.names("written") == "abcacd"
    desk.confirm(1, 2, 3)
    assert desk.names("confirmed") == "bacd"


def test_unconfirmed_message_fails_when_it_must_not_be_sent_twice(desk):
    desk.send("a")
    (once,) = desk.send("b", resend=False)
    error = OSError("lost")
    desk.reconnect(error)
    assert once.error is error
    assert desk.names("written") == "aba"


def test_unwritten_message_goes_out_on_the_next_connection_even_if_only_once():
    desk = Desk(prompt=False)
    desk.open()
    desk.send("a", resend=False)
    desk.reconnect()
    assert desk.log == [("written", "a")]


def test_message_settled_elsewhere_is_not_written_again(desk):
    message, _ = desk.send("a", "b")
    desk.channel.forget(message)
    desk.reconnect()
    assert desk.names("written") == "abb"


def test_confirm_of_the_old_connection_does_not_settle_a_message_of_the_new_one(desk):
    desk.send("a", "b")
    desk.confirm(1)
    desk.reconnect()
    desk.confirm(2)  # the tags start again at 1, and there is one message
    assert desk.names("confirmed") == "a"
    assert len(desk.channel) == 1


def test_abandoned_messages_fail_each_with_an_error_of_its_own():
    desk = Desk()
    desk.open()
    unconfirmed = desk.send("a", "b")
    desk.broker.closed_by_broker()  # both are suspects now, and a is on its way again
    waiting = desk.send("c")
    numbers = itertools.count()
    desk.channel.abandon(lambda: RuntimeError(next(numbers)))
    errors = [message.error.args[0] for message in unconfirmed + waiting]
    assert sorted(errors) == [0, 1, 2]
    assert len(desk.channel) == 0


# The broker closes the channel


def test_only_message_is_the_culprit_and_not_written_again(desk):
    (message,) = desk.send("a")
    desk.broker.closed_by_broker(406)
    assert message.error.reply_code == 406
    assert desk.names("written") == "a"
    desk.send("b")
    desk.confirm(1)
    assert desk.names("confirmed") == "b"


def test_suspects_are_written_again_one_at_a_time_and_the_culprit_alone_fails(desk):
    desk.send("a", "b", "c", "d")
    desk.confirm(1)
    desk.broker.closed_by_broker()
    assert desk.names("written") == "abcdb"
    desk.send("e")
    assert desk.names("written") == "abcdb"  # newer ones wait
    desk.confirm(1)
    assert desk.names("written") == "abcdbc"
    desk.broker.closed_by_broker()
    assert desk.names("failed") == "c"
    assert desk.names("written") == "abcdbcd"
    desk.confirm(1)
    assert desk.names("written") == "abcdbcde"
    desk.confirm(2)
    assert desk.names("confirmed") == "abde"
    assert len(desk.channel) == 0


def test_two_culprits_are_both_found(desk):
    desk.send("a", "b", "c")
    desk.broker.closed_by_broker()
    desk.broker.closed_by_broker()
    desk.confirm(1)
    desk.broker.closed_by_broker()
    assert (desk.names("failed"), desk.names("confirmed")) == ("ac", "b")


def test_nacked_suspect_makes_way_for_the_next(desk):
    desk.send("a", "b")
    desk.broker.closed_by_broker()
    desk.confirm(1, accepted=False)
    desk.confirm(2)
    assert (desk.names("failed"), desk.names("confirmed")) == ("a", "b")


def test_suspect_that_nobody_waits_for_is_passed_over(desk):
    messages = desk.send("a", "b", "c")
    desk.broker.closed_by_broker()
    desk.channel.forget(messages[1])
    desk.confirm(1)
    assert desk.names("written") == "abcac"


def test_message_is_not_blamed_for_one_that_nobody_waits_for_any_more(desk):
    culprit, _ = desk.send("a", "b")
    desk.channel.forget(culprit)
    desk.broker.closed_by_broker()
    assert desk.names("failed") == ""
    desk.confirm(1)
    assert desk.names("confirmed") == "b"


def test_suspects_keep_their_order_when_the_connection_is_lost_among_them(desk):
    desk.send("a", "b", "c")
    desk.broker.closed_by_broker()
    desk.send("d")
    desk.reconnect()
    assert desk.names("written") == "abc" + "a" + "abcd"


def test_neighbour_that_must_not_be_sent_twice_fails_when_the_channel_is_closed(desk):
    desk.send("a")
    desk.send("b", resend=False)
    desk.broker.closed_by_broker()
    assert desk.names("failed") == "b"
    desk.confirm(1)
    assert desk.names("written") == "aba"


def test_code_that_concerns_all_fails_all_and_the_channel_can_be_opened_again():
    desk = Desk(concerns_all=[403])
    desk.open()
    desk.send("a", "b")
    desk.broker.closed_by_broker(403, "ACCESS_REFUSED")
    assert desk.names("failed") == "ab"
    assert not desk.channel.is_open
    desk.send("c")
    desk.open()
    desk.confirm(1)
    assert desk.names("confirmed") == "c"


# Exchanges of our own


def test_missing_exchange_of_ours_is_declared_again_and_the_message_repeated_once():
    desk = Desk(declare=[OURS], concerns_all=[404])
    desk.open()
    desk.send("a")
    desk.broker.closed_by_broker(404, "NOT_FOUND")
    assert desk.broker.declared == ["ours"]
    assert desk.names("written") == "aa"
    desk.broker.closed_by_broker(404, "NOT_FOUND")
    assert desk.names("failed") == "a"
    assert desk.names("written") == "aa"


def test_message_refused_for_sure_is_repeated_even_if_it_must_not_be_sent_twice():
    desk = Desk(declare=[OURS])
    desk.open()
    desk.send("a", resend=False)
    desk.broker.closed_by_broker(404, "NOT_FOUND")
    desk.confirm(1)
    assert desk.names("confirmed") == "a"


def test_missing_exchange_that_nobody_declares_fails_all_who_asked_for_it():
    desk = Desk(concerns_all=[404])
    desk.open()
    desk.send("a", "b")
    desk.broker.closed_by_broker(404, "NOT_FOUND")
    assert desk.names("failed") == "ab"


def test_exchange_declared_later_is_declared_when_it_turns_out_to_be_missing():
    desk = Desk(concerns_all=[404])
    desk.open()
    desk.channel.declare([OURS])
    desk.channel.declare([OURS])
    desk.send("a")
    desk.broker.closed_by_broker(404, "NOT_FOUND")
    assert desk.broker.declared == ["ours"]
    desk.confirm(1)
    assert desk.names("confirmed") == "a"


# Draining and closing


def test_drain_waits_for_confirms_and_for_what_is_not_written(desk):
    done = []
    desk.send("a", "b")
    desk.broker.closed_by_broker()
    desk.channel.drain(lambda: done.append(len(desk.channel)))
    desk.confirm(1)
    assert done == []
    desk.confirm(2)
    assert done == [0]
    desk.send("c")
    desk.confirm(3)
    assert done == [0]


def test_drain_is_done_at_once_when_nothing_is_under_way(desk):
    done = []
    desk.channel.drain(lambda: done.append(True))
    assert done == [True]


def test_drain_ends_when_the_last_message_is_forgotten():
    desk, done = Desk(), []
    (message,) = desk.send("a")
    desk.channel.drain(lambda: done.append(True))
    desk.channel.forget(message)
    assert done == [True]


def test_drain_ends_when_the_last_message_is_the_culprit(desk):
    done = []
    desk.send("a")
    desk.channel.drain(lambda: done.append(True))
    desk.broker.closed_by_broker()
    assert done == [True]


def test_drain_ends_when_all_are_refused():
    desk, done = Desk(concerns_all=[403]), []
    desk.open()
    desk.send("a", "b")
    desk.channel.drain(lambda: done.append(True))
    desk.broker.closed_by_broker(403)
    assert done == [True]


def test_close_waits_for_the_answer_of_the_broker(desk):
    done = []
    desk.channel.close(lambda: done.append(True))
    assert done == []
    desk.broker.close_ok()
    assert done == [True]
    assert not desk.channel.is_open


def test_close_is_done_when_the_connection_is_lost_instead(desk):
    done = []
    desk.channel.close(lambda: done.append(True))
    desk.channel.detach(OSError("lost"))
    assert done == [True]


def test_close_of_a_closed_channel_is_done_at_once():
    done = []
    Desk().channel.close(lambda: done.append(True))
    assert done == [True]


def test_close_of_a_channel_that_is_opening_waits_for_the_broker_too():
    # or its number would be given to another channel while the broker still opens this one
    desk, done = Desk(prompt=False, declare=[OURS]), []
    desk.open()
    desk.channel.close(lambda: done.append(True))
    assert done == []
    desk.broker.answer_all()
    desk.broker.close_ok()
    assert done == [True]
    assert desk.broker.declared == []


def test_channel_that_is_closed_while_it_is_prepared_is_not_prepared_further():
    desk, done = Desk(prompt=False, declare=[OURS]), []
    desk.open()
    desk.broker.answer_next()
    desk.channel.close(lambda: done.append(True))
    desk.broker.answer_all()
    assert desk.broker.declared == []
    assert desk.ready == 0
    desk.broker.close_ok()
    assert done == [True]


def test_late_close_of_a_channel_that_was_replaced_is_ignored(desk):
    old = desk.broker
    desk.send("a")
    desk.reconnect()
    old.closed_by_broker()
    assert desk.names("failed") == ""
    assert desk.channel.is_open


def test_channel_closed_by_both_sides_at_once_is_not_opened_again():
    desk, done = Desk(), []
    desk.open()
    desk.send("a", "b")
    desk.link.run_due = lambda: None  # what is due has not run yet
    desk.broker.closed_by_broker()
    desk.channel.close(lambda: done.append(True))
    del desk.link.run_due
    desk.link.run_due()
    assert done == [True]
    assert not desk.channel.is_open


def test_channel_closed_by_the_broker_is_not_opened_twice_when_the_connection_is_lost_too():
    desk = Desk()
    desk.open()
    desk.send("a", "b")
    desk.link.run_due = lambda: None
    desk.broker.closed_by_broker()
    del desk.link.run_due
    desk.reconnect()
    desk.link.run_due()
    assert len(desk.link.connection.channels) == 1
    assert desk.names("written") == "abab"


# Pausing


def test_nothing_is_written_while_paused(desk):
    desk.channel.pause()
    desk.send("a", "b")
    assert desk.names("written") == ""
    desk.channel.resume()
    assert desk.names("written") == "ab"
    desk.send("c")
    assert desk.names("written") == "abc"


def test_resume_before_the_channel_is_open_writes_nothing():
    desk = Desk()
    desk.channel.pause()
    desk.send("a")
    desk.channel.resume()
    assert desk.names("written") == ""
    desk.open()
    assert desk.names("written") == "a"


def test_suspects_wait_while_paused(desk):
    desk.send("a", "b")
    desk.channel.pause()
    desk.broker.closed_by_broker()
    assert desk.names("written") == "ab"
    desk.channel.resume()
    assert desk.names("written") == "aba"
    desk.confirm(1)
    assert desk.names("written") == "abab"


def test_pause_ends_with_the_connection(desk):
    desk.channel.pause()
    desk.send("a")
    desk.reconnect()
    assert desk.names("written") == "a"


# What went with a missing exchange


def test_queue_is_declared_and_bound_anew_when_an_exchange_is_missing():
    queue = Queue("replies", exchange=Exchange("rpc", type="topic"), routing_key="key")
    desk = Desk(restore=queue)
    desk.open()
    assert desk.broker.declared == []
    desk.send("a")
    desk.broker.closed_by_broker(404, "no exchange 'rpc'")
    assert desk.broker.declared == ["rpc", "replies", "replies to rpc"]
    assert desk.names("written") == "aa"
    desk.reconnect()
    assert desk.broker.declared == []


def test_queue_is_not_declared_anew_when_a_message_is_refused():
    queue = Queue("replies", exchange=Exchange("rpc", type="topic"), routing_key="key")
    desk = Desk(restore=queue)
    desk.open()
    desk.send("a")
    desk.broker.closed_by_broker(406, "too large")
    assert desk.broker.declared == []
    assert desk.names("failed") == "a"
