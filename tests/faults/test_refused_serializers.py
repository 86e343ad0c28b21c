"""Pickle runs what it is told to, and so does YAML with tags: neither is ever read unasked."""

import pickle
from pathlib import Path

import pytest
import yaml

from tests.rpc.raw import RawCaller, RawService
from tests.support import amqp
from tests.support.timing import TIMEOUT
from threadko.exceptions import RemoteError
from threadko.messaging import Queue, consume
from threadko.rpc import rpc
from threadko.runners import run_services
from threadko.standalone.rpc import ClusterRpcClient


class Bomb:
    """Makes a folder where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.mkdir, (self.path,))


def make_pickle(path, shape):
    return pickle.dumps(shape(Bomb(path)))


def make_yaml(path, shape):
    text = yaml.safe_dump(shape("PLACE"))
    tag = f"!!python/object/apply:os.mkdir [{str(path)!r}]"
    return text.replace("PLACE", tag).encode()


#: Content type, what makes the body, what reads it if it is let, and what is accepted.
KINDS = {
    "pickle": ("application/x-python-serialize", make_pickle, pickle.loads, {}),
    "pickle, yaml accepted": (
        "application/x-python-serialize",
        make_pickle,
        pickle.loads,
        {"ACCEPT": ["json", "yaml"]},
    ),
    "pickle as json": ("application/json", make_pickle, pickle.loads, {}),
    "yaml": ("application/x-yaml", make_yaml, yaml.unsafe_load, {}),
    "yaml accepted": (
        "application/x-yaml",
        make_yaml,
        yaml.unsafe_load,
        {"ACCEPT": ["json", "yaml"]},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_would_run_code_is_refused_and_runs_none(
    kind, tmp_path, name, names, amqp_config, broker_uri, rpc_exchange
):
    content_type, make, read, accepting = KINDS[kind]
    folder = tmp_path / "made"
    queue_name = names.queue()
    handled = []

    class Service:
        @rpc
        def echo(self, value):
            return value

        @consume(Queue(queue_name))
        def handle(self, body):
            handled.append(body)

    Service.name = name

    def body(shape):
        made = make(folder, shape)
        read(made)
        folder.rmdir()  # it would have done something
        return made

    options = {"content_type": content_type, "content_encoding": "binary"}
    if content_type != "application/x-python-serialize":
        options["content_encoding"] = "utf-8"
    request = body(lambda value: {"args": [value], "kwargs": {}})
    reply = body(lambda value: {"result": value, "error": None})
    message = body(lambda value: [value])
    config = {**amqp_config, **accepting}
    with run_services(Service, config=config):
        with RawCaller(broker_uri, rpc_exchange) as caller:
            answer = caller.ask(f"{name}.echo", request, **options)
            assert answer["error"]["exc_type"] == "MalformedRequest"
            amqp.publish(broker_uri, message, routing_key=queue_name, **options)
            good = {"args": [1], "kwargs": {}}
            assert caller.ask(f"{name}.echo", good) == {"result": 1, "error": None}
    assert amqp.queue_depth(broker_uri, queue_name) == 0
    with (
        ClusterRpcClient(config=config, timeout=TIMEOUT) as client,
        RawService(broker_uri, rpc_exchange, f"{name}-far") as far,
    ):
        call = client[f"{name}-far"].echo.call_async(1)
        far.reply_raw(far.take(), reply, **options)
        with pytest.raises(RemoteError, match="MalformedReply"):
            call.result(TIMEOUT)
    assert handled == []
    assert not folder.exists()
