"""Each command that a page shows is run as it is printed, or stands in `NOT_RUN` with a reason.

It is run in a copy of the repository, by somebody whose terminal has the environment activated, and
who is in the folder whose files the page shows; without a broker but those that the commands start.
"""

import re
import socket
import subprocess
import sys
import textwrap

import pytest

from tests.docs.test_pages import follow, has_own_network, taking_turns
from tests.support.checkout import ROOT, copy_checkout
from tests.support.newcomer import read_blocks
from tests.support.pages import PAGES, find_unknown, is_form, read_commands

#: tests/docs/test_pages.py does all that their blocks say, in order.
FOLLOWED = ("README.rst", "docs/installation.rst", "docs/quickstart.rst")

NOT_RUN = {
    "apt-get install rabbitmq-server": "changes the machine",
    "docker run -p 5672:5672 rabbitmq:3": "needs Docker, and fetches RabbitMQ",
    "docker build -t shop -f Dockerfile .": (
        "needs Docker; tests/examples/test_deployment.py reads the file"
    ),
    "kubectl apply -f kubernetes.yaml": (
        "needs a cluster; tests/examples/test_deployment.py reads the file"
    ),
    "nc localhost 3000": "is typed into; tests/cli/test_backdoor.py does that",
    "rlwrap nc localhost 3000": "is typed into; tests/cli/test_backdoor.py does that",
    'eval "$(_THREADKO_COMPLETE=zsh_source threadko)"': "needs zsh; the other shells are tried",
    "_THREADKO_COMPLETE=fish_source threadko | source": "needs fish; the other shells are tried",
    "pre-commit install": "needs pre-commit, and changes the clone",
    "pip install msgpack": "requirements/test.txt names it: `make test` does so",
    "pip install watchfiles": "requirements/test.txt names it: `make test` does so",
    "make test": "this test is a part of it",
    "make test-all": "this test is a part of it",
    "make lint types docs": ".ci/run does it",
    "make lint": ".ci/run does it",
    "make types": ".ci/run does it",
    "make docs": ".ci/run does it",
    "make interop": "needs two namekos and a RabbitMQ; its tests are a part of `make test-all`",
    "make pythons": "runs all tests on each Python; before a release",
    "make oldest": "runs all tests with old requirements; before a release",
    "make package": "tests/test_packaging.py builds and tries the same",
    "make faults": "takes a quarter of an hour; its tests are a part of `make test-all`",
    "make soak": "takes half an hour; tests/faults/test_soak.py runs a short one",
    "make soak CALLS=20000": "tests/faults/test_soak.py runs the same",
    "make bench": "needs a nameko and a RabbitMQ, and an idle machine",
}

#: What stands for something of the reader's, or asks, and what our reader types then.
TYPED = {
    "threadko dead purge evt-shop-sold--warehouse.pack": "echo y | {}",
    "threadko health --ready": "THREADKO_HEALTH_ADDRESS=127.0.0.1:8001 {}",
}
OWN_BROKER = ("@host/", "@localhost:5672/")

_FAIL = """python
>>> from threadko.amqp import Queue
>>> from threadko.amqp.publish import Publisher
>>> queue = Queue("evt-shop-sold--warehouse.pack.dead")
>>> publisher = Publisher("amqp://localhost", routing_key=queue.name, declare=[queue])
>>> for item in ("piano", "flute", "harp"):
...     publisher.publish({"item": item})
"""
_GET = "python -c 'import urllib.request as r; r.urlopen(\"http://localhost:{}/prices/4\")'"
_TEST = (
    ".venv/bin/python -m tests.support.with_broker"
    " .venv/bin/python -m pytest tests/rpc/test_calls.py"
)

#: What is typed, each line in a terminal of its own, in that folder. What goes on until it is
#: stopped stays open meanwhile. Lines that stand on no page set the scene, or look at it.
SCENES = {
    "one service": (
        "examples",
        "threadko run --dev helloworld",
        """echo 'n.rpc.greeting_service.hello(name="Ada")' | threadko shell""",
        "threadko shell",
        "threadko show-config -c config.yaml",
        "threadko show-config -c config.yaml -d max_workers=5 --sources",
        "threadko test --help",
        'eval "$(_THREADKO_COMPLETE=bash_source threadko)"',
    ),
    "a configured one": (
        "examples",
        "threadko broker",
        "threadko broker --port 5673",
        "threadko run -c config.yaml helloworld",
        "threadko health -c config.yaml",
        "threadko health -d HEALTH_ADDRESS=127.0.0.1:8001 --ready",
        "threadko health --ready",
    ),
    "a shop": (
        "examples",
        "threadko broker",
        "threadko run -c config.yaml shop.orders shop.prices:PriceService",
        """test "$(echo 'n.rpc.orders.place("flute", 2)' | threadko shell)" = 1300""",
    ),
    "a user and processes": (
        "examples",
        "threadko run --dev -d AMQP_URI=amqp://user:password@host/vhost shop.prices",
        "threadko run -d AMQP_URI=amqp://user:password@host/vhost --processes 4 shop.orders",
        "threadko shell -d AMQP_URI=amqp://user:password@host/vhost --interface plain",
    ),
    "dead messages": (
        "examples",
        "threadko run --dev rpc events",
        _FAIL,
        "threadko dead list evt-shop-sold--warehouse.pack",
        "threadko dead show evt-shop-sold--warehouse.pack 1",
        "threadko dead replay evt-shop-sold--warehouse.pack 1 3",
        "threadko dead purge evt-shop-sold--warehouse.pack",
    ),
    "Flask and asyncio": (
        "examples",
        "threadko run --dev quotes",
        "flask --app flask_client run",
        _GET.format(5000),
        "uvicorn fastapi_client:app",
        _GET.format(8000),
    ),
    "Flask under gunicorn": (
        "examples",
        "threadko run --dev quotes",
        "gunicorn --threads 16 flask_client:app",
        _GET.format(8000),
    ),
    "Django under gunicorn": (
        "examples",
        "threadko run --dev quotes",
        "gunicorn --threads 16 django_client:application",
        _GET.format(8000),
    ),
    "contributing": (
        ".",
        "make help",
        _TEST,
    ),
    "installing": (
        ".",
        "pip install '.[sqlalchemy]'",
    ),
}
QUICK = ("a shop",)

COMMANDS = [
    (page, command)
    for page in PAGES
    for command in read_commands(
        (ROOT / page).read_text(encoding="utf-8"), folder=(ROOT / page).parent
    )
]


def test_each_command_is_run_or_has_a_reason_not_to_be():
    run = {line for _, *lines in SCENES.values() for line in lines}
    for page in FOLLOWED:
        for block in read_blocks((ROOT / page).read_text(encoding="utf-8")):
            run |= {*block.commands, *(["python"] if block.typed else [])}
    printed = {command.text for _, command in COMMANDS if not is_form(command)}
    assert sorted(printed - run - NOT_RUN.keys()) == []
    assert sorted(NOT_RUN.keys() - printed) == [], "they stand on no page any more"
    assert sorted(run & NOT_RUN.keys() - {"make test"}) == [], "they are run"
    assert sorted(TYPED.keys() - printed) == []


def test_what_pages_name_is_there():
    verbs = frozenset(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M))
    unknown = [
        (page, command.text, what)
        for page, command in COMMANDS
        for what in find_unknown(command, verbs)
    ]
    assert unknown == []


def make_page(folder, lines):
    """Return a page on which each line is a terminal of its own, in that folder."""
    page = ""
    for line in lines:
        typed = TYPED.get(line, "{}").replace("{}", line).replace(*OWN_BROKER)
        if line == "threadko shell":
            text = (ROOT / "docs" / "commands.rst").read_text(encoding="utf-8")
            [typed] = re.findall(r"^    \$ (threadko shell\n(?:    .*\n)+)", text, re.MULTILINE)
            typed = typed.replace("\n    ", "\n")
        commands = f"$ . .venv/bin/activate\n$ cd {folder}\n$ {typed}\n"
        page += f"::\n\n{textwrap.indent(commands, '    ')}\n"
    return page


@pytest.fixture(scope="module", autouse=True)
def _has_port():
    """In the machine's own network another broker may be where these would be."""
    if not has_own_network():
        with taking_turns(), socket.socket() as any_socket:
            if any_socket.connect_ex(("127.0.0.1", 5672)) == 0:
                pytest.skip("no network of our own can be made, and port 5672 is taken")


@pytest.mark.parametrize(
    "scene",
    [
        pytest.param(name, marks=[pytest.mark.long, pytest.mark.timeout(600)] * (name not in QUICK))
        for name in SCENES
    ],
)
def test_commands_work_as_printed(scene, tmp_path):
    folder = copy_checkout(tmp_path / "threadko")
    if scene == "installing":
        subprocess.run([sys.executable, "-m", "venv", folder / ".venv"], check=True, timeout=300)
    else:
        (folder / ".venv").symlink_to(sys.prefix)
    where, *lines = SCENES[scene]
    page = folder / "scene.rst"
    page.write_text(make_page(where, lines), encoding="utf-8")
    assert len(follow(page.name, folder)) == len(lines)
