from threadko.events import BROADCAST, SINGLETON, EventDispatcher, Retry, event_handler
from threadko.rpc import rpc


def tell(text):
    # In one write: the lines of workers that print at once stay whole.
    print(f"{text}\n", end="")


class Shop:
    name = "shop"

    dispatch = EventDispatcher()

    @rpc
    def sell(self, item):
        # Returns when the broker has the event. Whoever handles it gets the caller's context too.
        self.dispatch("sold", {"item": item})
        self.dispatch("remind", {"item": item}, delay=0.2)  # the broker keeps it so long


class Warehouse:
    name = "warehouse"

    #: One instance of this service handles an event. If it fails it is tried again, after waiting
    #: in the broker; in the end it goes to a queue whose name ends with ".dead".
    @event_handler("shop", "sold", retry=Retry(max=5, delays=(0.1, 1, 10)), dead_letter=True)
    def pack(self, event):
        tell(f"packed {event['item']}")

    #: One handler in the whole fleet.
    @event_handler("shop", "sold", handler_type=SINGLETON)
    def count(self, event):
        tell(f"counted {event['item']}")

    #: Every instance. "#" stands for events of all types.
    @event_handler("shop", "#", handler_type=BROADCAST, reliable_delivery=False)
    def show(self, event):
        tell(f"shown {event['item']}")
