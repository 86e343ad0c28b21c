"""What the main thread of `threadko run` waits for: signals, and messages of other threads.

`put` is for any thread; everything else belongs to the main thread.
"""

import contextlib
import operator
import queue
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

from threadko.concurrency.deadline import Deadline

__all__ = ["DUMP", "Inbox", "SIGNALS", "handling_signals"]

#: The signals that stop the services. The last says that the terminal is gone.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

#: The signal that asks for stacks.
DUMP = signal.SIGUSR1


class Inbox:
    """Messages of our threads and numbers of signals, for the main thread to read.

    Not a queue that handlers put into: a handler runs when the main thread comes back to Python
    code, and a signal that comes between its last instruction and its waiting in `get()` does not
    wake it. What the interpreter writes into a socket cannot be missed.
    """

    def __init__(self) -> None:
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._is_told_to_stop = False  # belongs to the reader

    def put(self, message: Any) -> None:
        """Have a message read, a signal if it is a number; for any thread."""
        number = 0
        if isinstance(message, int):
            number = message
        else:
            self._messages.put(message)
        # Full: there is enough to wake up for. Closed: nobody reads any more.
        with contextlib.suppress(OSError):
            self._writer.send(bytes([number]))

    def get(self, timeout: float | None = None) -> Any:
        """Wait for the next message, and return None if none comes within `timeout` seconds.

        Signals that are none of ours are passed over, and a SIGHUP after any that stops: both the
        system and the shell send one, as does systemd right after its SIGTERM, and nobody means to
        kill by that.
        """
        deadline = Deadline(timeout)
        while True:
            with contextlib.suppress(queue.Empty):
                return self._messages.get_nowait()
            self._reader.settimeout(deadline.remaining())
            try:
                number = self._reader.recv(1)[0]
            except (TimeoutError, BlockingIOError):
                return None
            if number == DUMP:
                return number
            if number in SIGNALS and not (number == signal.SIGHUP and self._is_told_to_stop):
                self._is_told_to_stop = True
                return number

    @contextlib.contextmanager
    def hearing_signals(self) -> Iterator[None]:
        """Have the interpreter put signals here."""
        former = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        try:
            with handling_signals(_ignore, (*SIGNALS, DUMP)):
                yield
        finally:
            signal.set_wakeup_fd(former)

    def close(self) -> None:
        """Take no more; after `hearing_signals`, or the interpreter would write who knows where."""
        self._reader.close()
        self._writer.close()


@contextlib.contextmanager
def handling_signals(
    handler: Callable[[int, FrameType | None], Any],
    numbers: Sequence[signal.Signals] = SIGNALS,
) -> Iterator[None]:
    """Have signals handled in the main thread, by `handler`; no SIGHUP that `nohup` ignores."""
    previous = {
        number: signal.signal(number, handler)
        for number in numbers
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, former in previous.items():
            signal.signal(number, former)


# The handler of a signal that has been written to the inbox already. It does nothing, without a
# line of Python: the main thread would run nothing else while signals come faster than it ends.
_ignore: Callable[[int, FrameType | None], Any] = operator.is_
