"""`threadko dead`: what has failed for good, in the queues that end with ".dead"."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from threadko.amqp.dead import DeadLetters
from threadko.amqp.delays import (
    ERROR_HEADER,
    FAILURES_HEADER,
    FIRST_DEATH_HEADER,
    REASON_HEADER,
)
from threadko.amqp.message import Delivery
from threadko.amqp.parameters import BrokerParameters
from threadko.cli.options import (
    NoBrokerError,
    UserError,
    configuration_options,
    debug_option,
    load_config,
)
from threadko.configuration.settings import BrokerSettings
from threadko.exceptions import BrokerError, UndeliverableMessage
from threadko.serialization import Serialization
from threadko.utils.redaction import one_line

__all__ = ["dead"]

_CONNECT_SECONDS = 10.0


@click.group()
def dead() -> None:
    """Look at the messages that have failed for good, and bring them back.

    QUEUE is the queue that they failed in, such as evt-shop-sold--warehouse.pack; its dead queue
    is named after it. Messages are counted from 1, the oldest first.

    \b
    Examples:
      threadko dead list evt-shop-sold--warehouse.pack
      threadko dead show evt-shop-sold--warehouse.pack 1
      threadko dead replay evt-shop-sold--warehouse.pack 1 3
      threadko dead purge evt-shop-sold--warehouse.pack
    """


def _limit_option(command: Any) -> Any:
    return click.option(
        "--limit",
        default=1000,
        show_default=True,
        type=click.IntRange(1, 65535),
        help="Look at so many messages at most.",
    )(command)


@dead.command("list")
@click.argument("queue")
@_limit_option
@configuration_options
@debug_option
def list_(queue: str, limit: int, **options: Any) -> None:
    """Show a line for each message."""
    with _open(queue, options) as letters:
        for number, delivery in enumerate(letters.read(limit), start=1):
            headers = _read_headers(delivery)
            parts = [
                one_line(" ".join(str(headers.get(name, "-")).split()))
                for name in (FIRST_DEATH_HEADER, REASON_HEADER, FAILURES_HEADER, ERROR_HEADER)
            ]
            click.echo(" ".join([f"{number:>5}", *parts]))
        _tell_left(letters)


@dead.command()
@click.argument("queue")
@click.argument("number", type=click.IntRange(1))
@_limit_option
@configuration_options
@debug_option
def show(queue: str, number: int, limit: int, **options: Any) -> None:
    """Show a message with its headers."""
    with _open(queue, options) as letters:
        (delivery,) = _choose(letters.read(limit), [number], queue)
        headers = _read_headers(delivery)
        for name in sorted(headers):
            click.echo(_printable(f"{name}: {headers[name]}"))
        click.echo()
        click.echo(_printable(_show_body(delivery)))


@dead.command()
@click.argument("queue")
@click.argument("numbers", nargs=-1, type=click.IntRange(1))
@click.option("--all", "everything", is_flag=True, help="All messages, up to the limit.")
@_limit_option
@configuration_options
@debug_option
def replay(
    queue: str, numbers: Sequence[int], everything: bool, limit: int, **options: Any
) -> None:
    """Put messages back into their queue, to be handled as if they were new."""
    if bool(numbers) is everything:
        raise UserError("say which: the numbers of messages, or --all")
    with _open(queue, options) as letters:
        found = letters.read(limit)
        chosen = found if everything else _choose(found, numbers, queue)
        for delivery in chosen:
            try:
                letters.replay(delivery)
            except ValueError as error:
                number = found.index(delivery) + 1
                raise UserError(f"message {number} cannot be sent again: {error}") from error
            except UndeliverableMessage as error:
                raise UserError(f"{error}: start what consumes from it first") from error
        click.echo(f"{len(chosen)} put back into {queue}")
        if everything:
            _tell_left(letters)


@dead.command()
@click.argument("queue")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_limit_option
@configuration_options
@debug_option
def purge(queue: str, yes: bool, limit: int, **options: Any) -> None:
    """Delete messages for good."""
    with _open(queue, options) as letters:
        found = letters.read(limit)
        if found and not yes:
            _ask(f"Delete {len(found)} messages for good?")
        for delivery in found:
            letters.drop(delivery)
        click.echo(f"{len(found)} deleted")
        _tell_left(letters)


@contextmanager
def _open(queue: str, options: dict[str, Any]) -> Iterator[DeadLetters]:
    values = load_config(options["path"], options["defines"], options["broker"]).values
    settings = BrokerSettings.from_config(values)
    parameters = BrokerParameters.from_uri(
        settings.uri,
        connection_name="threadko dead",
        ssl=settings.ssl,
        login_method=settings.login_method,
    )
    timeout = settings.start_timeout or _CONNECT_SECONDS
    try:
        with DeadLetters(parameters, queue, timeout=timeout) as letters:
            yield letters
    except LookupError as error:
        raise UserError(f"nothing has died: {error}") from error
    except BrokerError as error:
        raise NoBrokerError(str(error)) from error


def _ask(question: str) -> None:
    """Return if the answer is yes; a Ctrl-C ends the command as everywhere."""
    try:
        answer = click.confirm(question)
    except click.Abort as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise
        raise UserError("nobody is there to answer; --yes deletes without asking") from error
    if not answer:
        raise UserError("nothing was deleted")


def _tell_left(letters: DeadLetters) -> None:
    if letters.left:
        click.echo(f"{letters.left} more are there: run it again, or raise --limit", err=True)


def _printable(text: str) -> str:
    """Return what a stranger wrote as a terminal may show it: it obeys some characters."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else repr(char)[1:-1] for char in text
    )


def _choose(found: Sequence[Delivery], numbers: Sequence[int], queue: str) -> list[Delivery]:
    for number in numbers:
        if number > len(found):
            raise UserError(f"there is no message {number}: {queue}.dead has {len(found)}")
    return [found[number - 1] for number in dict.fromkeys(numbers)]


def _read_headers(delivery: Delivery) -> dict[str, Any]:
    try:
        return dict(delivery.properties.headers or {})
    except ValueError as error:
        return {"unreadable": error}


def _show_body(delivery: Delivery) -> str:
    try:
        properties = delivery.properties
        value = Serialization.from_config({}).decode(
            delivery.body,
            properties.content_type,
            properties.content_encoding,
            (properties.headers or {}).get("compression"),
        )
        return value if isinstance(value, str) else json.dumps(value, indent=2, default=repr)
    except Exception:  # it may be here just because it cannot be read
        return repr(delivery.body)
