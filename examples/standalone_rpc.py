"""Calls greeting_service from a program that is not a service itself."""

import os

from threadko.standalone.rpc import ClusterRpcClient, ServiceRpcClient

URI = os.environ.get("AMQP_URI", "amqp://guest:guest@localhost:5672/")


def main():
    # For one service ...
    with ServiceRpcClient("greeting_service", uri=URI, timeout=10) as greeting:
        print(greeting.hello(name="Ada"))

    # ... or for all of them. A call need not be waited for at once.
    with ClusterRpcClient(uri=URI, timeout=10) as client:
        calls = [client.greeting_service.hello.call_async(name) for name in ("Ben", "Cleo")]
        for call in calls:
            print(call.result())


if __name__ == "__main__":
    main()
