"""Code on the pages is included from examples, which tests run; what is not is tried here."""

import re
import textwrap

import pytest
import yaml

import threadko.amqp
import threadko.amqp.consume
import threadko.containers
import threadko.extensions
import threadko.messaging
import threadko.rpc
import threadko.utils.concurrency
import threadko.web.server
from tests.support.checkout import ROOT
from tests.support.pages import PAGES
from threadko.configuration import settings
from threadko.configuration.keys import find_key

TEXTS = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
_BLOCK = re.compile(
    r"^( *)\.\. code(?:-block)?:: *(\w+)\n(?:\1 +:.*\n)*\n((?:\1 +.*\n|\n)+)", re.MULTILINE
)
BLOCKS = [
    (page, language, textwrap.dedent(code).strip() + "\n")
    for page, text in TEXTS.items()
    for _, language, code in _BLOCK.findall(text)
]
SETTINGS = [
    each for name, each in vars(settings).items() if hasattr(each, "from_config") and name != "Key"
]


def find(language):
    found = [pytest.param(code, id=page) for page, known, code in BLOCKS if known == language]
    assert found, f"no page has {language} any more"
    return found


def test_python_is_included():
    assert {page for page, language, _ in BLOCKS if language in ("python", "py")} == {"README.rst"}
    assert {language for _, language, _ in BLOCKS} == {"console", "diff", "python", "yaml"}


def test_service_in_the_readme_is_the_example():
    [(_, _, code)] = [block for block in BLOCKS if block[1] == "python"]
    assert code == (ROOT / "examples" / "helloworld.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("code", find("yaml"))
def test_configuration_can_be_read(code):
    config = yaml.safe_load(code)
    assert all(find_key(key) == key for key in config)
    for each in SETTINGS:
        each.from_config(config)


@pytest.mark.parametrize("code", find("diff"))
def test_lines_to_change_to_can_be_run(code):
    added = [line[1:] for line in code.splitlines() if line.startswith("+")]
    exec("\n".join(added), {})


@pytest.mark.parametrize(
    ("page", "path"),
    [
        (page, path)
        for page, text in TEXTS.items()
        for path in re.findall(r"``(examples/[\w/.]+\w)``", text)
    ],
)
def test_example_that_is_named_is_there(page, path):
    assert (ROOT / path).exists()


MOVING = TEXTS["docs/moving.rst"].partition("\nHooks\n")[2]
GAINED = {
    threadko.extensions.Extension: "ready open cancel find_trouble answer_ping",
    threadko.extensions.Entrypoint: "settle",
    threadko.extensions.WorkerContext: "cancelled message_id redelivered headers",
    threadko.messaging.Consumer: "handle_decode_error",
    threadko.containers: "Observer",
}
LOST = {
    threadko.amqp: "get_connection get_producer",
    threadko.amqp.consume.Consumer: "get_consumers",
    threadko.messaging.Consumer: "consumer_cls",
    threadko.rpc: "Responder",
    threadko.rpc.Client: "fully_specified",
    threadko.rpc.ReplyListener: "ReplyConsumer register_for_reply",
    threadko.rpc.RpcCall: "get_response",
    threadko.rpc.ServiceRpc: "publisher_cls",
    threadko.utils.concurrency: "fail_fast_imap",
    threadko.web.server: "HttpOnlyProtocol",
    threadko.web.server.WebServer: "get_wsgi_server process_request make_url_map run",
}
INSTEAD = {
    threadko.amqp.consume.Consumer: "run stop on_message on_decode_error",
    threadko.messaging.Publisher: "publisher_cls",
    threadko.web.server.WebServer: "get_wsgi_app context_data_from_headers",
}


@pytest.mark.parametrize(("names", "is_there"), [(GAINED, True), (LOST, False), (INSTEAD, True)])
def test_hooks_gained_and_lost_are_so(names, is_there):
    for owner, each in names.items():
        for name in each.split():
            assert hasattr(owner, name) is is_there, (owner, name)
            assert re.search(rf"\b{name}\b", MOVING), f"docs/moving.rst does not name {name}"
