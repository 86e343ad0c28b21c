"""The development broker inside of a program, such as a test of what a service survives."""

from helloworld import GreetingService

from threadko.containers import ServiceContainer
from threadko.devbroker import DevBroker
from threadko.standalone.rpc import ServiceRpcClient


def main():
    with DevBroker() as broker:  # on a free port
        broker.add_vhost("one-test")
        config = {"AMQP_URI": broker.uri_for("one-test")}
        container = ServiceContainer(GreetingService, config=config)
        container.start()
        with ServiceRpcClient("greeting_service", config=config, timeout=30) as client:
            print(client.hello("Ada"))

            broker.drop_connections()  # client and service connect again
            print(client.hello("Ben"))

            broker.block("short of memory")  # as RabbitMQ does it: what is published has to wait
            call = client.hello.call_async("Cleo")
            broker.unblock()
            print(call.result())

            broker.delay_confirms(0.1)  # seconds
            print(client.hello("Dora"))
        container.stop()


if __name__ == "__main__":
    main()
