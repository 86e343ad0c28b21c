"""The public API as users write it. mypy checks this file (`make types`); nobody runs it.

`assert_type` pins what a user's own checker sees. A line that must *not* be accepted carries a
`type: ignore` with its code, and `warn_unused_ignores` tells when it is accepted after all.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, as_completed
from typing import Any

from typing_extensions import assert_type
from werkzeug.wrappers import Request, Response

import threadko.web.websocket as websocket
from threadko import config
from threadko.amqp import consume as amqp_consume
from threadko.amqp import publish as amqp_publish
from threadko.containers import Observer, ServiceContainer
from threadko.contextdata import Language, UserId
from threadko.dependency_providers import Config
from threadko.events import BROADCAST, SINGLETON, EventDispatcher, Retry, event_handler
from threadko.exceptions import RemoteError, RpcTimeout
from threadko.extensions import (
    DependencyProvider,
    Entrypoint,
    ExcInfo,
    SharedExtension,
    WorkerContext,
)
from threadko.messaging import Binding, Exchange, Publisher, Queue, consume
from threadko.rpc import ClusterRpc, RpcCall, ServiceRpc, rpc
from threadko.runners import ServiceRunner, run_services
from threadko.standalone.events import event_dispatcher
from threadko.standalone.rpc import ClusterRpcClient, ServiceRpcClient
from threadko.testing.services import worker_factory
from threadko.timer import timer
from threadko.utils.retry import retry
from threadko.web.handlers import http

orders = Exchange("orders", type="topic")
paid = Queue("paid", exchange=orders, routing_key="order.paid")
moved = Queue("moved", bindings=[Binding(orders, "order.sent"), Binding(orders, "order.back")])


class Cache(DependencyProvider):
    """A dependency of one's own."""

    def __init__(self, size: int = 100, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = size

    def setup(self) -> None:
        self.entries: dict[str, str] = {}
        assert_type(self.container.config, Mapping[str, Any])

    def get_dependency(self, worker_ctx: WorkerContext) -> Callable[[str], str | None]:
        return self.entries.get

    def worker_result(
        self, worker_ctx: WorkerContext, result: Any = None, exc_info: ExcInfo | None = None
    ) -> None:
        if exc_info is not None:
            assert_type(exc_info[1], BaseException)


class Ticker(SharedExtension):
    """What several entrypoints share."""

    def start(self) -> None:
        self.container.spawn_managed_thread(self.run, identifier="ticker")

    def run(self) -> None:
        while not self.container.stopping.wait(1.0):
            pass


class OnTick(Entrypoint):
    """An entrypoint of one's own."""

    ticker = Ticker()

    def __init__(self, every: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.every = every

    def fire(self) -> None:
        worker_ctx = self.container.spawn_worker(self, (1,), {}, handle_result=self.handle_result)
        assert_type(worker_ctx, WorkerContext)

    def handle_result(
        self, worker_ctx: WorkerContext, result: Any, exc_info: ExcInfo | None
    ) -> tuple[Any, ExcInfo | None]:
        return result, exc_info


on_tick = OnTick.decorator


class Orders:
    """Every built-in entrypoint and dependency."""

    name = "orders"

    other = ServiceRpc("x")
    patient = ServiceRpc("y", timeout=30)
    cluster = ClusterRpc()
    dispatch = EventDispatcher()
    publish = Publisher(exchange=orders)
    config = Config()
    language = Language()
    user_id = UserId()
    cache = Cache(size=5)
    hub = websocket.WebSocketHubProvider()

    @rpc
    def add(self, first: int, second: int = 0) -> int:
        self.other.method()
        self.other["any-method"]("text", flag=True)
        self.other.method.call_async(1).result(timeout=5)
        self.other.method.with_timeout(3)(1)
        self.cluster.service.method(1)
        self.cluster["any-service"]["method"]()
        self.dispatch("added", {"sum": first + second})
        self.publish("text", routing_key="order.paid")
        self.cache("key")
        self.config["KEY"]
        return first + second

    @rpc(expected_exceptions=(KeyError, ValueError), sensitive_arguments="password")
    def login(self, user: str, password: str) -> dict[str, str]:
        return {"user": user, "language": self.language}

    @event_handler("shop", "sold")
    def on_sold(self, event: dict[str, Any]) -> None: ...

    @event_handler("shop", "#", handler_type=BROADCAST, reliable_delivery=False)
    @event_handler("shop", "sold", handler_type=SINGLETON, retry=Retry(max=3), dead_letter=True)
    def on_all(self, event: dict[str, Any]) -> None: ...

    @consume(paid, requeue_on_error=True)
    def on_paid(self, body: str) -> None: ...

    @timer(interval=5)
    def tick(self) -> None: ...

    @http("GET", "/orders/<int:number>")
    def show(self, request: Request, number: int) -> tuple[int, str]:
        return 200, f"{number} {request.path}"

    @http("POST", "/orders", expected_exceptions=ValueError)
    def create(self, request: Request) -> Response:
        return Response(status=201)

    @websocket.rpc
    def subscribe(self, socket_id: str, channel: str) -> str:
        self.hub.subscribe(socket_id, channel)
        return channel

    @on_tick(every=2)
    def on_tick(self, count: int) -> None: ...


def methods_keep_their_types(service: Orders) -> None:
    assert_type(service.add(1, second=2), int)
    assert_type(service.login("ada", password="x"), dict[str, str])
    assert_type(service.on_sold({}), None)
    assert_type(service.subscribe("id", "news"), str)
    assert_type(service.create(Request({})), Response)
    service.add("one")  # type: ignore[arg-type]
    service.login("ada")  # type: ignore[call-arg]


def providers_on_the_class() -> None:
    Orders.cache.size  # noqa: B018 (the look at it)
    Orders.other.target_service  # noqa: B018 (the look at it)


def tests_know_the_service() -> None:
    service = worker_factory(Orders, cache={}.get)
    assert_type(service.add(1), int)
    service.other.method.return_value = 5


def callers() -> None:
    with ClusterRpcClient(timeout=10, context_data={"language": "de"}) as cluster:
        cluster.service.method(1, name="x")
        cluster["any-service"]["any_method"]()
    with ServiceRpcClient("orders", config={"AMQP_URI": "amqp://localhost"}) as client:
        call = client.add.call_async(1, 2)
        assert_type(call, RpcCall)
        future: Future[Any] = call
        list(as_completed([future], timeout=5))
        try:
            call.result(timeout=1)
        except RpcTimeout as error:
            timeout_error: TimeoutError = error
            raise timeout_error from None
        except RemoteError as error:
            assert_type(error.exc_type, str | None)
    dispatch = event_dispatcher()
    dispatch("shop", "sold", {"item": "piano"})


def hosts() -> None:
    container = ServiceContainer(Orders, config={"AMQP_URI": "amqp://localhost"})
    container.observers.add(Observer(on_death=on_death))
    container.start()
    container.stop()
    container.kill()
    container.wait()
    runner = ServiceRunner(config={})
    runner.add_service(Orders)
    runner.start()
    runner.stop()
    with run_services(Orders):
        pass


def on_death(container: ServiceContainer, error: BaseException | None) -> None: ...


def configuration() -> None:
    config.setup({"AMQP_URI": "amqp://localhost"})
    with config.patch({"max_workers": 3}):
        assert_type(config["max_workers"], Any)


def messages() -> None:
    publisher = amqp_publish.Publisher("amqp://localhost", exchange=orders)
    publisher.publish({"a": 1}, routing_key="order.paid", mandatory=True)
    consumer = amqp_consume.Consumer(
        "amqp://localhost", queues=[paid], callbacks=[lambda body, message: message.ack()]
    )
    consumer.run()


@retry
def fetch(url: str) -> bytes:
    return url.encode()


@retry(for_exceptions=OSError, max_attempts=5, delay=0.5)
def fetch_patiently(url: str) -> bytes:
    return url.encode()


def functions_keep_their_types() -> None:
    assert_type(fetch("a"), bytes)
    assert_type(fetch_patiently("a"), bytes)
    fetch(5)  # type: ignore[arg-type]
