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
        (
            "faults/test_broker_gone.py::test_idle_service_and_client_are_back_after_a_stop_with_a_line_at_most_for_each_attempt",
        ),
    ),
    Row(
        2,
        "broker SIGKILL, consuming, work in flight",
        (
            "faults/test_broker_gone.py::test_work_in_flight_is_done_again_and_answered_when_the_broker_is_killed",
            "stories/test_broker_restart.py::test_every_call_is_answered_while_the_broker_restarts",
        ),
    ),
    Row(
        3,
        "broker dies while publish waits confirm",
        (
            "amqp/test_publishing.py::test_unconfirmed_message_fails_without_retry_and_is_not_sent_again",
            "amqp/test_publishing.py::test_unconfirmed_message_is_sent_again_with_the_same_id",
            "amqp/test_publishing.py::test_nothing_that_was_confirmed_is_lost_when_the_connection_is_cut_again_and_again",
            "rpc/test_replies.py::test_request_is_sent_again_when_the_connection_is_lost_before_its_confirm",
        ),
    ),
    Row(
        4,
        "broker dies while RPC waits reply",
        (
            "stories/test_calls.py::test_call_is_answered_when_the_caller_s_connection_is_lost_while_it_waits",
            "rpc/test_replies.py::test_call_is_answered_when_the_connection_is_lost_meanwhile",
        ),
    ),
    Row(
        5,
        "confirms off",
        (
            # There are always confirms here: nothing is at most once.
            "faults/test_holes.py::test_publish_without_confirms_is_told_all_the_same_that_it_went_into_a_hole",
        ),
    ),
    Row(
        6,
        "TCP hole, both ways",
        (
            "faults/test_holes.py::test_idle_service_behind_a_hole_is_noticed_by_its_heartbeats_and_connects_when_it_is_over",
            "faults/test_holes.py::test_publisher_behind_a_hole_is_told_by_its_deadline_and_connects_anew",
            "stories/test_cuts.py::test_every_call_is_answered_while_connections_go_silent",
        ),
    ),
    Row(
        7,
        "half-open, up only / down only",
        (
            "faults/test_holes.py::test_idle_service_behind_a_hole_is_noticed_by_its_heartbeats_and_connects_when_it_is_over",
            "faults/test_holes.py::test_publisher_behind_a_hole_is_told_by_its_deadline_and_connects_anew",
        ),
    ),
    Row(
        8,
        "connect into a hole",
        (
            "faults/test_holes.py::test_idle_service_behind_a_hole_is_noticed_by_its_heartbeats_and_connects_when_it_is_over",
            "amqp/test_link.py::test_stop_ends_the_link_in_time_in_any_state",
            "stories/test_process.py::test_start_ends_when_it_is_stopped_before_the_broker_says_anything",
        ),
    ),
    Row(
        9,
        "refused / DNS / EMFILE / proxy closes / bad vhost",
        (
            "amqp/test_link.py::test_refused_attempts_are_logged_in_one_line_each",
            "amqp/test_link.py::test_name_that_cannot_be_resolved_is_logged_in_one_line_and_tried_again",
            "amqp/test_link.py::test_link_survives_a_process_that_has_no_descriptors_left",
            "amqp/test_link.py::test_peer_that_is_no_broker_is_tried_again",
            "amqp/test_link.py::test_refusal_for_good_is_raised_at_once_and_ends_the_thread",
        ),
    ),
    Row(
        10,
        "connection thread starved by Python threads",
        ("faults/test_starvation.py::test_heartbeats_flow_while_every_worker_computes",),
    ),
    Row(
        11,
        "one C call holds GIL > 2 x heartbeat",
        (
            "faults/test_starvation.py::test_service_connects_anew_when_c_code_keeps_the_interpreter_for_longer_than_the_broker_waits",
        ),
    ),
    Row(
        12,
        "user code on the Link thread",
        (
            "amqp/test_publishing.py::test_publishing_on_the_connection_thread_is_refused",
            "rpc/test_replies.py::test_call_is_refused_on_the_connection_s_own_thread",
            "amqp/test_publishing.py::test_done_callbacks_do_not_run_on_the_connection_thread",
        ),
    ),
    Row(
        13,
        "channel 406 (double ack etc.)",
        (
            "amqp/test_consuming.py::test_double_acknowledgement_costs_a_channel_and_consuming_goes_on",
            "rpc/test_requests.py::test_requests_come_again_when_the_broker_closes_their_channel",
        ),
    ),
    Row(
        14,
        "stale ack on new channel",
        (
            "amqp/test_consuming.py::test_late_acknowledgement_does_not_settle_a_message_of_the_next_connection",
            "amqp/test_consuming.py::test_late_acknowledgement_does_not_settle_a_message_of_the_next_channel",
            "rpc/test_requests.py::test_late_acknowledgement_does_not_settle_somebody_else_s_request",
        ),
    ),
    Row(
        15,
        "queue deleted under consumer",
        (
            "faults/test_withdrawals.py::test_service_declares_its_queue_again_when_that_is_deleted",
            "amqp/test_consuming.py::test_queue_deleted_again_and_again_is_consumed_in_the_end",
        ),
    ),
    Row(
        16,
        "queue declared with other args",
        (
            "faults/test_refusals.py::test_queue_with_other_arguments_ends_a_start",
            "rpc/test_requests.py::test_link_pauses_between_attempts_when_its_queue_has_become_another",
        ),
    ),
    Row(
        17,
        "consumer_timeout",
        (
            "faults/test_alarms.py::test_request_comes_again_when_its_worker_takes_longer_than_the_broker_waits",
        ),
    ),
    Row(
        18,
        "memory alarm, publishing",
        (
            "faults/test_alarms.py::test_publishers_fail_by_their_deadline_in_an_alarm_and_what_they_sent_arrives_once",
            "faults/test_alarms.py::test_consumer_takes_and_acknowledges_messages_in_an_alarm",
            "faults/test_alarms.py::test_calls_fail_by_their_deadline_in_an_alarm_without_a_storm_of_resets",
            "faults/test_alarms.py::test_what_is_finished_in_an_alarm_runs_once",
        ),
    ),
    Row(
        19,
        "close() while blocked or in a hole",
        (
            "faults/test_alarms.py::test_service_stops_within_its_deadline_in_an_alarm",
            "amqp/test_link.py::test_stop_ends_the_link_in_time_in_any_state",
            "faults/test_alarms.py::test_client_stops_within_its_deadline_in_an_alarm",
        ),
    ),
    Row(
        20,
        "mandatory, no route",
        (
            "rpc/test_replies.py::test_call_fails_at_once_when_no_queue_takes_its_requests",
            "amqp/test_publishing.py::test_mandatory_messages_among_others_fail_alone",
        ),
    ),
    Row(
        21,
        "missing exchange",
        (
            "amqp/test_publishing.py::test_missing_exchange_fails_those_who_asked_for_it_and_nobody_else",
        ),
    ),
    Row(
        22,
        "poison message (handler always raises)",
        (
            "rpc/test_server.py::test_caller_is_told_what_the_method_raised",
            "faults/test_broker_limits.py::test_poison_leaves_a_quorum_queue_when_it_was_delivered_as_often_as_allowed",
            "test_messaging.py::test_exhausted_message_lies_in_the_dead_queue_with_its_story",
            "amqp/test_intake.py::test_failed_message_comes_back_at_once_and_then_after_pauses",
        ),
    ),
    Row(
        23,
        "poison header (decoder)",
        (
            "rpc/test_server.py::test_service_lives_when_a_header_is_hostile",
            "faults/test_hostile_requests.py::test_request_is_dropped_when_its_headers_cannot_be_read",
            "test_messaging.py::test_no_header_saves_a_message_from_its_dead_queue",
        ),
    ),
    Row(
        24,
        "lossy headers",
        (
            "faults/test_hostile_requests.py::test_each_odd_request_is_answered_once",
            "faults/test_hostile_requests.py::test_correlation_id_comes_back_as_it_was_sent",
            "amqp/test_message.py::test_float_in_headers_survives",
            "amqp/test_tables.py::test_table_survives_encoding_and_decoding",
        ),
    ),
    Row(
        25,
        "unencodable outgoing headers",
        (
            "amqp/test_publishing.py::test_message_that_cannot_be_sent_is_refused_and_costs_nobody_anything",
            "rpc/test_replies.py::test_call_is_refused_when_it_cannot_be_sent",
            "test_events.py::test_context_that_cannot_be_sent_is_an_error_where_it_is_dispatched",
            "amqp/test_tables.py::test_unencodable_value_is_refused_by_its_key",
        ),
    ),
    Row(
        26,
        "headers > frame_max",
        (
            "amqp/test_publishing.py::test_message_that_cannot_be_sent_is_refused_and_costs_nobody_anything",
            "amqp/test_message.py::test_largest_header_and_body_are_sendable",
            "rpc/test_replies.py::test_call_is_refused_when_it_cannot_be_sent",
        ),
    ),
    Row(
        27,
        "body too big",
        (
            "amqp/test_publishing.py::test_message_that_cannot_be_sent_is_refused_and_costs_nobody_anything",
            "faults/test_broker_limits.py::test_message_that_is_too_large_for_the_broker_fails_alone",
            "faults/test_refused_replies.py::test_the_others_run_once_and_are_answered",
        ),
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
        (),
    ),
    Row(
        76,
        "bytes vanish mid-stream (not a TCP fault, but a bug of ours would look so)",
        (
            "faults/test_silent_consumers.py::test_deliveries_that_vanished_come_again_when_the_watchdog_finds_out",
        ),
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
