"""The configuration store: mapping, patches, and readers that never see half a change."""

import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.timing import TIMEOUT
from threadko import config as package_config
from threadko.concurrency.threads import start_thread
from threadko.configuration import Config
from threadko.configuration import config as global_config


@pytest.fixture
def config() -> Config:
    return Config({"a": 1, "b": {"c": 2}})


def test_there_is_one_configuration_of_the_process() -> None:
    assert package_config is global_config


def test_it_is_a_mapping(config: Config) -> None:
    assert config["a"] == 1
    assert config.get("x") is None
    assert "a" in config
    assert "x" not in config
    assert list(config) == list(config.keys()) == ["a", "b"]
    assert list(config.values()) == [1, {"c": 2}]
    assert dict(config.items()) == dict(config) == {"a": 1, "b": {"c": 2}}
    assert len(config) == 2
    assert config == {"a": 1, "b": {"c": 2}} == config.data
    assert config != {"a": 1}
    assert config != 5
    assert config == Config(a=1, b={"c": 2})
    with pytest.raises(KeyError):
        config["x"]


def test_entries_are_set_and_removed(config: Config) -> None:
    config["d"] = 4
    del config["a"]
    assert config.pop("b") == {"c": 2}
    assert config.pop("b", None) is None
    assert config == {"d": 4}
    assert config.setdefault("d", 5) == 4
    assert config.setdefault("e", 5) == 5
    assert config.popitem() == ("e", 5)
    config.clear()
    assert config == {}


@pytest.mark.parametrize(
    "remove", [lambda c: c.pop("x"), lambda c: c.__delitem__("x"), lambda c: Config().popitem()]
)
def test_removing_what_is_not_there_is_a_key_error(
    config: Config, remove: Callable[[Config], Any]
) -> None:
    with pytest.raises(KeyError):
        remove(config)
    assert len(config) == 2


def test_setup_replaces_everything(config: Config) -> None:
    config.setup({"x": 1})
    assert config == {"x": 1}


def test_setup_takes_the_configuration_itself(config: Config) -> None:
    config.setup(config)
    assert config == {"a": 1, "b": {"c": 2}}


def test_update_takes_what_a_dict_takes(config: Config) -> None:
    config.update({"a": 2}, z=3)
    config.update([("y", 4)])
    config.update(Config(x=5))
    config.update()
    assert config == {"a": 2, "b": {"c": 2}, "z": 3, "y": 4, "x": 5}
    with pytest.raises(TypeError, match="at most one"):
        config.update({}, {})


def test_data_and_copies_are_the_callers_own(config: Config) -> None:
    config.data["x"] = 1
    other = config.copy()
    other["x"] = 1
    assert "x" not in config
    assert isinstance(other, Config)


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))]
)
def test_it_can_be_copied_by_the_standard_ways(
    config: Config, duplicate: Callable[[Config], Config]
) -> None:
    other = duplicate(config)
    other["x"] = 1
    assert other == {**config.data, "x": 1}


def test_configurations_are_joined_as_dicts_are(config: Config) -> None:
    before = config.data
    assert config | {"a": 5} == {**before, "a": 5}
    assert {"a": 5, "own": 1} | config == {"a": 5, "own": 1} | before
    assert config | Config(own=1) == {**before, "own": 1}
    assert config == before
    same = config
    config |= {"own": 1}
    assert config is same
    assert config == {**before, "own": 1}
    with pytest.raises(TypeError):
        config | 5


def test_repr_shows_keys_and_no_values() -> None:
    assert repr(Config({"AMQP_URI": "amqp://u:secret@h"})) == "<Config AMQP_URI>"
    assert repr(Config()) == "<Config empty>"


def test_a_patch_adds_entries_for_the_length_of_a_block(config: Config) -> None:
    with config.patch({"a": 5, "x": 6}) as nothing:
        assert nothing is None
        assert config == {"a": 5, "b": {"c": 2}, "x": 6}
    assert config == {"a": 1, "b": {"c": 2}}


def test_a_patch_with_clear_leaves_only_its_own_entries(config: Config) -> None:
    with config.patch({"x": 6}, clear=True):
        assert config == {"x": 6}
    assert config == {"a": 1, "b": {"c": 2}}


def test_a_patch_undoes_what_was_changed_meanwhile(config: Config) -> None:
    with config.patch({}):
        config["a"] = 5
        config["b"]["c"] = 6
        config["new"] = 7
    assert config == {"a": 1, "b": {"c": 2}}


def test_a_patch_is_undone_when_the_block_raises(config: Config) -> None:
    with pytest.raises(ValueError, match="oops"), config.patch({"a": 5}):
        raise ValueError("oops")
    assert config["a"] == 1


def test_patches_nest(config: Config) -> None:
    with config.patch({"a": 5}):
        with config.patch({"a": 6}):
            assert config["a"] == 6
        assert config["a"] == 5
    assert config["a"] == 1


def test_a_decorated_function_is_patched_during_each_call(config: Config) -> None:
    @config.patch({"a": 5})
    def read(depth: int) -> int:
        """Read."""
        if depth:
            read(depth - 1)
        result: int = config["a"]
        return result

    assert read.__name__ == "read"
    for _ in range(2):
        assert read(2) == 5
        assert config["a"] == 1


def test_a_patch_is_started_and_stopped_by_hand(config: Config) -> None:
    patch = config.patch({"a": 5})
    patch.start()
    assert config["a"] == 5
    patch.stop()
    assert config["a"] == 1
    with pytest.raises(RuntimeError, match="not been started"):
        patch.stop()


def test_a_patch_that_cannot_be_put_in_place_changes_nothing(config: Config) -> None:
    patch = config.patch(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        patch.start()
    assert config == {"a": 1, "b": {"c": 2}}
    with pytest.raises(RuntimeError, match="not been started"):
        patch.stop()


def test_the_keys_and_entries_are_those_of_one_moment(config: Config) -> None:
    keys, entries, values = config.keys(), config.items(), config.values()
    config.setup({"x": 1})
    assert (list(keys), dict(entries), list(values)) == (
        ["a", "b"],
        {"a": 1, "b": {"c": 2}},
        [1, {"c": 2}],
    )


def test_a_patch_keeps_values_that_cannot_be_copied(config: Config) -> None:
    config["lock"] = lock = threading.Lock()
    with config.patch({"lock": None}):
        pass
    assert config["lock"] is lock


def test_readers_see_all_of_a_change_or_nothing_of_it() -> None:
    config = Config(a=0, b=0)
    begin = threading.Barrier(5)
    done = threading.Event()
    torn: list[object] = []

    def read() -> None:
        begin.wait(TIMEOUT)
        while not done.is_set():
            data = config.data
            if set(data) != {"a", "b"} or data["a"] != data["b"]:
                torn.append(data)
            if len(set(config.values())) != 1 or len(dict(config.items())) != 2:
                torn.append("a view")

    readers = [start_thread(read, f"reader-{n}") for n in range(4)]
    begin.wait(TIMEOUT)
    for n in range(200):
        config.update(a=n, b=n)
        config.setup({"a": n, "b": n})
        with config.patch({"a": -n, "b": -n}, clear=True):
            config.copy()
    done.set()
    for reader in readers:
        reader.join(TIMEOUT)
    assert torn == []


def test_no_change_is_lost_when_many_write() -> None:
    config = Config()
    begin = threading.Barrier(4)

    def write(writer: int) -> None:
        begin.wait(TIMEOUT)
        for n in range(100):
            config[f"{writer}-{n}"] = n
            config.update({f"{writer}-{n}-u": n})
            config.setdefault(f"{writer}-{n}-d", n)
            config.pop(f"{writer}-{n}")

    writers = [start_thread(lambda n=n: write(n), f"writer-{n}") for n in range(4)]
    for writer in writers:
        writer.join(TIMEOUT)
    assert len(config) == 4 * 100 * 2
