"""A request, and how often it may be written."""

from typing import Any

import pytest

from threadko.exceptions import PublishFailed, UnknownService
from threadko.rpc.request import Request


class Owner:
    def __init__(self) -> None:
        self.heard: list[Any] = []

    def note_written(self, request: Request) -> None:
        self.heard.append("written")

    def note_confirmed(self, request: Request) -> None:
        self.heard.append("confirmed")

    def fail(self, request: Request, failure: Any) -> None:
        self.heard.append(failure())


def make(resends: int | None = None) -> tuple[Request, Owner]:
    request = Request(
        exchange="x",
        service="shop",
        method="buy",
        header=b"",
        body=b"",
        message_id="1",
        timeout=None,
        resends=resends,
    )
    owner = request.call_link = Owner()
    return request, owner


@pytest.mark.parametrize(
    ("resends", "allowed"),
    [
        (None, [True, True, True, True]),
        (0, [False, False]),
        (1, [True, True, False]),
        (2, [True, True, True, False]),
    ],
)
def test_request_is_written_again_as_often_as_allowed(
    resends: int | None, allowed: list[bool]
) -> None:
    request, _ = make(resends)
    seen = [request.resend]
    for _ in allowed[1:]:
        request.on_written()
        seen.append(request.resend)
    assert seen == allowed


def test_request_tells_what_becomes_of_it() -> None:
    request, owner = make()
    assert (request.routing_key, request.mandatory) == ("shop.buy", True)
    request.on_written()
    request.on_confirmed()
    request.on_returned(312, "NO_ROUTE")
    request.on_failed(ValueError("closed"))
    assert owner.heard[:2] == ["written", "confirmed"]
    assert [type(each) for each in owner.heard[2:]] == [UnknownService, PublishFailed]
    assert "shop.buy: closed" in str(owner.heard[3])
