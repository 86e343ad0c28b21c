"""The house rules: who may import whom, and a few words that have no place here.

Imports count wherever they stand: at the top, inside a function, under TYPE_CHECKING.
"""

import ast
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "threadko"

# From the ground up. A room imports lower floors, and of its own folder the rooms before it; a
# folder is followed by its rooms in that order. Planned rooms stand here too.
FLOORS: list[dict[str, str]] = [
    {
        "exceptions": "",
        "constants": "",
        "context": "",
        "concurrency": "deadline threads stopping timers callbacks slots pool",
        "utils": "imports redaction retry concurrency addresses safelog expansion",
    },
    {
        "extensions": "worker interface base entrypoint dependency collector",
        "configuration": "store given substitution loader checks keys settings sources",
        "logs": "",
        "log_helpers": "",
        "devbroker": "frames routing queues vhost channel session server",
    },
    {"serialization": "registry codecs yaml_codec msgpack_codec compression serialization"},
    {
        "amqp": "entities tls tables credentials parameters options errors message loop connection "
        "link topology confirms consuming watchdog intake declaring publishing delays visits dead "
        "errands shared publish consume",
        "timer": "",
        "contextdata": "",
        "dependency_providers": "",
    },
    {
        "messaging": "headers consumer publisher",
        "rpc": "protocol requests calls client options probe request replies caller server "
        "providers",
        "web": "routes responses parser cors streams addresses exchange wsgi threads gateway "
        "connection listener server handlers hub sockets websocket",
        "containers": "observers inspection lifecycle exits hooks worker managed watch workforce "
        "offers container",
    },
    {
        "events": "",
        "runners": "",
        "health": "",
        "compat": "nameko",
        "contrib": "sqlalchemy",
    },
    {
        "standalone": "rpc events",
        "testing": "waiting utils entrypoints services rabbit brokers messages websocket factories "
        "leftovers scope cases pytest",
    },
    {
        # The command line is listed from the tools up to the group that holds all commands.
        "cli": "options services inbox process stacks backdoor channel child sources supervisor "
        "health broker dead dev show_config session shell test run main",
    },
    {"__main__": ""},
]

# On the ground floor everything needs the errors; there the listed order counts between rooms too.
ORDERED_FLOORS = {0}

# Whoever imports what hangs from the roof would hang from it too.
ROOF = ("cli", "compat", "contrib", "standalone", "testing")

# The rooms in which a library may be named; everywhere else it is walled off.
WALLS: dict[str, tuple[str, ...]] = {
    "cheroot": ("web.gateway", "web.listener"),
    "click": ("cli",),
    "msgpack": ("serialization.msgpack_codec",),
    "pickle": ("serialization.codecs",),
    "pika": ("amqp", "devbroker"),
    "pytest": ("testing.pytest",),
    "sqlalchemy": ("contrib.sqlalchemy",),
    "websockets": ("web.sockets", "testing.websocket"),
    "werkzeug": ("web",),
    "wsproto": ("web.sockets",),
    "yaml": ("configuration.loader", "serialization.yaml_codec"),
}

# Rooms that must not know of one another, whatever their floors say.
STRANGERS: dict[str, tuple[str, ...]] = {
    "amqp": ("configuration", "containers", "extensions"),
    "containers": ("amqp", "rpc", "web"),
}

FORBIDDEN_MODULES = ("argparse", "eventlet", "gevent", "kombu", "marshal", "nameko", "shelve")

FORBIDDEN_CALLS = ("sleep", "time.time")

# What runs code that is in data; of yaml, whatever is not safe.
DANGEROUS_CALLS = ("eval", "exec", "os.popen", "os.system")
DANGEROUS_OF_YAML = (
    *("BaseLoader", "FullLoader", "Loader", "UnsafeLoader", "load", "load_all", "full_load"),
    *("full_load_all", "unsafe_load", "unsafe_load_all", "Dumper", "CLoader", "CFullLoader"),
    *("CUnsafeLoader", "CDumper", "CBaseLoader"),
)

# It runs what its user types.
MAY_RUN_CODE = ("cli.shell",)

# It waits in the thread of a user who asked for just that.
MAY_SLEEP = ("utils.retry",)

WITHOUT_TEST_FILE = ("__init__", "__main__")


@dataclass(frozen=True)
class Room:
    """One module: its name below `threadko` ("" for the root) and its source."""

    name: str
    source: str
    is_face: bool = False

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)


def read_rooms() -> list[Room]:
    rooms = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        is_face = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_face else parts)
        rooms.append(Room(name, path.read_text(encoding="utf-8"), is_face))
    return rooms


def iter_imports(room: Room) -> Iterator[str]:
    """Yield each module that a room imports, as a dotted path; `from a import b` gives `a.b`."""
    for node in ast.walk(room.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{a.name}" for a in node.names)


def iter_own_imports(room: Room, known: Iterable[str]) -> Iterator[str]:
    """Yield each room or face of ours that a room imports, by the longest name that is one."""
    known = set(known)
    found = []
    for path in iter_imports(room):
        if path != "threadko" and not path.startswith("threadko."):
            continue
        parts = path.split(".")[1:]
        if parts[:1] == ["config"]:
            parts = ["configuration"]  # the one name on the face of the whole package
        while parts and ".".join(parts) not in known:
            parts.pop()
        if parts:
            found.append(".".join(parts))
    yield from dict.fromkeys(found)


def is_within(name: str, places: Iterable[str]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def find_place(name: str) -> tuple[int, int, int]:
    """Return floor, position on the floor and position in the folder; a face comes last in it."""
    top, _, rest = name.partition(".")
    for floor, entries in enumerate(FLOORS):
        if top in entries:
            order = entries[top].split()
            if rest and rest not in order:
                raise LookupError(f"{name} has no place in the table of floors")
            return floor, list(entries).index(top), order.index(rest) if rest else len(order)
    raise LookupError(f"{name} has no place in the table of floors")


def check_floors(rooms: list[Room]) -> list[str]:
    known = {room.name for room in rooms}
    faults = []
    for room in rooms:
        if room.name == "":
            continue  # the face of the whole package hands on what it likes
        try:
            floor, position, order = find_place(room.name)
        except LookupError as error:
            faults.append(str(error))
            continue
        for target in iter_own_imports(room, known):
            try:
                other_floor, other_position, other_order = find_place(target)
            except LookupError:
                continue  # reported once, as a room
            if other_floor < floor:
                continue
            in_same_folder = target.partition(".")[0] == room.name.partition(".")[0]
            if in_same_folder:
                # A face is not for the rooms behind it.
                is_allowed = other_order < order
            else:
                is_allowed = (
                    other_floor == floor and floor in ORDERED_FLOORS and other_position < position
                )
            if not is_allowed:
                faults.append(f"{room.name} must not import {target}: see the table of floors")
    return faults


def check_circles(rooms: list[Room]) -> list[str]:
    known = {room.name for room in rooms}
    imports = {room.name: set(iter_own_imports(room, known)) for room in rooms}
    done: set[str] = set()
    faults = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            faults.append("a circle: " + " -> ".join((*path[path.index(name) :], name)))
        elif name not in done:
            for target in sorted(imports[name]):
                visit(target, (*path, name))
            done.add(name)

    for name in sorted(imports):
        visit(name, ())
    return faults


def check_walls(rooms: list[Room]) -> list[str]:
    faults = []
    for room in rooms:
        for path in iter_imports(room):
            library = path.partition(".")[0]
            if library == "":
                faults.append(f"{room.name} imports {path}: imports are absolute")
            elif library in FORBIDDEN_MODULES:
                faults.append(f"{room.name} imports {library}, which has no place here")
            elif library in WALLS:
                if not is_within(room.name, WALLS[library]):
                    faults.append(f"{room.name} imports {library}, which is walled off")
            elif library not in (*sys.stdlib_module_names, "threadko"):
                faults.append(f"{room.name} imports {library}, which threadko does not require")
    return faults


def check_strangers(rooms: list[Room]) -> list[str]:
    known = {room.name for room in rooms}
    faults = []
    for room in rooms:
        for target in iter_own_imports(room, known):
            top, target_top = room.name.partition(".")[0], target.partition(".")[0]
            if target_top in STRANGERS.get(top, ()):
                faults.append(f"{room.name} must not know {target}")
            if target_top in ROOF and target_top != top and top not in ("__main__", "cli"):
                faults.append(f"{room.name} must not know {target}, which nothing depends on")
    return faults


def check_top_imports(rooms: list[Room]) -> list[str]:
    faults = []
    for room in rooms:
        for function in ast.walk(room.tree):
            if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                continue
            if any(isinstance(node, (ast.Import, ast.ImportFrom)) for node in ast.walk(function)):
                faults.append(f"{room.name} imports inside {function.name}")
    return faults


def check_all_lists(rooms: list[Room]) -> list[str]:
    faults = []
    for room in rooms:
        for node in room.tree.body:
            if not isinstance(node, ast.Assign) or ast.unparse(node.targets[0]) != "__all__":
                continue
            names = ast.literal_eval(node.value)
            if list(names) != sorted(set(names)):
                faults.append(f"__all__ of {room.name or 'threadko'} is not sorted")
    return faults


def check_calls(rooms: list[Room]) -> list[str]:
    faults = []
    for room in rooms:
        for node in ast.walk(room.tree):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called == "time.sleep" and room.name in MAY_SLEEP:
                    continue
                if called in FORBIDDEN_CALLS or called.endswith(".sleep"):
                    faults.append(f"{room.name}:{node.lineno} calls {called}")
            elif isinstance(node, ast.ImportFrom) and node.module == "time":
                taken = {alias.name for alias in node.names} & {"sleep", "time"}
                faults.extend(f"{room.name}:{node.lineno} imports {name}" for name in taken)
    return faults


def check_dangers(rooms: list[Room]) -> list[str]:
    faults = []
    for room in rooms:
        for node in ast.walk(room.tree):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "yaml":
                if node.attr in DANGEROUS_OF_YAML:
                    faults.append(f"{room.name}:{node.lineno} uses yaml.{node.attr}")
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("yaml"):
                taken = {alias.name for alias in node.names} & set(DANGEROUS_OF_YAML)
                faults.extend(f"{room.name}:{node.lineno} imports {name}" for name in taken)
            elif isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                shell = any(each.arg == "shell" for each in node.keywords)
                if (called in DANGEROUS_CALLS and room.name not in MAY_RUN_CODE) or shell:
                    faults.append(f"{room.name}:{node.lineno} runs what is in data: {called}")
    return faults


def check_faces(rooms: list[Room]) -> list[str]:
    faults = []
    for room in rooms:
        for node in room.tree.body:
            is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            is_name = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).startswith("__")
            if room.is_face and not (
                is_text or is_name or isinstance(node, (ast.Import, ast.ImportFrom))
            ):
                faults.append(f"{room.name}/__init__.py:{node.lineno} does more than hand on names")
    return faults


def check_test_files(rooms: list[Room], tests: Path) -> list[str]:
    faults = []
    for room in rooms:
        *folders, last = room.name.split(".")
        if room.is_face or last in WITHOUT_TEST_FILE:
            continue
        path = tests.joinpath(*folders, f"test_{last}.py")
        if not path.exists():
            faults.append(f"{room.name} has no {path.relative_to(tests.parent)}")
    return faults


CHECKS = [
    check_floors,
    check_circles,
    check_walls,
    check_strangers,
    check_top_imports,
    check_all_lists,
    check_calls,
    check_dangers,
    check_faces,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_house_is_in_order(check):
    assert check(read_rooms()) == []


def test_every_room_has_a_test_file():
    assert check_test_files(read_rooms(), ROOT / "tests") == []


# What follows proves that the checks find what they look for.

BAD = [
    (check_floors, {"context": "from threadko.rpc import rpc", "rpc": ""}),
    (check_floors, {"rpc": "import threadko.containers.worker", "containers.worker": ""}),
    (check_floors, {"rpc.calls": "from threadko.rpc import server", "rpc.server": ""}),
    (check_floors, {"rpc.calls": "from threadko.rpc import rpc", "rpc": ""}),
    (check_floors, {"exceptions": "from threadko import config", "configuration": ""}),
    (check_floors, {"context": "def f():\n    from threadko import logs", "logs": ""}),
    (check_floors, {"exceptions": "import threadko.context", "context": ""}),
    (check_floors, {"cli.run": "import threadko.cli.main", "cli.main": ""}),
    (check_floors, {"attic": ""}),
    (check_floors, {"rpc.attic": ""}),
    (
        check_circles,
        {
            "rpc.calls": "from threadko.rpc.client import Client",
            "rpc.client": "if TYPE_CHECKING:\n    from threadko.rpc import calls",
        },
    ),
    (check_circles, {"a": "import threadko.b", "b": "import threadko.c", "c": "import threadko.a"}),
    (check_walls, {"rpc.server": "import pika.exceptions"}),
    (check_walls, {"web.hub": "def f():\n    from cheroot import wsgi"}),
    (check_walls, {"configuration.store": "import yaml"}),
    (check_walls, {"cli.run": "import argparse"}),
    (check_walls, {"testing.utils": "import pytest"}),
    (check_walls, {"amqp.entities": "from kombu import Exchange"}),
    (check_walls, {"utils.retry": "import requests"}),
    (check_walls, {"utils.retry": "from . import imports"}),
    (check_strangers, {"amqp.link": "from threadko import config", "configuration": ""}),
    (check_strangers, {"containers.worker": "import threadko.amqp", "amqp": ""}),
    (check_strangers, {"runners": "import threadko.testing.utils", "testing.utils": ""}),
    (check_top_imports, {"rpc": "class A:\n    def f(self):\n        import json"}),
    (check_all_lists, {"rpc": "__all__ = ['b', 'a']"}),
    (check_all_lists, {"rpc": "__all__ = ['a', 'a']"}),
    (check_calls, {"timer": "import time\ntime.sleep(1)"}),
    (check_calls, {"timer": "from time import sleep as pause"}),
    (check_calls, {"timer": "import time\ntime.time()"}),
    (check_walls, {"rpc.calls": "import pickle"}),
    (check_walls, {"serialization.codecs": "from marshal import loads"}),
    (check_dangers, {"configuration.loader": "import yaml\nyaml.load(text, yaml.SafeLoader)"}),
    (check_dangers, {"configuration.loader": "class A(yaml.FullLoader): pass"}),
    (check_dangers, {"serialization.yaml_codec": "from yaml import unsafe_load"}),
    (check_dangers, {"serialization.yaml_codec": "from yaml.loader import UnsafeLoader as A"}),
    (check_dangers, {"rpc": "eval(text)"}),
    (check_dangers, {"cli.dev": "subprocess.run(text, shell=True)"}),
    (check_dangers, {"cli.dev": "os.system(text)"}),
]

GOOD = [
    (check_floors, {"context": "from threadko.exceptions import RemoteError", "exceptions": ""}),
    (check_floors, {"rpc.client": "from threadko.rpc import calls", "rpc.calls": ""}),
    (check_floors, {"rpc": "from threadko.rpc.server import Rpc", "rpc.server": ""}),
    (check_floors, {"timer": "from threadko import config", "configuration": ""}),
    (check_circles, {"a": "import threadko.b", "b": ""}),
    (check_walls, {"amqp.link": "import pika\nimport socket\nimport threadko.context"}),
    (check_strangers, {"__main__": "import threadko.cli.main", "cli.main": ""}),
    (check_strangers, {"testing.pytest": "import threadko.testing.utils", "testing.utils": ""}),
    (check_all_lists, {"rpc": "__all__ = ['A', 'a', 'b']"}),
    (check_calls, {"timer": "import time\ntime.monotonic()\nstop.wait(1)"}),
    (check_calls, {"utils.retry": "import time\ntime.sleep(1)"}),
    (check_dangers, {"serialization.yaml_codec": "from yaml.loader import SafeLoader"}),
    (
        check_dangers,
        {"configuration.loader": "yaml.safe_load(text)\nclass A(yaml.SafeLoader): pass"},
    ),
    (check_dangers, {"cli.shell": "exec(text)"}),
]


def make_rooms(sources: dict[str, str]) -> list[Room]:
    return [Room(name, source) for name, source in sources.items()]


@pytest.mark.parametrize(("check", "sources"), BAD)
def test_check_finds_a_fault_where_there_is_one(check, sources):
    assert check(make_rooms(sources))


@pytest.mark.parametrize(("check", "sources"), GOOD)
def test_check_finds_no_fault_where_there_is_none(check, sources):
    assert check(make_rooms(sources)) == []


def test_face_that_does_something_is_found():
    assert check_faces([Room("rpc", '"""Doc."""\nimport a\nx = 1', is_face=True)])


def test_room_without_test_file_is_found(tmp_path):
    (tmp_path / "tests" / "rpc").mkdir(parents=True)
    (tmp_path / "tests" / "rpc" / "test_calls.py").touch()
    rooms = make_rooms({"rpc.calls": "", "rpc.client": "", "__main__": ""})
    assert check_test_files(rooms, tmp_path / "tests") == [
        "rpc.client has no tests/rpc/test_client.py"
    ]
