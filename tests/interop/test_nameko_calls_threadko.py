"""A real nameko client calls a threadko service, and sees what a nameko service would show."""

from typing import Any

import pytest

from tests.interop.conftest import RunningService
from tests.interop.contract import ARGUMENTS
from tests.interop.peer import Peer

pytestmark = pytest.mark.interop


def ask(
    client: Peer,
    service: RunningService,
    method: str,
    *args: Any,
    context: dict[str, Any] | None = None,
    bound: bool = False,
    **kwargs: Any,
) -> dict[str, Any]:
    """Let the nameko process call a method; returns its result or a description of its error."""
    return client.ask(
        service=service.name,
        method=method,
        args=args,
        kwargs=kwargs,
        context=context,
        bound=bound,
    )


@pytest.mark.parametrize(("args", "kwargs"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_arguments_come_back_unchanged_when_nameko_asks_for_their_echo(
    nameko_client: Peer, threadko_service: RunningService, args: list[Any], kwargs: dict[str, Any]
) -> None:
    answer = ask(nameko_client, threadko_service, "echo", *args, **kwargs)

    assert answer == {"result": {"args": args, "kwargs": kwargs}}


@pytest.mark.parametrize("value", [None, False, 0, "", [], {}, 1.5, "☃", [[None], {"a": 1}]])
def test_a_bare_result_reaches_nameko_unchanged_when_the_method_returns_it(
    nameko_client: Peer, threadko_service: RunningService, value: Any
) -> None:
    answer = ask(nameko_client, threadko_service, "result", value)

    assert answer == {"result": value}
    assert type(answer["result"]) is type(value)


def test_the_service_answers_when_nameko_calls_it_through_a_bound_client(
    nameko_client: Peer, threadko_service: RunningService
) -> None:
    assert ask(nameko_client, threadko_service, "one", a=7, bound=True) == {"result": 7}


def test_nameko_raises_its_method_not_found_when_the_method_is_unknown(
    nameko_client: Peer, threadko_service: RunningService
) -> None:
    raised = ask(nameko_client, threadko_service, "absent")["raised"]

    assert raised["class"] == "nameko.exceptions.MethodNotFound"
    assert raised["args"] == ["absent"]


def test_nameko_raises_its_incorrect_signature_when_an_argument_is_missing(
    nameko_client: Peer, threadko_service: RunningService
) -> None:
    raised = ask(nameko_client, threadko_service, "one")["raised"]

    assert raised["class"] == "nameko.exceptions.IncorrectSignature"
    assert len(raised["args"]) == 1
    assert "one() missing 1 required positional argument: 'a'" in raised["args"][0]


def test_nameko_raises_its_incorrect_signature_when_an_argument_is_unknown(
    nameko_client: Peer, threadko_service: RunningService
) -> None:
    raised = ask(nameko_client, threadko_service, "one", a=1, b=2)["raised"]

    assert raised["class"] == "nameko.exceptions.IncorrectSignature"
    assert "one() got an unexpected keyword argument 'b'" in raised["args"][0]


@pytest.mark.parametrize(
    ("args", "value"),
    [(["broken ☃"], "broken ☃"), ([], ""), (["broken", 7], "('broken', 7)")],
    ids=["one argument", "no argument", "two arguments"],
)
def test_nameko_raises_a_remote_error_with_type_and_text_when_the_method_raises(
    nameko_client: Peer, threadko_service: RunningService, args: list[Any], value: str
) -> None:
    raised = ask(nameko_client, threadko_service, "fail", *args)["raised"]

    assert raised["class"] == "nameko.exceptions.RemoteError"
    assert raised["exc_type"] == "ValueError"
    assert raised["value"] == value


def test_context_data_reaches_the_worker_when_nameko_sends_it(
    nameko_client: Peer, threadko_service: RunningService
) -> None:
    context = {"language": "cs", "user_id": 7, "customer": "Ďábel ☃", "auth_token": None}

    seen = ask(nameko_client, threadko_service, "context", context=context)["result"]["data"]

    assert seen["language"] == "cs"
    assert seen["user_id"] == 7
    assert seen["customer"] == "Ďábel ☃"
    assert "auth_token" not in seen  # None is not sent


def test_the_worker_adds_its_own_id_to_the_stack_when_nameko_calls(
    nameko_client: Peer, threadko_service: RunningService
) -> None:
    seen = ask(nameko_client, threadko_service, "context")["result"]

    caller, worker = seen["data"]["call_id_stack"]
    assert caller.startswith("standalone_rpc_client.")
    assert worker == seen["call_id"]
    assert worker.startswith(f"{threadko_service.name}.context.")
