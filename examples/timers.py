from threadko.timer import timer


class Clock:
    name = "clock"

    @timer(interval=0.1, eager=True)
    def tick(self):
        # Every instance has its own clock. A tick that takes too long has the missed ones skipped.
        print("tick")
