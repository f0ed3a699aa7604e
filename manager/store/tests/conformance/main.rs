//! What every back end of the store must do. The suite is a list of functions that take a [`world::Home`]; a second back
//! end runs the same list with another way to open.

#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "the runtime of a test ends with its tasks")]

mod world;

mod agents;
mod cancel;
mod crash;
mod dispatch;
mod history;
mod joins;
mod keys;
mod operators;
mod output;
mod pause;
mod quota;
mod reconcile;
mod restored;
mod results;
mod rights;
mod site;
mod submit;
mod tampering;
mod tokens;

/// Makes one test for each function of the list, each with a store of its own.
macro_rules! suite {
    ($($module:ident :: { $($name:ident),* $(,)? })*) => {$(
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let home = crate::world::Home::new().await;
                    crate::$module::$name(&home).await;
                    home.store.close().await;
                }
            )*
        }
    )*};
}

mod sqlite {
    suite! {
        agents::{
            a_name_is_made_once_and_found_again,
            lists_go_by_name_and_go_on_behind_a_cursor,
            removal_frees_the_name_and_ends_what_was_open,
            quarantine_lasts_until_it_is_lifted,
            sessions_count_up_and_only_the_newest_ends,
            another_generation_is_fenced,
            sessions_that_a_crash_left_open_are_ended,
        }
        submit::{
            a_command_is_there_with_everything_that_was_asked_for,
            a_job_makes_one_command_for_each_agent_and_names_repeat_harmlessly,
            an_unknown_agent_refuses_the_whole_submit,
            a_key_makes_repeats_the_same_and_other_requests_refused,
            a_key_belongs_to_its_caller_and_lasts_a_day,
            thousands_of_submits_at_once_are_all_there_once,
            lists_filter_and_go_on_behind_a_cursor,
            a_page_of_large_commands_ends_early_and_the_next_goes_on,
            a_watch_and_the_events_wake_after_the_commit,
        }
        dispatch::{
            due_records_the_first_send_before_it_answers,
            a_submit_for_a_session_is_accepted_and_sent_in_one_commit,
            what_is_not_answered_is_sent_again_after_a_while,
            nothing_new_goes_to_a_drained_agent,
            nothing_expired_is_sent,
            answers_move_the_command_once,
            a_deferred_command_waits_for_its_time,
            a_refused_command_is_over,
            progress_moves_forward_only,
            others_cannot_speak_of_a_command,
            due_agents_names_exactly_who_has_something,
            queued_commands_expire_and_sent_ones_do_not,
            agents_that_never_come_back_are_given_up,
            two_that_ask_at_once_share_what_is_due,
        }
        cancel::{
            a_queued_command_never_runs,
            a_sent_command_is_wished_away_and_never_sent_again,
            every_phase_answers_a_cancel_as_the_table_says,
            a_plain_second_wish_skips_the_rest_of_the_grace,
            a_second_wish_that_names_a_grace_only_makes_it_more_urgent,
            the_same_call_twice_is_no_second_wish,
            a_cancel_and_a_send_at_once_never_both_win,
        }
        pause::{
            a_wish_is_told_until_it_is_answered,
            a_repeated_wish_changes_nothing,
            only_the_newest_wish_counts,
            every_phase_answers_a_pause_as_the_table_says,
            a_wish_for_a_command_on_its_way_waits_for_the_answer_to_it,
            a_wish_ends_with_what_it_was_for,
            a_refused_wish_is_shown_and_may_be_said_again,
            wishes_survive_a_reopening,
            what_a_copy_of_the_store_finds_paused_can_go_on,
            a_place_in_the_queue_is_gone_when_the_wait_is_over,
            options_come_back_as_they_were_given,
            an_agent_that_flips_a_command_for_ever_fills_no_history,
        }
        results::{
            an_end_is_taken_once_and_repeats_change_nothing,
            an_end_before_any_other_news_is_taken,
            a_late_end_is_evidence_and_the_phase_stays,
            the_answer_and_the_result_of_an_expired_command_are_one_end,
            ready_means_the_end_and_every_byte,
            lower_bounds_let_longer_bytes_stand,
            absurd_numbers_are_refused,
        }
        output::{
            bytes_come_back_from_every_offset,
            repeats_and_overlaps_are_ignored,
            a_hole_is_refused_and_nothing_of_the_call_stands,
            gaps_are_kept_and_read_as_gaps,
            gaps_that_touch_are_one_row,
            a_stream_keeps_a_thousand_gaps_and_is_one_gap_behind_them,
            many_short_writes_make_few_rows,
            streams_do_not_mix,
            a_lost_end_reads_as_a_gap,
            followers_see_every_byte_while_it_is_written,
        }
        quota::{
            a_stream_keeps_its_head_and_its_tail_and_one_exact_gap,
            a_stream_below_the_default_quota_keeps_every_byte,
            each_stream_has_a_quota_of_its_own,
            kept_bytes_and_gaps_are_always_the_whole_length,
            bytes_that_were_taken_do_not_come_back,
            a_reader_that_falls_behind_finds_the_gap_and_goes_on_behind_it,
            followers_of_a_flood_see_bytes_and_gaps_that_fit,
            the_file_stays_small_whatever_a_command_writes,
            an_imported_command_keeps_the_default_at_the_most,
            a_file_of_the_release_before_is_taken_over_with_its_bytes_counted,
        }
        reconcile::{
            every_pair_of_knowledge_has_its_verdict,
            what_is_not_listed_is_settled_by_its_journal,
            an_inventory_with_nothing_missing_changes_nothing,
            an_acked_result_may_be_forgotten_and_bytes_that_are_gone_are_a_gap,
            offsets_tell_where_to_go_on,
        }
        restored::{
            an_agent_that_heard_more_shows_that_the_store_is_a_copy,
            a_new_life_jumps_ahead_and_holds_what_was_queued,
            a_held_command_is_released_once,
            an_import_keeps_a_free_id_and_overwrites_nothing,
            an_import_cannot_move_the_counter,
            an_import_keeps_no_id_that_was_ever_given_out_here,
            what_an_older_copy_runs_ends_as_the_tombstone_of_its_agent_says,
            a_tombstone_that_nobody_knows_is_described_only_when_it_says_whose_it_is,
            an_absurd_position_cannot_lock_out_those_who_heard_it,
            a_backup_opens_as_a_store,
            revocations_outlive_a_restored_backup,
        }
        history::{
            the_audit_holds_and_every_change_is_in_it,
            a_changed_row_is_found,
            a_missing_row_is_found_also_at_the_end,
            events_are_numbered_without_holes_and_filtered,
            old_history_goes_and_the_rest_still_holds,
            the_position_grows_with_changes_only,
        }
        tokens::{
            a_token_lives_from_creation_to_revocation,
            uses_are_written_in_the_end,
        }
        joins::{
            a_join_token_lives_from_creation_to_revocation,
            a_join_makes_the_agent_with_its_groups_and_its_key,
            every_refusal_says_why_and_uses_nothing_up,
            the_same_key_gets_the_same_answer_for_an_hour,
            a_repeat_is_no_way_back_for_whoever_was_removed_or_replaced,
            a_repeat_is_judged_like_the_first_time,
            a_dead_token_leaves_a_few_rows_a_minute_and_the_rest_is_counted,
            a_use_that_many_race_for_is_given_once,
            a_token_of_many_uses_lets_in_exactly_as_many,
            who_joined_when_the_manager_died_may_ask_again,
            a_restored_store_voids_join_tokens,
            a_revoked_join_token_stays_so_in_a_restored_backup,
            join_tokens_that_ended_long_ago_go,
        }
        keys::{
            only_keys_of_the_agent_may_come,
            the_first_key_of_an_agent_without_any_is_bound,
            a_newer_key_takes_over_when_it_is_shown,
            answers_that_get_lost_never_cost_the_key_in_use,
            a_key_is_added_for_the_present_bearer_alone,
            every_certificate_is_in_the_audit,
            agents_of_another_authority_are_counted,
            keys_survive_a_backup,
        }
        operators::{
            a_certificate_lives_from_creation_to_revocation,
            revoked_operators_stay_so_in_a_restored_backup,
            certificates_that_expired_long_ago_go_and_their_numbers_never_return,
        }
        rights::{
            the_judge_is_asked_by_which_right_on_which_agent_as_whom,
            what_may_not_be_sent_is_refused_and_others_take_its_place,
            what_was_sent_once_is_not_weighed_again,
            a_command_for_a_session_is_weighed_as_well,
            queued_commands_are_refused_the_moment_the_right_goes,
            thousands_are_refused_and_none_is_sent_meanwhile,
        }
        site::{
            a_revision_comes_back_as_it_was_added,
            the_same_again_is_no_new_revision,
            a_push_on_another_base_is_refused,
            a_held_revision_waits_for_a_decision,
            fifty_revisions_are_kept_and_the_one_in_force_always,
            a_site_larger_than_one_step_is_whole,
            a_content_that_was_changed_is_not_served,
            revisions_are_in_a_backup_and_their_numbers_never_return,
        }
        tampering::{
            a_thousand_changes_are_found_with_the_first_bad_row,
            a_chain_that_was_made_anew_misses_the_points,
            points_that_retention_passed_are_left_out,
        }
        crash::{
            everything_survives_a_reopening,
            what_was_answered_survives_a_kill,
            a_changed_schema_is_refused,
            bytes_of_ids_that_were_never_given_out_are_forgotten,
        }
    }
}
