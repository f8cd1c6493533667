//! The duties of a driver, one test each, against sockets on loopback. The same table runs on every driver of the kernel, and on
//! io_uring also as a kernel before Linux 6.17 has it.

mod accepting;
mod bench;
mod duties;

pub(super) use bench::can_be_had;
use bench::{epoll, uring, uring_once};

/// Defines each duty as a test on each driver.
macro_rules! duties {
    ($($of:ident::$duty:ident)+) => {
        mod on_epoll {
            $(#[test] fn $duty() { super::$of::$duty(super::epoll()) })+
        }
        mod on_uring {
            $(#[test] fn $duty() { super::uring().map(super::$of::$duty).unwrap_or_default() })+
        }
        mod on_uring_before_linux_6_17 {
            $(#[test] fn $duty() { super::uring_once().map(super::$of::$duty).unwrap_or_default() })+
        }
    };
}

duties! {
    duties::what_a_peer_sends_is_received_in_order
    duties::input_is_lent_mutable
    duties::what_is_sent_arrives_in_order
    duties::segments_leave_as_one_stream
    duties::a_send_to_a_full_socket_goes_on_when_the_peer_reads
    duties::a_block_is_held_until_the_kernel_has_taken_it
    duties::push_tells_what_was_taken
    duties::push_of_a_full_socket_tells_nothing
    duties::what_was_sent_is_told_before_what_came
    duties::nothing_comes_while_reading_is_paused
    duties::a_paused_socket_keeps_at_most_its_budget
    duties::the_end_of_the_input_is_told_once_and_behind_its_bytes
    duties::the_end_of_the_input_is_not_told_again_with_other_news
    duties::an_end_that_comes_while_paused_is_told_afterwards
    duties::a_loud_peer_keeps_no_other_waiting
    duties::more_at_once_than_there_are_buffers_arrives_whole
    duties::a_reset_is_told
    duties::a_send_to_a_broken_connection_fails
    duties::after_shutdown_the_peer_sees_the_end_and_is_heard
    duties::after_close_one_event_comes
    duties::a_close_ends_a_send_under_way
    duties::a_close_in_order_delivers_what_was_taken
    duties::a_close_by_reset_resets
    duties::slots_are_used_again_and_hear_nothing_old
    accepting::connections_come_from_every_listener
    accepting::no_more_are_accepted_in_a_turn_than_the_batch
    accepting::a_crowd_at_one_listener_keeps_no_other_waiting_and_is_not_held
    accepting::while_accepting_is_paused_nobody_new_is_told
    accepting::closing_listeners_take_in_who_is_queued
    accepting::the_listener_to_keep_is_kept
    accepting::another_driver_can_adopt_what_one_accepted
    duties::the_bell_ends_the_wait
    duties::the_wait_ends_in_time
    duties::a_dropped_driver_leaves_nothing_open
}
