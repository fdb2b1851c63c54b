//! The list of cases, for [`cases`](super::cases) and for the macro that makes tests of them.

use super::Case;

/// Makes a test of each conformance case: `conformance_suite!(async ||
/// Backend::from(Memory::new()));`
///
/// The factory is called for each case, without arguments. It returns a future of a backend that is
/// not started and shares nothing with others, or of a pair of the backend and a value that must
/// live as long. See [`testing::conformance`](crate::testing::conformance).
#[macro_export]
macro_rules! conformance_suite {
    ($factory:expr $(,)?) => {
        async fn conformance_fixture() -> $crate::testing::conformance::Fixture {
            $crate::testing::conformance::Fixture::from(($factory)().await)
        }

        $crate::__conformance_cases! { $crate::__conformance_tests }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_tests {
    ($($module:ident: $($name:ident)+;)+) => {$(
        mod $module {$(
            #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let name = concat!(stringify!($module), "::", stringify!($name));
                $crate::testing::conformance::run(name, super::conformance_fixture().await).await;
            }
        )+}
    )+};
}

macro_rules! collect {
    ($($module:ident: $($name:ident)+;)+) => {
        vec![$($(Case {
            name: concat!(stringify!($module), "::", stringify!($name)),
            run: |backend| Box::pin(async move { super::$module::$name(&backend).await }),
        }),+),+]
    };
}

pub(super) fn cases() -> Vec<Case> {
    crate::__conformance_cases! { collect }
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_cases {
    ($($then:tt)+) => {
        $($then)+! {
            lifecycle:
                a_backend_says_what_it_is_before_it_starts
                nothing_works_before_startup
                starting_and_stopping_twice_is_once
                nothing_works_after_shutdown;
            broker:
                a_message_arrives_as_it_was_kicked
                a_waiting_listener_gets_what_is_kicked_later
                a_second_kick_under_an_id_adds_nothing
                an_id_is_taken_while_its_message_is_held
                an_id_is_taken_while_its_message_waits_for_its_time
                an_id_is_free_again_after_the_ack
                a_repeated_kick_makes_no_second_message
                racing_kicks_under_one_id_make_one_message
                a_bulk_kick_tells_each_fate_in_order
                a_bulk_kick_arrives_whole
                a_body_of_the_largest_size_arrives
                a_body_over_the_limit_is_refused
                a_message_past_its_expiry_is_delivered
                high_priority_comes_before_low
                messages_of_one_priority_come_in_order
                a_delivery_that_nobody_finishes_comes_back
                an_extended_delivery_stays_away
                an_acked_message_never_returns
                a_late_ack_leaves_a_later_message_of_the_id_alone
                a_released_message_comes_back_at_once
                a_released_message_waits_for_its_delay
                a_released_message_keeps_its_priority
                the_first_listener_sets_the_lease_of_a_queue
                a_successor_takes_the_place_of_its_message
                a_successor_waits_for_its_time
                a_delivery_can_be_put_off
                a_replaced_delivery_can_do_nothing_more
                of_two_replacements_one_wins
                a_replaced_delivery_is_not_the_newest
                the_id_of_a_replaced_message_stays_taken
                a_delayed_message_comes_at_its_time
                a_time_that_has_passed_delays_nothing
                delays_end_in_the_order_of_their_times
                a_delayed_message_keeps_its_priority
                what_is_in_the_broker_is_found
                a_delayed_message_is_found_as_not_ready
                depths_count_what_is_ready_held_and_delayed
                depths_tell_retries_from_first_attempts
                depths_tell_since_when_the_oldest_is_ready
                queues_are_those_that_were_used
                a_message_is_listed_as_it_is_found
                messages_are_listed_in_the_order_of_their_kicks
                a_filter_by_queue_shows_that_queue
                a_filter_tells_ready_from_scheduled_and_retrying
                a_delayed_message_is_listed_as_ready_in_its_time
                what_has_left_the_broker_is_not_listed
                a_list_may_be_empty
                pages_have_no_gap_and_no_repetition
                a_page_is_full_while_there_is_more
                messages_may_come_and_go_between_two_pages
                a_removed_message_is_gone
                a_removed_delayed_message_never_comes
                a_removed_message_is_out_of_its_holders_hands
                a_removed_message_is_not_delivered_again
                a_removal_spares_the_successor
                a_removal_spares_a_later_message_of_the_id
                a_bulk_removal_tells_each_fate_in_order
                of_racing_removals_one_finds_the_message
                a_watcher_sees_what_is_kicked
                a_watcher_that_does_not_read_holds_nobody_up
                a_shutdown_ends_the_watches_of_messages
                an_examination_tells_and_changes_nothing
                queues_are_separate
                a_listener_serves_several_queues
                a_listener_gets_no_more_than_it_asked_for
                listeners_share_a_queue_without_doubles
                stop_gives_back_what_was_prefetched
                a_stopped_listener_hands_out_nothing
                what_was_handed_out_outlives_its_listener
                a_dropped_listener_loses_nothing
                giving_up_waiting_loses_nothing
                odd_names_arrive_as_they_are
                odd_names_are_listed_as_they_are
                names_that_look_alike_are_not_mixed_up;
            jobs:
                a_record_comes_back_as_it_was_put
                an_unknown_job_has_no_record
                an_existing_record_is_not_absent
                a_write_needs_the_newest_revision
                a_refused_write_changes_nothing
                revisions_grow
                a_change_of_status_leaves_one_record
                a_record_vanishes_after_its_ttl
                a_later_write_decides_about_the_ttl
                of_racing_writers_of_a_new_record_one_wins
                of_racing_writers_over_a_record_one_wins
                odd_ids_and_queues_are_kept_apart
                a_record_is_listed_as_it_was_put
                records_are_listed_in_the_order_of_their_latest_writes
                a_record_is_listed_under_its_newest_status_alone
                a_filter_shows_the_records_of_its_queue_and_status
                pages_of_records_have_no_gap_and_no_repetition
                a_page_of_records_is_full_while_there_are_more
                records_may_be_written_between_two_pages
                what_is_gone_is_not_listed
                counts_are_as_many_as_are_listed
                a_removed_record_is_gone
                a_record_is_removed_only_as_it_was_read
                a_bulk_removal_of_records_tells_each_fate_in_order
                trim_keeps_the_newest_of_a_status
                trim_spares_the_jobs_that_ended_later
                a_blocked_record_is_listed_counted_and_watched
                a_failed_record_becomes_blocked_for_good
                a_watcher_sees_the_records_of_its_job
                a_watcher_of_all_sees_all
                a_watcher_never_sees_a_refused_write
                a_shutdown_ends_the_watches_of_records;
            kv:
                a_value_comes_back_as_it_was_put
                an_unknown_key_has_no_value
                an_existing_key_is_not_absent
                a_write_needs_the_newest_revision
                a_refused_write_changes_nothing
                revisions_grow
                a_deleted_key_is_gone
                a_conditional_delete_needs_the_newest_revision
                a_scan_gives_the_keys_of_a_prefix_in_order
                many_keys_are_read_in_their_order
                a_key_vanishes_after_its_ttl
                a_key_put_after_a_delete_has_its_ttl
                a_later_write_decides_about_the_ttl
                a_key_that_is_written_again_and_again_is_never_missing
                of_racing_writers_of_a_new_key_one_wins
                conditional_writes_lose_no_update
                a_watcher_sees_the_changes_of_its_prefix
                a_watcher_never_sees_a_refused_write
                a_key_that_vanishes_is_no_change
                a_confirmed_write_is_in_each_later_read
                of_racing_writers_over_a_key_one_wins
                a_key_with_a_ttl_of_a_second_is_gone_within_three
                a_scan_is_complete_among_many_keys
                a_prefix_consists_of_whole_parts
                a_thousand_keys_are_watched_one_by_one
                a_watcher_sees_each_write_soon_and_in_order
                odd_keys_are_kept_apart;
        }
    };
}

#[cfg(test)]
mod tests {
    /// A case that is not listed would never run.
    #[test]
    fn every_case_is_listed() {
        let sources = [
            ("lifecycle", include_str!("lifecycle.rs")),
            ("broker", include_str!("broker/delay.rs")),
            ("broker", include_str!("broker/examine.rs")),
            ("broker", include_str!("broker/kick.rs")),
            ("broker", include_str!("broker/lease.rs")),
            ("broker", include_str!("broker/list.rs")),
            ("broker", include_str!("broker/listen.rs")),
            ("broker", include_str!("broker/inspect.rs")),
            ("broker", include_str!("broker/names.rs")),
            ("broker", include_str!("broker/order.rs")),
            ("broker", include_str!("broker/remove.rs")),
            ("broker", include_str!("broker/replace.rs")),
            ("broker", include_str!("broker/watch.rs")),
            ("jobs", include_str!("jobs/list.rs")),
            ("jobs", include_str!("jobs/put.rs")),
            ("jobs", include_str!("jobs/remove.rs")),
            ("jobs", include_str!("jobs/watch.rs")),
            ("kv", include_str!("kv.rs")),
        ];
        let written = sources.iter().flat_map(|(module, source)| {
            let functions = source.split("\npub async fn ").skip(1);
            functions.filter_map(move |text| Some(format!("{module}::{}", text.split_once('(')?.0)))
        });
        let mut written: Vec<String> = written.collect();
        let mut listed: Vec<String> = super::cases().iter().map(|case| case.name().to_owned()).collect();
        written.sort();
        listed.sort();
        assert_eq!(written, listed);
    }
}
