from importlib.metadata import EntryPoint

import pytest

from threadko.testing import pytest as plugin

TEST_FILE = """
class Service:
    name = "service"

made = []

def test_makes_container(container_factory):
    container = container_factory(Service, {"own": 1})
    assert dict(container.config) == EXPECTED
    container.start()
    made.append(container)

def test_makes_runner(runner_factory):
    runner = runner_factory(Service, config={"own": 1})
    assert dict(runner.containers[0].config) == EXPECTED
    runner.start()
    made.append(runner)

def test_all_have_ended():
    assert len(made) == 2
    for each in made:
        each.wait()
"""

# The plugin is named, not found by its entry point: the package may or may not be installed.
PLUGIN = ("-p", "no:threadko", "-p", "threadko.testing.pytest")


@pytest.fixture
def run_tests(pytester):
    def run(expected, *args, plugin=PLUGIN):
        pytester.makepyfile(TEST_FILE.replace("EXPECTED", repr(expected)))
        return pytester.runpytest_inprocess(*plugin, *args)

    return run


def test_fixtures_make_containers_and_runners_that_end_with_their_test(run_tests):
    run_tests({"own": 1}).assert_outcomes(passed=3)


def test_option_names_the_broker_of_containers_and_runners(run_tests):
    result = run_tests({"own": 1, "AMQP_URI": "amqp://option"}, "--amqp-uri", "amqp://option")
    result.assert_outcomes(passed=3)


def test_option_of_another_plugin_is_used_when_there_is_one(pytester, run_tests):
    pytester.makepyfile(
        otherplugin="def pytest_addoption(parser): parser.addoption('--amqp-uri', default='theirs')"
    )
    pytester.syspathinsert()
    result = run_tests({"own": 1, "AMQP_URI": "theirs"}, plugin=("-p", "otherplugin", *PLUGIN))
    result.assert_outcomes(passed=3)


def test_option_is_left_to_the_plugin_of_nameko_when_that_is_installed(monkeypatch):
    point = EntryPoint("pytest_nameko", "nameko.testing.pytest", "pytest11")
    monkeypatch.setattr(plugin, "entry_points", lambda group: [point])
    parser = pytest.Parser(_ispytest=True)
    plugin.pytest_addoption(parser)
    assert parser.getgroup("threadko").options == []
