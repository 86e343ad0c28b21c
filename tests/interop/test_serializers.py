"""Bodies that are not plain JSON: compressed, yaml and pickle, both ways."""

from collections.abc import Iterator

import pytest

from tests.conftest import Names
from tests.interop.conftest import Pair
from tests.interop.contract import ARGUMENTS
from tests.interop.sides import THREADKO, CallError, Framework, Service, World
from tests.rpc.raw import RawService
from tests.support.amqp import RawMessage

pytestmark = pytest.mark.interop

#: What yaml and pickle carry as JSON does, among the arguments of the contract.
PLAIN = ["nothing", "none", "unicode", "numbers", "floats", "nested", "lookalikes", "long"]

#: Names of compressions, and the content type that says so on the wire.
COMPRESSIONS = {"gzip": "application/x-gzip", "bzip2": "application/x-bz2"}

CONTENT_TYPES = {"yaml": "application/x-yaml", "pickle": "application/x-python-serialize"}


@pytest.fixture(params=["yaml", "pickle"], scope="module")
def serializer(request: pytest.FixtureRequest) -> str:
    """A serializer that is not the default one."""
    name: str = request.param
    return name


@pytest.fixture
def polyglot(
    world: World, frameworks: tuple[Framework, Framework], serializer: str
) -> Iterator[Service]:
    """A service that accepts it beside JSON."""
    with world.run(frameworks[1], config={"ACCEPT": ["json", serializer]}) as service:
        yield service


def test_arguments_come_back_unchanged_when_the_caller_uses_another_serializer(
    world: World, frameworks: tuple[Framework, Framework], polyglot: Service, serializer: str
) -> None:
    caller, config = world.caller(frameworks[0]), {"serializer": serializer}
    sent = [ARGUMENTS[name] for name in PLAIN]

    caller.begin(polyglot.name, "echo", sent, config=config)

    assert caller.end() == [{"args": args, "kwargs": kwargs} for args, kwargs in sent]


def test_errors_and_json_pass_too_when_a_service_accepts_two_serializers(
    world: World, frameworks: tuple[Framework, Framework], polyglot: Service, serializer: str
) -> None:
    caller = world.caller(frameworks[0])

    with pytest.raises(CallError) as caught:
        caller.call(polyglot.name, "absent", config={"serializer": serializer})

    assert caught.value.path == caller.error("MethodNotFound")
    assert caller.call(polyglot.name, "one", [7]) == 7


def test_a_request_says_what_it_is_written_in_when_the_caller_uses_another_serializer(
    world: World, framework: Framework, names: Names, serializer: str
) -> None:
    caller, name = world.caller(framework), names.service("interop")
    # JSON is accepted for the reply, so that the test can write it.
    config = {"serializer": serializer, "ACCEPT": [serializer, "json"]}
    with RawService(world.uri, "nameko-rpc", name) as service:
        caller.begin(name, "method", [((1,), {})], config=config)
        request = service.take()
        service.reply(request, "done")

        assert caller.end() == ["done"]

    assert request.properties.content_type == CONTENT_TYPES[serializer]


def test_malformed_request_is_the_answer_when_threadko_does_not_accept_the_serializer(
    world: World, nameko: Framework
) -> None:
    # A nameko service would leave its caller waiting.
    pair = Pair(world.caller(nameko), world.service(THREADKO))
    config = {"serializer": "yaml", "ACCEPT": ["yaml", "json"]}

    with pytest.raises(CallError) as caught:
        pair.caller.call(pair.service.name, "one", [1], config=config)

    assert caught.value.path == "nameko.exceptions.MalformedRequest"


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_arguments_come_back_unchanged_when_the_request_is_compressed(
    world: World, frameworks: tuple[Framework, Framework], names: Names, compression: str
) -> None:
    calling, called = frameworks
    args, kwargs = ARGUMENTS["long"]
    target, absent = world.service(called).name, names.service("interop")
    with world.run(calling, options={"compression": compression}) as middle:
        echo = world.caller(THREADKO).call(middle.name, "forward", [target, "echo", args, kwargs])
        request = captured(world, middle, absent)

    assert echo == {"args": args, "kwargs": kwargs}
    assert request.properties.headers["compression"] == COMPRESSIONS[compression]


def test_a_services_options_are_seen_on_the_wire_from_each(
    world: World, framework: Framework, names: Names
) -> None:
    options = {"expiration": 7.5, "priority": 3, "delivery_mode": 1, "headers": {"x-own": "yes"}}
    with world.run(framework, options=options) as middle:
        properties = captured(world, middle, names.service("interop")).properties

    assert properties.expiration == "7500"
    assert (properties.priority, properties.delivery_mode) == (3, 1)
    assert properties.headers["x-own"] == "yes"
    assert properties.headers["nameko.call_id_stack"]


def captured(world: World, middle: Service, name: str) -> RawMessage:
    """Return the request that a service sends to another, which answers at once."""
    with RawService(world.uri, "nameko-rpc", name) as service:
        world.caller(THREADKO).begin(middle.name, "forward", [((name, "method", [], {}), {})])
        request = service.take()
        service.reply(request)
        world.caller(THREADKO).end()
    return request
