import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.rpc.raw import RawCaller
from tests.stories.process import Process
from tests.support.ledger import Ledger
from tests.support.proxy import Proxy
from tests.support.timing import TIMEOUT
from threadko.standalone.rpc import ClusterRpcClient


@pytest.fixture
def name(names: Any) -> str:
    service: str = names.service("story")
    return service


@pytest.fixture
def proxy(broker_uri: str) -> Iterator[Proxy]:
    with Proxy.for_uri(broker_uri) as made:
        yield made


@pytest.fixture
def client(amqp_config: dict[str, Any]) -> Iterator[Any]:
    with ClusterRpcClient(config=amqp_config, timeout=TIMEOUT) as made:
        yield made


@pytest.fixture
def raw_caller(broker_uri: str, client: Any, rpc_exchange: str) -> Iterator[RawCaller]:
    """Needs the client, which declares the exchange."""
    with RawCaller(broker_uri, rpc_exchange) as made:
        yield made


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def run(tmp_path: Path, amqp_config: dict[str, Any]) -> Iterator[Callable[..., Process]]:
    """Runs a service file, `run(source, KEY=value)`, and ends it with the test."""
    numbers = itertools.count()
    with ExitStack() as stack:

        def run(source: str, **config: Any) -> Process:
            module = f"story{next(numbers)}"  # or one would import what another has just written
            (tmp_path / f"{module}.py").write_text(source)
            values = {**amqp_config, **config}
            defines = [part for key in values for part in ("-d", f"{key}={values[key]}")]
            arguments = ("-m", "threadko", "run", module, *defines)
            return stack.enter_context(Process(*arguments, cwd=tmp_path))

        yield run
