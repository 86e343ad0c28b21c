import copy

import pytest

from threadko.rpc.client import Client, MethodClient, ServiceClient


class Recorder:
    """Stands where requests are sent: notes them and answers each with its number."""

    def __init__(self):
        self.calls = []

    def __call__(self, service, method, args, kwargs, timeout):
        self.calls.append((service, method, args, kwargs, timeout))
        return Answer(len(self.calls))


class Answer:
    def __init__(self, value):
        self.value = value

    def result(self):
        return self.value


@pytest.fixture
def recorder():
    return Recorder()


def test_call_reaches_the_service_and_method_that_attributes_name(recorder):
    assert Client(recorder).orders.place(1, two=2) == 1
    assert recorder.calls == [("orders", "place", (1,), {"two": 2}, None)]


def test_call_reaches_any_name_when_items_name_it(recorder):
    Client(recorder)["any-service"]["any method"](1)
    ServiceClient(recorder, "any.service")["__len__"]()
    assert [call[:2] for call in recorder.calls] == [
        ("any-service", "any method"),
        ("any.service", "__len__"),
    ]


@pytest.mark.parametrize(
    "name", ["call_async", "result", "start", "stop", "identifier", "service", "timeout", "_start"]
)
def test_attribute_is_a_remote_name_whatever_it_is_called(recorder, name):
    getattr(Client(recorder).orders, name)()
    getattr(Client(recorder), name).place()
    assert [call[:2] for call in recorder.calls] == [("orders", name), (name, "place")]


@pytest.mark.parametrize("make", [Client, lambda start: ServiceClient(start, "orders")])
def test_special_name_is_no_attribute(recorder, make):
    with pytest.raises(AttributeError, match="__array__"):
        make(recorder).__array__  # noqa: B018 - asking is the test


@pytest.mark.parametrize("make", [Client, lambda start: ServiceClient(start, "orders")])
def test_client_can_be_copied(recorder, make):
    assert repr(copy.copy(make(recorder))) == repr(make(recorder))


def test_method_has_no_names_below_it(recorder):
    with pytest.raises(AttributeError):
        Client(recorder).orders.place.more  # noqa: B018 - asking is the test


@pytest.mark.parametrize("make", [Client, lambda start: ServiceClient(start, "orders")])
def test_call_is_refused_when_no_method_is_named(recorder, make):
    with pytest.raises(ValueError, match="method"):
        make(recorder)(1)
    assert recorder.calls == []


def test_call_async_returns_the_call_without_waiting(recorder):
    assert isinstance(Client(recorder).orders.place.call_async(1), Answer)


def test_call_has_the_client_s_timeout_when_the_method_has_none(recorder):
    client = Client(recorder, timeout=5)
    client.orders.place()
    client.orders.place.with_timeout(1)()
    client.orders.place.with_timeout(None).call_async()
    ServiceClient(recorder, "orders", 7).place()
    assert [call[-1] for call in recorder.calls] == [5, 1, None, 7]


def test_repr_names_what_is_reached(recorder):
    client = Client(recorder)
    assert repr(client) == "<Client *.*>"
    assert repr(client.orders) == "<Client orders.*>"
    assert repr(client.orders.place) == "<Client orders.place>"


def test_identifier_names_service_and_method(recorder):
    assert MethodClient(recorder, "orders", "place").identifier == "orders.place"
