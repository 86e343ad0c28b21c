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
            "faults/test_stop_states.py::test_stop_ends_by_its_deadline_in_every_state",
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
            "messaging/test_consumer.py::test_exhausted_message_lies_in_the_dead_queue_with_its_story",
            "amqp/test_intake.py::test_failed_message_comes_back_at_once_and_then_after_pauses",
        ),
    ),
    Row(
        23,
        "poison header (decoder)",
        (
            "rpc/test_server.py::test_service_lives_when_a_header_is_hostile",
            "faults/test_hostile_requests.py::test_request_is_dropped_when_its_headers_cannot_be_read",
            "messaging/test_consumer.py::test_no_header_saves_a_message_from_its_dead_queue",
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
        (
            "faults/test_hostile_requests.py::test_each_odd_request_is_answered_once",
            "faults/test_hostile_messages.py::test_request_whose_body_is_bad_json_is_malformed",
            "faults/test_fuzz_rpc.py::test_each_of_ten_thousand_mutated_requests_is_answered_once",
            "faults/test_hostile_messages.py::test_message_that_cannot_be_read_lies_in_the_dead_queue",
            "faults/test_hostile_messages.py::test_odd_message_is_handled_or_lies_in_the_dead_queue",
        ),
    ),
    Row(
        29,
        "pickle/yaml content-type",
        ("faults/test_refused_serializers.py::test_what_would_run_code_is_refused_and_runs_none",),
    ),
    Row(
        30,
        "worker raises BaseException/SystemExit/KeyboardInterrupt",
        (
            "rpc/test_server.py::test_caller_is_told_when_the_method_would_end_its_thread",
            "messaging/test_consumer.py::test_error_of_any_kind_is_the_end_of_its_message_alone",
        ),
    ),
    Row(
        31,
        "exception in done-callback",
        (
            "concurrency/test_callbacks.py::test_callback_that_raises_is_logged_and_does_not_stop_the_next",
            "rpc/test_calls.py::test_done_callbacks_still_run_when_one_leaves_its_thread",
            "concurrency/test_slots.py::test_job_that_raises_costs_neither_slot_nor_thread",
        ),
    ),
    Row(
        32,
        "result unserialisable",
        (
            "rpc/test_server.py::test_caller_is_told_when_the_result_cannot_be_encoded",
            "rpc/test_server.py::test_dependencies_see_the_error_that_an_unserialisable_result_becomes",
            "serialization/test_codecs.py::test_what_cannot_be_encoded_is_an_encode_error",
        ),
    ),
    Row(
        33,
        "link lost between reply and ack",
        (
            "faults/test_redelivery.py::test_request_that_comes_again_after_its_reply_is_answered_once",
            "rpc/test_requests.py::test_unconfirmed_reply_is_sent_again_when_the_connection_is_lost",
            "rpc/test_requests.py::test_request_is_not_acknowledged_before_its_reply_is_confirmed",
        ),
    ),
    Row(
        34,
        "worker hung at shutdown",
        (
            "stories/test_process.py::test_worker_that_hangs_is_left_and_its_request_goes_back",
            "cli/test_run.py::test_command_ends_by_the_deadline_while_a_worker_hangs",
            "faults/test_stop_states.py::test_stop_ends_by_its_deadline_in_every_state",
            "faults/test_stop_states.py::TestAlarm::test_stop_ends_by_its_deadline_in_a_memory_alarm",
        ),
    ),
    Row(
        35,
        "SIGTERM in flight",
        (
            "stories/test_process.py::test_calls_that_run_are_answered_when_a_signal_stops_the_service",
            "stories/test_process.py::test_what_was_begun_is_answered_once_and_the_rest_stays_in_the_queue",
            "stories/test_graceful_stop.py::test_ten_that_run_are_answered_and_twenty_prefetched_are_left_to_the_next_instance",
        ),
    ),
    Row(
        36,
        "second SIGTERM/SIGINT",
        (
            "stories/test_process.py::test_second_signal_ends_the_grace_and_loses_nothing",
            "stories/test_process.py::test_third_signal_ends_a_kill_that_hangs",
        ),
    ),
    Row(
        37,
        "signal handler deadlock",
        (
            "faults/test_signals.py::test_signal_at_every_line_of_the_main_thread_is_heard",
            "stories/test_signals.py::test_signals_until_the_very_end_leave_no_traceback",
        ),
    ),
    Row(
        38,
        "blocked signals inherited",
        ("faults/test_signals.py::test_child_of_a_worker_inherits_no_blocked_signal",),
    ),
    Row(
        39,
        "SIGKILL mid-work",
        (
            "stories/test_sigkill.py::test_every_call_is_answered_while_an_instance_is_killed_in_its_work",
            "stories/test_events.py::test_at_least_once_though_an_instance_is_killed_in_the_middle",
        ),
    ),
    Row(
        40,
        "pool full",
        (
            "rpc/test_server.py::test_no_more_is_taken_than_the_prefetch",
            "amqp/test_publishing.py::test_window_is_never_exceeded_by_many_threads",
            "containers/test_workforce.py::test_spawn_worker_waits_while_every_slot_is_taken",
        ),
    ),
    Row(
        41,
        "self-call, max_workers=1",
        (
            "rpc/test_providers.py::test_service_that_calls_itself_in_vain_is_alive_after_its_timeout",
            "stories/test_embedding.py::test_service_that_waits_for_itself_is_warned_of",
        ),
    ),
    Row(
        42,
        "reply lost / late",
        (
            "rpc/test_replies.py::test_timeout_is_not_put_off_when_other_replies_come",
            "rpc/test_replies.py::test_call_times_out_and_its_late_reply_is_ignored",
            "faults/test_hostile_replies.py::test_late_reply_changes_nothing",
        ),
    ),
    Row(
        43,
        "reply with unknown/non-str correlation id",
        (
            "faults/test_hostile_replies.py::test_replies_that_nobody_waits_for_are_taken_off_the_queue",
            "rpc/test_replies.py::test_replies_are_acknowledged_whoever_they_are_for",
        ),
    ),
    Row(
        44,
        "reply queue expired while down",
        (
            "faults/test_reply_queues.py::test_call_fails_when_its_reply_queue_expired_and_the_next_has_a_new_one",
            "rpc/test_replies.py::test_calls_that_wait_fail_when_the_reply_queue_is_gone_after_a_reconnect",
        ),
    ),
    Row(
        45,
        "exclusive reply queue + half-open",
        (
            "faults/test_reply_queues.py::test_reply_queue_is_consumed_again_while_the_broker_holds_the_dead_connection",
        ),
    ),
    Row(
        46,
        "request redelivered, reply twice",
        (
            "faults/test_hostile_replies.py::test_first_reply_counts_when_a_call_is_answered_twice",
            "faults/test_redelivery.py::test_request_that_comes_again_after_its_reply_is_answered_once",
            "rpc/test_requests.py::test_request_that_comes_again_is_not_run_when_its_reply_is_on_its_way",
            "rpc/test_requests.py::test_copies_of_a_request_that_come_again_are_settled_by_its_one_reply",
        ),
    ),
    Row(
        47,
        "fork after start",
        (
            "standalone/test_rpc.py::test_forked_child_becomes_a_client_of_its_own",
            "containers/test_exits.py::test_container_is_refused_in_a_forked_child",
            "containers/test_exits.py::test_end_of_a_forked_child_is_not_the_end_of_the_container",
        ),
    ),
    Row(
        48,
        "forked child keeps socket, parent SIGKILLed",
        (
            "faults/test_forks.py::test_consumer_is_freed_when_its_process_is_killed_and_a_forked_child_lives_on",
        ),
    ),
    Row(
        49,
        "too many open files",
        (
            "amqp/test_link.py::test_link_survives_a_process_that_has_no_descriptors_left",
            "web/test_listener.py::test_process_without_descriptors_waits_and_serves_again",
        ),
    ),
    Row(
        50,
        "timer overrun",
        (
            "test_timer.py::test_ticks_do_not_overlap",
            "test_timer.py::test_missed_ticks_are_skipped_and_one_comes_at_once",
            "test_timer.py::test_missed_ticks_are_logged_once_until_it_is_in_time_again",
        ),
    ),
    Row(
        51,
        "clock jump",
        (
            "faults/test_clocks.py::test_jumps_of_the_wall_clock_move_neither_timers_nor_deadlines",
            "faults/test_clocks.py::test_jumps_of_the_wall_clock_close_no_idle_http_connection",
            "test_house.py::test_house_is_in_order",
        ),
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
            "web/test_connection.py::test_slow_senders_hold_nobody_up_and_are_cut_off",
        ),
    ),
    Row(
        54,
        "slow body / never-reading client",
        (
            "faults/test_web.py::test_trickling_client_is_cut_off_and_no_worker_runs_for_it",
            "web/test_gateway.py::test_client_that_does_not_read_holds_no_worker",
            "web/test_gateway.py::test_clients_that_do_not_read_leave_threads_to_the_others",
        ),
    ),
    Row(
        55,
        "header/URI/body too large",
        (
            "faults/test_web.py::test_limits_hold_to_the_byte",
            "web/test_connection.py::test_bad_shapes_get_their_status_once_and_cost_nothing",
        ),
    ),
    Row(
        56,
        "bad chunking",
        (
            "web/test_connection.py::test_bad_shapes_get_their_status_once_and_cost_nothing",
            "web/test_parser.py::test_bad_requests_are_refused",
        ),
    ),
    Row(
        57,
        "smuggling",
        (
            "web/test_connection.py::test_bad_shapes_get_their_status_once_and_cost_nothing",
            "web/test_connection.py::test_good_shapes_are_answered_one_after_the_other",
            "web/test_parser.py::test_nothing_can_hide_in_a_body",
        ),
    ),
    Row(
        58,
        "path traversal, %00, bad UTF-8",
        (
            "faults/test_web.py::test_path_is_a_text_for_a_route_and_never_a_file",
            "web/test_connection.py::test_bad_shapes_get_their_status_once_and_cost_nothing",
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
        ("web/test_gateway.py::test_client_that_leaves_closes_the_stream",),
    ),
    Row(
        61,
        "handler BaseException in HTTP",
        ("web/test_gateway.py::test_handler_that_raises_anything_leaves_the_server_serving",),
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
        (
            "rpc/test_server.py::test_request_is_settled_when_a_hook_raises",
            "containers/test_worker.py::test_failure_before_the_outcome_becomes_the_outcome",
            "containers/test_worker.py::test_failure_after_the_outcome_is_logged_and_the_rest_still_runs",
            "containers/test_container.py::test_failing_start_is_undone_and_raises_the_error",
            "containers/test_container.py::test_every_step_is_done_when_a_hook_raises",
            "containers/test_container.py::test_kill_goes_on_when_a_hook_raises",
        ),
    ),
    Row(
        72,
        "container startup half fails",
        (
            "containers/test_container.py::test_failing_start_is_undone_and_raises_the_error",
            "test_runners.py::test_failing_start_leaves_no_service_alive_and_raises_the_error",
            "faults/test_start_failures.py::test_command_ends_with_code_1_when_one_service_cannot_start",
        ),
    ),
    Row(
        73,
        "log flood",
        ("faults/test_log_flood.py::test_hundred_refused_connections_are_a_few_lines",),
    ),
    Row(
        74,
        "exception object shared by waiters",
        (
            "faults/test_shared_errors.py::test_each_of_ten_thousand_publishers_gets_a_small_error_of_its_own",
            "faults/test_shared_errors.py::test_each_of_ten_thousand_callers_gets_a_small_error_of_its_own",
            "rpc/test_calls.py::test_each_who_asks_gets_an_exception_of_its_own",
        ),
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
        (
            "faults/test_silent_consumers.py::test_deliveries_that_vanished_come_again_when_the_watchdog_finds_out",
        ),
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
