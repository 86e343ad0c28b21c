"""A threadko client calls a real nameko service, and cannot tell it from one of its own."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.interop.conftest import RunningService
from tests.interop.contract import ARGUMENTS
from tests.support.timing import TIMEOUT
from threadko.exceptions import IncorrectSignature, MethodNotFound, RemoteError
from threadko.standalone.rpc import ClusterRpcClient, ServiceRpcClient

pytestmark = pytest.mark.interop


@pytest.fixture
def service(broker_uri: str, nameko_service: RunningService) -> Iterator[Any]:
    """The nameko service, as a threadko client shows it."""
    with ClusterRpcClient(uri=broker_uri, timeout=TIMEOUT) as client:
        yield client[nameko_service.name]


@pytest.mark.parametrize(("args", "kwargs"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_arguments_come_back_unchanged_when_nameko_echoes_them(
    service: Any, args: list[Any], kwargs: dict[str, Any]
) -> None:
    assert service.echo(*args, **kwargs) == {"args": args, "kwargs": kwargs}


@pytest.mark.parametrize("value", [None, False, 0, "", [], {}, 1.5, "☃", [[None], {"a": 1}]])
def test_a_bare_result_arrives_unchanged_when_nameko_returns_it(service: Any, value: Any) -> None:
    result = service.result(value)

    assert result == value
    assert type(result) is type(value)


def test_nameko_answers_when_it_is_called_through_a_bound_client(
    broker_uri: str, nameko_service: RunningService
) -> None:
    with ServiceRpcClient(nameko_service.name, uri=broker_uri, timeout=TIMEOUT) as client:
        assert client.one(a=7) == 7


def test_each_call_gets_its_own_answer_when_many_wait_for_nameko_at_once(service: Any) -> None:
    calls = [service.result.call_async(number) for number in range(50)]

    assert [call.result(timeout=TIMEOUT) for call in calls] == list(range(50))


def test_method_not_found_is_raised_when_nameko_has_no_such_method(service: Any) -> None:
    with pytest.raises(MethodNotFound) as caught:
        service.absent()

    assert caught.value.args == ("absent",)


def test_incorrect_signature_is_raised_when_nameko_misses_an_argument(service: Any) -> None:
    with pytest.raises(IncorrectSignature, match="missing 1 required positional argument: 'a'"):
        service.one()


def test_incorrect_signature_is_raised_when_nameko_gets_an_unknown_argument(service: Any) -> None:
    with pytest.raises(IncorrectSignature, match="unexpected keyword argument 'b'"):
        service.one(a=1, b=2)


@pytest.mark.parametrize(
    ("args", "value"),
    [(["broken ☃"], "broken ☃"), ([], ""), (["broken", 7], "('broken', 7)")],
    ids=["one argument", "no argument", "two arguments"],
)
def test_a_remote_error_carries_type_and_text_when_the_nameko_method_raises(
    service: Any, args: list[Any], value: str
) -> None:
    with pytest.raises(RemoteError) as caught:
        service.fail(*args)

    assert caught.value.exc_type == "ValueError"
    assert caught.value.value == value


def test_context_data_reaches_the_nameko_worker_when_the_client_carries_it(
    broker_uri: str, nameko_service: RunningService
) -> None:
    context = {"language": "cs", "user_id": 7, "customer": "Ďábel ☃", "auth_token": None}

    with ClusterRpcClient(uri=broker_uri, timeout=TIMEOUT, context_data=context) as client:
        seen = client[nameko_service.name].context()["data"]

    assert seen["language"] == "cs"
    assert seen["user_id"] == 7
    assert seen["customer"] == "Ďábel ☃"
    assert "auth_token" not in seen  # None is not sent


def test_the_nameko_worker_finds_the_callers_id_below_its_own_when_threadko_calls(
    service: Any, nameko_service: RunningService
) -> None:
    seen = service.context()

    caller, worker = seen["data"]["call_id_stack"]
    assert caller.startswith("standalone_rpc_client.")
    assert worker == seen["call_id"]
    assert worker.startswith(f"{nameko_service.name}.context.")
