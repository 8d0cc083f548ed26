//! One suite, run on SQLite and on a private PostgreSQL: whatever holds on one holds on the other.

// A test says what it expects by failing.
#![allow(clippy::unwrap_used)]

mod common;
mod suite;

macro_rules! on_both_databases {
    ($($module:ident: $($test:ident)+;)+) => {
        mod sqlite {
            $(mod $module { $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    crate::suite::$module::$test(crate::common::World::sqlite()).await;
                }
            )+ })+
        }

        mod postgres {
            $(mod $module { $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    crate::suite::$module::$test(crate::common::World::postgres()).await;
                }
            )+ })+
        }
    };
}

on_both_databases! {
    leases: each_taking_raises_the_fence two_takers_never_hold_one_fence an_overtaken_holder_writes_nothing
        a_run_left_unfinished_is_interrupted runs_keep_their_report;
    pulls: a_pull_goes_on_from_its_last_segment segments_follow_each_other a_dropped_pull_gives_its_files
        one_pull_of_a_source_is_open a_pull_that_finds_nothing_changed_confirms_the_last_one an_ended_pull_waits_for_its_generation when_everything_was_read_last_is_not_forgotten;
    generations: a_commit_moves_the_head_once a_failed_commit_leaves_nothing numbers_are_never_used_again
        a_rollback_replays_what_came_later arms_are_drawn_once_and_control_wins tasks_follow_a_merge tasks_follow_a_split
        components_keep_their_seed a_renamed_campaign_keeps_its_touches a_retired_campaign_sends_nothing
        a_renamed_source_keeps_its_pulls what_no_kept_generation_needs_is_forgotten;
    facts: suppressions_are_listed_and_lifted facts_are_numbered_in_the_order_of_commits;
    decisions: decisions_are_kept_and_withdrawn the_last_word_counts decisions_of_one_order_are_stored_together
        what_was_decided_since_is_known a_rollback_keeps_decisions;
    tasks: a_touch_is_planned_once a_touch_taken_back_is_planned_again payloads_are_sealed lists_are_filtered
        a_gate_takes_open_tasks_back a_task_put_off_is_due_later requeue_and_drop stores_are_counted;
    dispatches: a_group_is_claimed_whole_and_in_order two_claimers_never_get_the_same_task whoever_is_suppressed_is_not_sent_to
        receipts_move_tasks_once a_crash_repeats_the_same_dispatch what_could_not_be_settled_is_taken_up_by_its_holder
        a_channel_that_repeats_is_not_trusted_twice
        a_failed_push_is_tried_again_as_it_was too_many_attempts_end_a_task a_busy_channel_costs_no_attempt a_lost_dispatch_takes_no_receipts
        groups_are_claimed_together a_group_of_which_more_is_left_is_named claimers_of_many_groups_never_get_the_same_task
        dispatches_are_settled_together;
    polls: events_move_tasks_and_leave_facts a_repeated_event_counts_once the_same_events_at_the_same_time_count_once
        events_of_strangers_are_reported
        a_lost_receipt_is_made_good_by_an_event;
    moves: random_moves_agree_with_the_model;
}
