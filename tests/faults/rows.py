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
    """A figure that a test records by the fixture `figure(key, seen)`: what it is, and its goal."""

    key: str
    what: str
    goal: str


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
        (
            "web/test_listener.py::test_silent_connections_hold_no_thread_and_are_closed",
            "web/test_listener.py::test_too_many_connections_get_503",
        ),
    ),
    Row(
        53,
        "slowloris: trickle",
        (
            "faults/test_web.py::test_trickling_client_is_cut_off_and_no_worker_runs_for_it",
            "web/test_listener.py::test_slow_senders_hold_nobody_up_and_are_cut_off",
        ),
    ),
    Row(
        54,
        "slow body / never-reading client",
        (
            "faults/test_web.py::test_trickling_client_is_cut_off_and_no_worker_runs_for_it",
            "web/test_listener.py::test_client_that_does_not_read_holds_no_worker",
            "web/test_listener.py::test_clients_that_do_not_read_leave_threads_to_the_others",
        ),
    ),
    Row(
        55,
        "header/URI/body too large",
        (
            "faults/test_web.py::test_limits_hold_to_the_byte",
            "web/test_listener.py::test_bad_shapes_get_their_status_once_and_cost_nothing",
        ),
    ),
    Row(
        56,
        "bad chunking",
        (
            "web/test_listener.py::test_bad_shapes_get_their_status_once_and_cost_nothing",
            "web/test_parser.py::test_bad_requests_are_refused",
        ),
    ),
    Row(
        57,
        "smuggling",
        (
            "web/test_listener.py::test_bad_shapes_get_their_status_once_and_cost_nothing",
            "web/test_listener.py::test_good_shapes_are_answered_one_after_the_other",
            "web/test_parser.py::test_nothing_can_hide_in_a_body",
        ),
    ),
    Row(
        58,
        "path traversal, %00, bad UTF-8",
        (
            "faults/test_web.py::test_path_is_a_text_for_a_route_and_never_a_file",
            "web/test_listener.py::test_bad_shapes_get_their_status_once_and_cost_nothing",
        ),
    ),
    Row(
        59,
        "response splitting",
        (
            "web/test_handlers.py::test_response_that_cannot_begin_is_an_error_and_the_connection_goes_on",
            "web/test_responses.py::test_headers_cannot_be_split",
            "web/test_responses.py::test_head_that_reads_as_another_is_refused",
        ),
    ),
    Row(
        60,
        "client leaves mid-response",
        ("web/test_listener.py::test_client_that_leaves_closes_the_stream",),
    ),
    Row(
        61,
        "handler BaseException in HTTP",
        ("web/test_listener.py::test_handler_that_raises_anything_leaves_the_server_serving",),
    ),
    Row(
        62,
        "HTTP queue full",
        (
            "web/test_listener.py::test_full_pool_says_503_and_serves_again",
            "web/test_listener.py::test_waiting_counts_from_arrival_however_many_wait",
        ),
    ),
    Row(
        63,
        "HTTP stop",
        (
            "web/test_server.py::test_stop_finishes_what_runs_and_closes_what_is_idle",
            "web/test_server.py::test_requests_that_wait_for_a_worker_get_503_at_stop",
            "web/test_server.py::test_stop_past_its_deadline_breaks_the_connection_off",
        ),
    ),
    Row(
        64,
        "websocket bad input",
        (
            "faults/test_web.py::test_bad_websocket_input_is_answered_or_closed_with_its_code",
            "web/test_sockets.py::test_bad_frames_close_with_their_code",
            "web/test_websocket.py::test_bad_messages_are_answered_and_the_socket_lives",
        ),
    ),
    Row(
        65,
        "websocket cross-origin",
        (
            "web/test_websocket.py::test_origins",
            "web/test_websocket.py::test_handshakes_that_are_none",
        ),
    ),
    Row(
        66,
        "websocket slow consumer",
        (
            "web/test_sockets.py::test_reader_that_never_reads_is_cut_off_and_hurts_nobody",
            "web/test_websocket.py::test_five_hundred_sockets_and_fifty_that_never_read",
        ),
    ),
    Row(
        67,
        "websocket flood of sockets",
        (
            "web/test_websocket.py::test_no_more_sockets_than_connections",
            "web/test_websocket.py::test_service_with_websockets_has_one_thread_for_them",
        ),
    ),
    Row(
        68,
        "YAML tag / bomb / deep",
        (
            "faults/test_commands.py::test_bad_file_is_one_line_of_any_command",
            "configuration/test_loader.py::test_a_bad_file_is_an_error_that_names_the_file_and_the_fault",
            "serialization/test_yaml_codec.py::test_few_lines_that_stand_for_an_immense_value_are_refused_at_once",
        ),
    ),
    Row(
        69,
        "env var injection",
        (
            "faults/test_commands.py::test_environment_is_taken_as_text",
            "configuration/test_loader.py::test_variables_in_a_file_are_replaced",
            "configuration/test_loader.py::test_no_tag_comes_in_through_a_variable",
            "configuration/test_substitution.py::test_what_was_put_in_is_not_looked_through_again",
        ),
    ),
    Row(
        70,
        "credential leak",
        ("faults/test_secrets.py::test_no_secret_is_logged_shown_or_printed",),
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
        (),
    ),
    Row(
        76,
        "bytes vanish mid-stream (not a TCP fault, but a bug of ours would look so)",
        (),
    ),
)

FIGURES = (
    Figure("cuts", "connections cut under load", "100 cuts, 20,000 confirmed, 0 lost"),
    Figure("holes", "black holes under load", "10, 10,000 confirmed, 0 lost"),
    Figure("broker-restarts", "the broker stopped and started", "5, 0 lost"),
    Figure("broker-kills-classic", "the broker killed, classic queues", "5, 0 lost"),
    Figure("broker-kills-quorum", "the broker killed, quorum queues", "5, 0 lost"),
    Figure(
        "service-kills",
        "the service killed at work",
        "20, 0 lost, duplicates up to prefetch x kills",
    ),
    Figure(
        "service-terms",
        "the service terminated under load",
        "20, 0 lost, 0 duplicated, 0 calls failed",
    ),
    Figure("hole-idle", "a black hole found, heartbeat of 1 s, nothing to do", "12.5 s"),
    Figure("hole-publish", "a black hole found by a publish with a deadline of 1 s", "1.5 s"),
    Figure("stop", "stop() in any of 8 states", "its time-out + 0.5 s"),
    Figure(
        "reconnect",
        "reconnected once the broker is back, 99th percentile",
        "cap of the back-off + 0.5 s",
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
