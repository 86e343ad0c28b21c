from threadko.messaging import Exchange, Publisher, Queue, consume
from threadko.rpc import rpc

parcels = Exchange("example-parcels", type="topic")
big_parcels = Queue("example-big-parcels", exchange=parcels, routing_key="parcel.big")


class Post:
    name = "post"

    publish = Publisher(exchange=parcels)

    @rpc
    def send(self, address, size):
        self.publish({"to": address}, routing_key=f"parcel.{size}")

    @consume(big_parcels, prefetch_count=1)
    def carry(self, parcel):
        print("carried to", parcel["to"])
