"""Sends messages to a queue and takes them from it, in a program without services."""

import os

from threadko.amqp import Exchange, Queue
from threadko.amqp.consume import Consumer
from threadko.amqp.publish import Publisher

URI = os.environ.get("AMQP_URI", "amqp://guest:guest@localhost:5672/")

orders = Exchange("example-orders", type="topic", auto_delete=True)
big_orders = Queue("example-big-orders", orders, routing_key="order.big", auto_delete=True)


def main():
    def take(body, message):
        print(body["item"], message.delivery_info["routing_key"])
        message.ack()
        if body["item"] == "last":
            consumer.stop()

    consumer = Consumer(URI, queues=[big_orders], callbacks=[take])

    # publish() returns when the broker has the message, and raises if no queue would take it.
    publisher = Publisher(URI, exchange=orders, declare=[big_orders], mandatory=True)
    for item in ("piano", "last"):
        publisher.publish({"item": item}, routing_key="order.big")

    # The callback runs in this thread, until it stops the consumer.
    consumer.run()


if __name__ == "__main__":
    main()
