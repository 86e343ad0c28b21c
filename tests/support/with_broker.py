"""`python -m tests.support.with_broker [--rabbitmq] COMMAND...` runs it with AMQP_URI set.

The broker is the one that AMQP_URI names already, else the development broker, or, with
`--rabbitmq`, a RabbitMQ. The exit code is the command's; 3 if there is no broker, with one line on
stderr how to get one.
"""

import os
import signal
import subprocess
import sys
from types import FrameType

from tests.support.broker import NoBrokerError, OwnBroker, RabbitNode, find_broker, find_rabbitmq

__all__ = ["main"]

NO_BROKER = 3

_KINDS = {OwnBroker: "the development broker", RabbitNode: "a RabbitMQ node of our own"}


def main(command: list[str]) -> int:
    """Run the command and return its exit code."""
    find = find_broker
    if command[:1] == ["--rabbitmq"]:
        find, command = find_rabbitmq, command[1:]
    if not command:
        usage = "usage: python -m tests.support.with_broker [--rabbitmq] COMMAND..."
        print(usage, file=sys.stderr)
        return 2
    # As an exception, so that a broker half started is ended on the way out.
    signal.signal(signal.SIGTERM, _leave)
    try:
        broker = find()
    except (NoBrokerError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return NO_BROKER
    with broker:
        kind = _KINDS.get(type(broker), "the one there is")
        print(f"broker: {kind}", file=sys.stderr, flush=True)
        process = subprocess.Popen(command, env={**os.environ, "AMQP_URI": broker.uri})
        # Ctrl-C reaches the command by itself: it is in the terminal's foreground group with us.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda number, frame: process.send_signal(number))
        code = process.wait()
    return code if code >= 0 else 128 - code


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
