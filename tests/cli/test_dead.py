"""`threadko dead`, in this process."""

import json

import pytest
from click.testing import CliRunner

from tests.support import amqp
from threadko.cli.main import cli, main


@pytest.fixture
def name(names, broker_uri):
    made = names.queue("alive")
    amqp.declare_queue(broker_uri, made)
    return made


@pytest.fixture
def die(broker_uri, name):
    amqp.declare_queue(broker_uri, f"{name}.dead", durable=True)

    def die(*values, reason="exhausted"):
        for value in values:
            amqp.publish(
                broker_uri,
                json.dumps(value).encode(),
                routing_key=f"{name}.dead",
                content_type="application/json",
                headers={
                    "x-threadko-reason": reason,
                    "x-threadko-error": "LookupError: no\nsuch thing",
                    "x-threadko-failures": 6,
                    "x-threadko-first-death": "2020-01-02T03:04:05.678+00:00",
                    "own": "kept",
                },
            )

    return die


@pytest.fixture
def run(broker_uri):
    def run(*args, answer=None):
        arguments = ["dead", *args, "-d", f"AMQP_URI={broker_uri}"]
        return CliRunner().invoke(cli, arguments, input=answer)

    return run


def depth(uri, name):
    return amqp.queue_depth(uri, name)


def test_list_has_a_line_for_each(run, die, name, broker_uri):
    die(1, 2)
    result = run("list", name)
    line = "2020-01-02T03:04:05.678+00:00 exhausted 6 LookupError: no such thing"
    assert result.output.splitlines() == [f"    1 {line}", f"    2 {line}"]
    assert run("list", name, "--limit", "1").output.splitlines()[0] == f"    1 {line}"
    assert depth(broker_uri, f"{name}.dead") == 2


def test_show_has_headers_and_body(run, die, name):
    die({"a": 1}, "two")
    result = run("show", name, "1")
    head, _, body = result.output.partition("\n\n")
    assert "own: kept" in head
    assert "x-threadko-reason: exhausted" in head
    assert json.loads(body) == {"a": 1}


def test_show_what_cannot_be_read(run, die, name, broker_uri):
    die("x")
    amqp.take_messages(broker_uri, f"{name}.dead", 1)
    amqp.publish(broker_uri, b"{\xff", routing_key=f"{name}.dead", content_type="application/json")
    assert repr(b"{\xff") in run("show", name, "1").output


def test_replay_puts_those_back_that_are_named(run, die, name, broker_uri):
    die(1, 2, 3)
    assert run("replay", name, "3", "1").output == f"2 put back into {name}\n"
    bodies = [amqp.expect_message(broker_uri, name) for _ in range(2)]
    assert [message.body for message in bodies] == [b"3", b"1"]
    assert bodies[0].properties.headers == {"own": "kept"}
    assert depth(broker_uri, f"{name}.dead") == 1


def test_replay_all(run, die, name, broker_uri):
    die(*range(20))
    assert run("replay", name, "--all").output == f"20 put back into {name}\n"
    bodies = [message.body for message in amqp.take_messages(broker_uri, name, 20)]
    assert bodies == [str(number).encode() for number in range(20)]
    assert depth(broker_uri, f"{name}.dead") == 0


def test_purge_asks_first(run, die, name, broker_uri):
    die(1, 2)
    result = run("purge", name, answer="n\n")
    assert result.exit_code == 2
    assert "nothing was deleted" in result.output
    assert depth(broker_uri, f"{name}.dead") == 2
    assert "2 deleted" in run("purge", name, answer="y\n").output
    assert depth(broker_uri, f"{name}.dead") == 0
    assert run("purge", name, "--yes").output == "0 deleted\n"


@pytest.mark.parametrize(
    ("end", "code", "tells"), [(EOFError, 2, True), (KeyboardInterrupt, 130, False)]
)
def test_question_that_is_not_answered_ends_the_command_and_deletes_nothing(
    die, name, broker_uri, monkeypatch, capsys, end, code, tells
):
    def stop(*args, **kwargs):
        raise end

    die(1)
    monkeypatch.setattr("click.termui.visible_prompt_func", stop)
    monkeypatch.setattr("sys.argv", ["threadko", "dead", "purge", name, f"--broker={broker_uri}"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == code
    assert ("nobody is there to answer; --yes" in capsys.readouterr().err) == tells
    assert depth(broker_uri, f"{name}.dead") == 1


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("show", "NAME", "3"), "there is no message 3: NAME.dead has 1"),
        (("replay", "NAME"), "say which: the numbers of messages, or --all"),
        (("replay", "NAME", "1", "--all"), "say which"),
        (("replay", "NAME", "2"), "there is no message 2"),
        (("show", "NAME", "0"), "0 is not in the range"),
    ],
)
def test_mistakes_are_one_line(run, die, name, args, text):
    die(1)
    result = run(*(name if each == "NAME" else each for each in args))
    assert result.exit_code == 2
    assert text.replace("NAME", name) in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("args", [["list", "NAME"], ["show", "NAME", "1"]])
def test_terminal_obeys_nothing_that_strangers_wrote(run, name, broker_uri, die, args):
    amqp.publish(
        broker_uri,
        b'"\x1b[2J"',
        routing_key=f"{name}.dead",
        content_type="application/json",
        headers={"x-threadko-error": "\x1b[31mred", "x-threadko-reason": "\x9b1m"},
    )
    result = run(*(name if each == "NAME" else each for each in args))
    assert result.exit_code == 0
    assert "\\x1b[31mred" in result.output
    assert not {"\x1b", "\x9b"} & set(result.output)


def test_what_the_limit_leaves_out_is_told(run, die, name, broker_uri):
    die(*range(7))
    assert "4 more are there" in run("list", name, "--limit", "3").output
    assert "5 more are there" in run("replay", name, "--all", "--limit", "2").output
    assert "3 more are there" in run("purge", name, "--yes", "--limit", "2").output
    assert "more" not in run("list", name).output
    assert (depth(broker_uri, name), depth(broker_uri, f"{name}.dead")) == (2, 3)


def test_nothing_is_put_back_into_a_queue_that_is_gone(run, die, name, broker_uri):
    amqp.delete_queue(broker_uri, name)
    die(1)
    result = run("replay", name, "--all")
    assert (result.exit_code, result.output.count("\n")) == (2, 1)
    assert f"there is no queue '{name}'" in result.output
    assert depth(broker_uri, f"{name}.dead") == 1


def test_queue_that_is_not_there_is_one_line(run, names):
    name = names.queue()
    result = run("list", name)
    assert (result.exit_code, result.output.count("\n")) == (2, 1)
    assert f"there is no queue {name}.dead" in result.output


def test_absent_broker_is_one_line():
    arguments = ["-d", "AMQP_URI=amqp://localhost:1/", "-d", "BROKER_START_TIMEOUT=0.1"]
    result = CliRunner().invoke(cli, ["dead", "list", "q", *arguments])
    assert result.exit_code == 3
    assert "Traceback" not in result.output
