"""`python -m tests.support.with_broker COMMAND...` runs the command with AMQP_URI set to a broker.

The exit code is the command's; 3 if there is no broker, with one line on stderr how to get one.
"""

import os
import signal
import subprocess
import sys
from types import FrameType

from tests.support.broker import NoBrokerError, RabbitNode, find_broker

__all__ = ["main"]

NO_BROKER = 3


def main(command: list[str]) -> int:
    """Run the command and return its exit code."""
    if not command:
        print("usage: python -m tests.support.with_broker COMMAND...", file=sys.stderr)
        return 2
    # As an exception, so that a broker half started is ended on the way out.
    signal.signal(signal.SIGTERM, _leave)
    try:
        broker = find_broker()
    except (NoBrokerError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return NO_BROKER
    with broker:
        kind = "a node of our own" if isinstance(broker, RabbitNode) else "the one there is"
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
