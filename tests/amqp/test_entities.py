import dataclasses

import kombu
import pytest

from threadko.amqp.entities import (
    Binding,
    Exchange,
    Queue,
    as_binding,
    as_exchange,
    as_queue,
)
from threadko.exceptions import ConfigurationError


def test_exchange_is_direct_and_durable_by_default():
    exchange = Exchange("orders")
    assert (exchange.name, exchange.type, exchange.durable) == ("orders", "direct", True)
    assert not any((exchange.auto_delete, exchange.internal, exchange.passive))


def test_queue_is_durable_and_shared_by_default():
    queue = Queue("orders")
    assert (queue.name, queue.exchange, queue.routing_key, queue.durable) == (
        "orders",
        None,
        "",
        True,
    )
    assert not any((queue.exclusive, queue.auto_delete, queue.no_ack, queue.no_declare))
    assert queue.declare_arguments == {}


def test_entities_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Queue("orders").name = "other"
    with pytest.raises(dataclasses.FrozenInstanceError):
        Exchange("orders").durable = False


def test_equal_entities_have_equal_hashes_when_they_have_arguments():
    first, second = (
        Queue("q", Exchange("x", arguments={"a": [1]}), arguments={"x-expires": 1})
        for _ in range(2)
    )
    assert first == second
    assert len({first, second}) == 1
    assert len({first.exchange, second.exchange}) == 1


def test_entities_with_other_arguments_are_not_equal():
    assert Queue("q", arguments={"a": 1}) != Queue("q", arguments={"a": 2})
    assert Exchange("x", arguments={"a": 1}) != Exchange("x", arguments={"a": 2})


def test_arguments_are_copied():
    arguments = {"a": 1}
    queue = Queue("q", arguments=arguments, binding_arguments=arguments)
    arguments["a"] = 2
    queue.declare_arguments["a"] = 3
    assert queue.arguments == queue.binding_arguments == queue.declare_arguments == {"a": 1}


def test_kombus_word_for_arguments_is_accepted():
    assert Queue("q", queue_arguments={"a": 1}) == Queue("q", arguments={"a": 1})


def test_bindings_are_the_same_in_any_order_and_given_twice():
    topic, headers = Exchange("x", "topic"), Exchange("h", "headers")
    bindings = [
        Binding(topic, "b"),
        Binding(headers, arguments={"kind": "b"}),
        Binding(topic, "a"),
        Binding(headers, arguments={"kind": "a"}),
    ]
    queue = Queue("q", bindings=bindings)
    assert queue.bindings == (bindings[3], bindings[1], bindings[2], bindings[0])
    for same in (reversed(bindings), [*bindings, *bindings]):
        other = Queue("q", bindings=tuple(same))
        assert (other, hash(other), repr(other)) == (queue, hash(queue), repr(queue))
    assert Queue("q", bindings=set(bindings)) == queue
    assert dataclasses.replace(queue, queue_arguments=None) == queue


def test_queues_with_other_bindings_are_not_equal():
    exchange = Exchange("x", "topic")
    queue = Queue("q", bindings=[Binding(exchange, "a", arguments={"a": 1})])
    assert queue != Queue("q")
    assert queue != Queue("q", bindings=[Binding(exchange, "a", arguments={"a": 2})])
    assert queue != Queue("q", bindings=[Binding(exchange, "b", arguments={"a": 1})])
    assert Binding(exchange) != Binding(Exchange("x", "direct"))


def test_bindings_are_none_by_default_and_beside_an_exchange():
    assert Queue("q").bindings == Queue("q", bindings=None).bindings == ()
    exchange = Exchange("x")
    queue = Queue("q", exchange, "a", bindings=[Binding(exchange, "b")])
    assert (queue.exchange, queue.routing_key) == (exchange, "a")
    assert queue.bindings == (Binding(exchange, "b"),)


def test_binding_keeps_a_copy_of_its_arguments_and_cannot_be_changed():
    arguments = {"a": 1}
    binding = Binding(Exchange("x"), arguments=arguments)
    arguments["a"] = 2
    assert binding.arguments == {"a": 1}
    with pytest.raises(dataclasses.FrozenInstanceError):
        binding.routing_key = "other"


def test_limits_become_the_arguments_of_the_declaration():
    queue = Queue(
        "q",
        arguments={"x-expires": 1, "x-other": "kept"},
        expires=300,
        message_ttl=0.25,
        max_length=10,
        max_length_bytes=1000,
        max_priority=5,
    )
    assert queue.declare_arguments == {
        "x-expires": 300_000,
        "x-message-ttl": 250,
        "x-max-length": 10,
        "x-max-length-bytes": 1000,
        "x-max-priority": 5,
        "x-other": "kept",
    }


def test_queue_can_be_replaced_in_part():
    queue = dataclasses.replace(Queue("q", arguments={"a": 1}), name="r", queue_arguments=None)
    assert queue == Queue("r", arguments={"a": 1})


def test_names_of_255_bytes_are_accepted():
    assert Queue("ä" * 127 + "x", Exchange("x" * 255), "k" * 255)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Exchange("x" * 256), "256 bytes"),
        (lambda: Exchange("ä" * 128), "256 bytes"),
        (lambda: Exchange(b"x"), "must be a str, not bytes"),
        (lambda: Exchange(None), "must be a str, not NoneType"),
        (lambda: Exchange("\ud800"), "surrogate"),
        (lambda: Exchange("x", ""), "needs a type"),
        (lambda: Exchange("x", 5), "type of exchange 'x' must be a str"),
        (lambda: Exchange("x", arguments=["a"]), "arguments of exchange 'x'"),
        (lambda: Queue("q" * 256), "256 bytes"),
        (lambda: Queue("q", "x"), "must be an Exchange, not str$"),
        (lambda: Queue("q", [Binding(Exchange("x"))]), "not list, several .* as bindings=$"),
        (lambda: Queue("q", bindings=5), "bindings of queue 'q' must be a list, not int"),
        (lambda: Queue("q", bindings=Binding(Exchange("x"))), "a list, not Binding"),
        (lambda: Queue("q", bindings="ab"), "a list, not str"),
        (lambda: Queue("q", bindings=[Exchange("x")]), "must be of Binding, not Exchange"),
        (lambda: Queue("q", bindings=[[]]), "must be of Binding, not list"),
        (lambda: Binding(None), "exchange of a binding must be an Exchange, not NoneType"),
        (lambda: Binding("x"), "exchange of a binding must be an Exchange, not str"),
        (lambda: Binding(Exchange("")), "needs an exchange with a name"),
        (lambda: Binding(Exchange("x"), 5), "routing key of the binding to exchange 'x' must be"),
        (lambda: Binding(Exchange("x"), "k" * 256), "exchange 'x' is 256 bytes"),
        (lambda: Binding(Exchange("x"), arguments=5), "arguments of the binding to exchange 'x'"),
        (lambda: Binding(Exchange("x"), arguments={"a": 1.5}), "exchange 'x' cannot be sent"),
        (lambda: Queue("q", routing_key="k" * 256), "routing key of queue 'q'.*256"),
        (lambda: Queue("q", routing_key=5), "routing key of queue 'q' must be a str"),
        (lambda: Queue("q", arguments={1: 2}), "arguments of queue 'q'.*str keys"),
        (lambda: Queue("q", arguments={}, queue_arguments={}), "give one"),
        (lambda: Queue("q", binding_arguments=5), "binding_arguments of queue 'q'"),
        (lambda: Queue("q", consumer_arguments=5), "consumer_arguments of queue 'q'"),
        (lambda: Queue("q", expires=0), "expires of queue 'q'.* not 0"),
        (lambda: Queue("q", expires=float("nan")), "expires of queue 'q'.* not nan"),
        (lambda: Queue("q", expires="5"), "expires of queue 'q'.* not '5'"),
        (lambda: Queue("q", message_ttl=-1), "message_ttl of queue 'q'.* not -1"),
        (lambda: Queue("q", message_ttl=4294968), "message_ttl of queue 'q'"),
        (lambda: Queue("q", max_length=1.5), "max_length of queue 'q'"),
        (lambda: Queue("q", max_length=True), "max_length of queue 'q'"),
        (lambda: Queue("q", max_length_bytes=-1), "max_length_bytes of queue 'q'"),
        (lambda: Queue("q", max_priority=256), "max_priority of queue 'q'"),
    ],
)
def test_what_the_broker_would_refuse_is_a_configuration_error(make, reason):
    with pytest.raises(ConfigurationError, match=reason):
        make()


@pytest.mark.parametrize("value", [1.5, object(), 10**400, {"x": 2.5}, "\udc80"])
def test_arguments_that_the_driver_cannot_send_are_refused_at_once(value) -> None:
    with pytest.raises(ConfigurationError, match="cannot be sent"):
        Queue("q", arguments={"x-a": value})


class Shape:
    """Something with the attributes that it is made with, as kombu's objects have them."""

    def __init__(self, **attributes):
        vars(self).update(attributes)


def kombu_exchange(**changes):
    attributes = {
        "name": "shop.events",
        "type": "topic",
        "durable": True,
        "auto_delete": False,
        "arguments": None,
        "no_declare": None,
        "passive": False,
        "delivery_mode": None,
    }
    return Shape(**{**attributes, **changes})


def kombu_queue(**changes):
    attributes = {
        "name": "evt",
        "exchange": kombu_exchange(),
        "routing_key": "paid",
        "durable": True,
        "exclusive": False,
        "auto_delete": False,
        "no_ack": None,
        "alias": None,
        "bindings": set(),
        "queue_arguments": {"x-queue-type": "quorum"},
        "binding_arguments": None,
        "consumer_arguments": None,
        "no_declare": None,
        "expires": 2.5,
        "message_ttl": None,
        "max_length": 5,
        "max_length_bytes": None,
        "max_priority": None,
    }
    return Shape(**{**attributes, **changes})


def test_objects_of_kombus_shape_are_taken():
    exchange = Exchange("shop.events", "topic")
    assert as_exchange(kombu_exchange()) == exchange
    assert as_queue(kombu_queue()) == Queue(
        "evt",
        exchange,
        "paid",
        arguments={"x-queue-type": "quorum"},
        expires=2.5,
        max_length=5,
    )


def kombu_binding(**changes):
    attributes = {
        "exchange": kombu_exchange(),
        "routing_key": "paid",
        "arguments": None,
        "unbind_arguments": None,
    }
    return Shape(**{**attributes, **changes})


def test_bindings_of_kombus_shape_are_taken():
    exchange = Exchange("shop.events", "topic")
    given = {
        kombu_binding(),
        kombu_binding(routing_key=None, arguments={"a": 1}),
        Binding(exchange, "own"),
    }
    assert as_queue(kombu_queue(exchange=None, routing_key="", bindings=given)).bindings == (
        Binding(exchange, arguments={"a": 1}),
        Binding(exchange, "own"),
        Binding(exchange, "paid"),
    )


def test_exchange_beside_bindings_of_kombus_shape_counts_too():
    found = as_queue(kombu_queue(bindings=[kombu_binding(routing_key="sent")]))
    exchange = Exchange("shop.events", "topic")
    assert (found.exchange, found.routing_key) == (exchange, "paid")
    assert found.bindings == (Binding(exchange, "sent"),)


@pytest.mark.parametrize("bindings", [None, (), set()])
def test_queue_of_kombus_shape_may_have_no_bindings(bindings):
    assert as_queue(kombu_queue(bindings=bindings)).bindings == ()


def test_queues_of_kombu_itself_are_taken_with_each_binding():
    exchange = kombu.Exchange("shop", "topic", durable=False)
    bindings = [kombu.binding(exchange, key, {"n": 1}) for key in ("a.#", "b.#")]
    own = Exchange("shop", "topic", durable=False)
    expected = Queue("q", bindings=[Binding(own, k, arguments={"n": 1}) for k in ("b.#", "a.#")])
    assert as_queue(kombu.Queue("q", bindings)) == expected
    assert as_queue(kombu.Queue("q", bindings=bindings)) == expected


def test_own_objects_are_taken_as_they_are():
    exchange, queue = Exchange("x"), Queue("q")
    binding = Binding(exchange)
    assert as_binding(binding) is binding
    assert as_exchange(exchange) is exchange
    assert as_queue(queue) is queue


@pytest.mark.parametrize("exchange", [None, kombu_exchange(name="")])
def test_queue_without_an_exchange_is_bound_to_none(exchange):
    found = as_queue(kombu_queue(exchange=exchange, routing_key=None))
    assert (found.exchange, found.routing_key) == (None, "")


def test_own_exchange_may_be_in_a_queue_of_kombus():
    assert as_queue(kombu_queue(exchange=Exchange("x"))).exchange == Exchange("x")


@pytest.mark.parametrize(
    ("take", "value", "words"),
    [
        (as_queue, "evt", "a Queue is wanted, and str is none, for it has no"),
        (as_queue, None, "NoneType is none"),
        (as_queue, Queue, "Queue is none"),
        (as_exchange, kombu_queue(), "an Exchange is wanted, and Shape is none"),
        (as_queue, kombu_queue(exchange="shop"), "an Exchange is wanted, and str is none"),
        (as_queue, kombu_queue(bindings={1}), "a Binding is wanted, and int is none, for it has"),
        (as_queue, kombu_queue(bindings=5), "bindings of queue 'evt' must be a list, not int"),
        (as_queue, kombu_queue(bindings=[kombu_binding(exchange=None)]), "NoneType is none"),
        (as_queue, kombu_queue(bindings=[kombu_binding(exchange="x")]), "str is none"),
        (
            as_queue,
            kombu_queue(bindings=[kombu_binding(exchange=kombu_exchange(name=""))]),
            "needs an exchange with a name",
        ),
        (as_queue, kombu_queue(bindings=[kombu_binding(routing_key=5)]), "must be a str, not int"),
        (as_binding, Binding, "Binding is none, for it has no .exchange."),
        (as_binding, kombu_queue(), "Shape is none, for it has no 'arguments'"),
        (as_queue, kombu_queue(name=5), "must be a str, not int"),
        (as_queue, kombu_queue(max_length=-1), "max_length"),
    ],
)
def test_other_objects_are_refused_in_one_line(take, value, words):
    with pytest.raises(ConfigurationError, match=words):
        take(value)
