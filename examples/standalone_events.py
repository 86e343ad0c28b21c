"""Dispatches events in the name of a service, from a program that is none."""

import os

from threadko.standalone.events import event_dispatcher

URI = os.environ.get("AMQP_URI", "amqp://guest:guest@localhost:5672/")


def main():
    with event_dispatcher(URI) as dispatch:  # any number of threads may use it
        dispatch("shop", "sold", {"item": "piano"})


if __name__ == "__main__":
    main()
