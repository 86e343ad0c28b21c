"""The table of faults: what can go wrong, and the tests that show what comes of it.

`make faults` runs those tests, prints the table with the outcome of each row, and writes the
figures of the run to docs/figures.csv, which the page on reliability quotes.
"""

from dataclasses import dataclass

__all__ = ["FIGURES", "ROWS", "Figure", "Row"]


@dataclass(frozen=True)
class Row:
    """A fault, and the ids of its tests, from the folder tests/ on; a function or a class each."""

    number: int
    fault: str
    tests: tuple[str, ...]


@dataclass(frozen=True)
class Figure:
    """A figure that tests record by the fixture `figure(key, seen)`: what it is, and its goal.

    `tests` are those that do so and that no row may name.
    """

    key: str
    what: str
    goal: str
    tests: tuple[str, ...] = ()


ROWS = (
    Row(
        1,
        "broker stop, idle consumer",
        (),
    ),
    Row(
        2,
        "broker SIGKILL, consuming, work in flight",
        (),
    ),
    Row(
        3,
        "broker dies while publish waits confirm",
        (),
    ),
    Row(
        4,
        "broker dies while RPC waits reply",
        (),
    ),
    Row(
        5,
        "confirms off",
        (),
    ),
    Row(
        6,
        "TCP hole, both ways",
        (),
    ),
    Row(
        7,
        "half-open, up only / down only",
        (),
    ),
    Row(
        8,
        "connect into a hole",
        (),
    ),
    Row(
        9,
        "refused / DNS / EMFILE / proxy closes / bad vhost",
        (),
    ),
    Row(
        10,
        "connection thread starved by Python threads",
        (),
    ),
    Row(
        11,
        "one C call holds GIL > 2 x heartbeat",
        (),
    ),
    Row(
        12,
        "user code on the Link thread",
        (),
    ),
    Row(
        13,
        "channel 406 (double ack etc.)",
        (),
    ),
    Row(
        14,
        "stale ack on new channel",
        (),
    ),
    Row(
        15,
        "queue deleted under consumer",
        (),
    ),
    Row(
        16,
        "queue declared with other args",
        (),
    ),
    Row(
        17,
        "consumer_timeout",
        (),
    ),
    Row(
        18,
        "memory alarm, publishing",
        (),
    ),
    Row(
        19,
        "close() while blocked or in a hole",
        (),
    ),
    Row(
        20,
        "mandatory, no route",
        (),
    ),
    Row(
        21,
        "missing exchange",
        (),
    ),
    Row(
        22,
        "poison message (handler always raises)",
        (),
    ),
    Row(
        23,
        "poison header (decoder)",
        (),
    ),
    Row(
        24,
        "lossy headers",
        (),
    ),
    Row(
        25,
        "unencodable outgoing headers",
        (),
    ),
    Row(
        26,
        "headers > frame_max",
        (),
    ),
    Row(
        27,
        "body too big",
        (),
    ),
    Row(
        28,
        "body not bytes, wrong content type, bad encoding, bad, deep or odd JSON",
        (),
    ),
    Row(
        29,
        "pickle/yaml content-type",
        (),
    ),
    Row(
        30,
        "worker raises BaseException/SystemExit/KeyboardInterrupt",
        (),
    ),
    Row(
        31,
        "exception in done-callback",
        (),
    ),
    Row(
        32,
        "result unserialisable",
        (),
    ),
    Row(
        33,
        "link lost between reply and ack",
        (),
    ),
    Row(
        34,
        "worker hung at shutdown",
        (),
    ),
    Row(
        35,
        "SIGTERM in flight",
        (),
    ),
    Row(
        36,
        "second SIGTERM/SIGINT",
        (),
    ),
    Row(
        37,
        "signal handler deadlock",
        (),
    ),
    Row(
        38,
        "blocked signals inherited",
        (),
    ),
    Row(
        39,
        "SIGKILL mid-work",
        (),
    ),
    Row(
        40,
        "pool full",
        (),
    ),
    Row(
        41,
        "self-call, max_workers=1",
        (),
    ),
    Row(
        42,
        "reply lost / late",
        (),
    ),
    Row(
        43,
        "reply with unknown/non-str correlation id",
        (),
    ),
    Row(
        44,
        "reply queue expired while down",
        (),
    ),
    Row(
        45,
        "exclusive reply queue + half-open",
        (),
    ),
    Row(
        46,
        "request redelivered, reply twice",
        (),
    ),
    Row(
        47,
        "fork after start",
        (),
    ),
    Row(
        48,
        "forked child keeps socket, parent SIGKILLed",
        (),
    ),
    Row(
        49,
        "too many open files",
        (),
    ),
    Row(
        50,
        "timer overrun",
        (),
    ),
    Row(
        51,
        "clock jump",
        (),
    ),
    Row(
        52,
        "slowloris: silent connections",
        (),
    ),
    Row(
        53,
        "slowloris: trickle",
        (),
    ),
    Row(
        54,
        "slow body / never-reading client",
        (),
    ),
    Row(
        55,
        "header/URI/body too large",
        (),
    ),
    Row(
        56,
        "bad chunking",
        (),
    ),
    Row(
        57,
        "smuggling",
        (),
    ),
    Row(
        58,
        "path traversal, %00, bad UTF-8",
        (),
    ),
    Row(
        59,
        "response splitting",
        (),
    ),
    Row(
        60,
        "client leaves mid-response",
        (),
    ),
    Row(
        61,
        "handler BaseException in HTTP",
        (),
    ),
    Row(
        62,
        "HTTP queue full",
        (),
    ),
    Row(
        63,
        "HTTP stop",
        (),
    ),
    Row(
        64,
        "websocket bad input",
        (),
    ),
    Row(
        65,
        "websocket cross-origin",
        (),
    ),
    Row(
        66,
        "websocket slow consumer",
        (),
    ),
    Row(
        67,
        "websocket flood of sockets",
        (),
    ),
    Row(
        68,
        "YAML tag / bomb / deep",
        (),
    ),
    Row(
        69,
        "env var injection",
        (),
    ),
    Row(
        70,
        "credential leak",
        (),
    ),
    Row(
        71,
        "dependency raises in setup/start/get_dependency/worker_setup/result/teardown/stop/kill",
        (),
    ),
    Row(
        72,
        "container startup half fails",
        (),
    ),
    Row(
        73,
        "log flood",
        (),
    ),
    Row(
        74,
        "exception object shared by waiters",
        (),
    ),
    Row(
        75,
        "memory over 1M calls",
        (
            "faults/test_soak.py::test_nothing_is_lost_and_nothing_grows",
            (
                "stories/test_long_run.py"
                "::test_memory_threads_and_descriptors_do_not_grow_with_the_calls"
            ),
        ),
    ),
    Row(
        76,
        "bytes vanish mid-stream (not a TCP fault, but a bug of ours would look so)",
        (),
    ),
)

FIGURES = (
    Figure(
        "cuts",
        "connections cut under load",
        "100 cuts, 20,000 confirmed, 0 lost",
        (
            "stories/test_events.py::test_what_was_confirmed_is_handled_though_connections_are_lost",
            "stories/test_cuts.py::test_every_call_is_answered_while_connections_are_lost_at_any_moment",
        ),
    ),
    Figure(
        "holes",
        "black holes under load",
        "10, 10,000 confirmed, 0 lost",
        (
            "stories/test_events.py::test_what_was_confirmed_is_handled_though_connections_are_lost",
            "stories/test_cuts.py::test_every_call_is_answered_while_connections_go_silent",
        ),
    ),
    Figure(
        "broker-restarts",
        "the broker stopped and started",
        "5, 0 lost",
        ("stories/test_broker_restart.py::test_every_call_is_answered_while_the_broker_restarts",),
    ),
    Figure(
        "broker-kills-classic",
        "the broker killed, classic queues",
        "5, 0 lost",
        ("stories/test_broker_restart.py::test_every_call_is_answered_while_the_broker_restarts",),
    ),
    Figure(
        "broker-kills-quorum",
        "the broker killed, quorum queues",
        "5, 0 lost",
        ("stories/test_broker_restart.py::test_every_call_is_answered_while_the_broker_restarts",),
    ),
    Figure(
        "service-kills",
        "the service killed at work",
        "20, 0 lost, duplicates up to prefetch x kills",
        (
            "stories/test_sigkill.py::test_every_call_is_answered_while_an_instance_is_killed_in_its_work",
        ),
    ),
    Figure(
        "service-terms",
        "the service terminated under load",
        "20, 0 lost, 0 duplicated, 0 calls failed",
        (
            "stories/test_graceful_stop.py::test_no_call_fails_and_none_runs_twice_while_instances_take_turns_under_load",
        ),
    ),
    Figure(
        "hole-idle",
        "a black hole found, heartbeat of 1 s, nothing to do",
        "12.5 s",
        ("amqp/test_link.py::test_silent_peer_is_noticed_by_its_missing_heartbeats",),
    ),
    Figure(
        "hole-publish",
        "a black hole found by a publish with a deadline of 1 s",
        "1.5 s",
        (
            "faults/test_recovery.py::test_publish_into_a_black_hole_fails_by_its_deadline_and_the_next_one_arrives",
        ),
    ),
    Figure("stop", "stop() in any of 8 states", "its time-out + 0.5 s"),
    Figure(
        "reconnect",
        "reconnected once the broker is back, 99th percentile",
        "cap of the back-off + 0.5 s",
        ("faults/test_recovery.py::test_all_are_connected_soon_after_the_broker_is_back",),
    ),
    Figure(
        "http", "bad HTTP inputs", "120 shapes, one response each, no traceback, no thread lost"
    ),
    Figure("amqp", "bad AMQP messages", "80, the consumer stays, each answered or dead-lettered"),
    Figure("websocket", "bad websocket inputs", "15"),
    Figure("json", "bad JSON bodies", "40"),
    Figure("yaml", "bad YAML files", "10"),
    Figure("environment", "bad environment variables", "15"),
    Figure("command-line", "bad command lines", "20"),
    Figure("fuzz-rpc", "mutated RPC payloads", "10,000"),
    Figure("fuzz-http", "mutated HTTP requests", "10,000"),
    Figure("fuzz-websocket", "mutated websocket frames", "10,000"),
    Figure("log-lines", "log lines for 100 refused connections", "12"),
    Figure("secrets", "secrets in all that was logged, shown and printed", "0"),
    Figure("soak", "a short soak", "memory + 5 % at most; threads and descriptors equal; 0 lost"),
)
