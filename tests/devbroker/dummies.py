"""A broker without sockets and with a clock that a test turns."""

import heapq
import itertools

from threadko.devbroker.session import Session
from threadko.devbroker.vhost import Clock, VHost


class FakeBroker(Clock):
    """As much of the server as sessions and vhosts need."""

    def __init__(self):
        self.time = 0.0
        self.timers = []
        self.numbers = itertools.count()
        self.bytes = 0
        self.vhosts = {"/": VHost("/", self)}
        self.confirms = {}
        self.ready = {}

    def now(self):
        return self.time

    def call_at(self, when, callback):
        heapq.heappush(self.timers, (when, next(self.numbers), callback))

    def count_bytes(self, size):
        self.bytes += size

    def advance(self, seconds):
        """Let time pass, timer by timer."""
        end = self.time + seconds
        while self.timers and self.timers[0][0] <= end:
            self.time, _, callback = heapq.heappop(self.timers)
            callback()
        self.time = end

    def check_login(self, user, password):
        return (user, password) == ("guest", "guest")

    def confirm_later(self, session, channel):
        self.confirms[channel] = None

    def output_is_ready(self, session):
        self.ready[session] = None

    def note_publisher(self, session):
        pass

    def turn(self):
        """End a turn, as the server does."""
        confirms, self.confirms = self.confirms, {}
        for channel in confirms:
            channel.write_confirms()

    def connect(self):
        return Session(self)
