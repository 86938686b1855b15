//! For each rule a history that breaks only that one.

use super::script::{Script, value};
use crate::support::checker::{Losses, Outcome, Place, Report, Rule};

/// Asserts that exactly one rule is broken, once, and that the message names the values.
fn assert_only(report: &Report, rule: Rule, numbers: &[u32]) {
    let found: Vec<_> = report.violations.iter().map(|found| found.rule).collect();
    assert_eq!(found, [rule], "{report}");
    let places = report.violations[0].places.iter();
    let values: Vec<_> = places.map(|place| place.value).collect();
    let expected: Vec<_> = numbers.iter().map(|number| value(*number)).collect();
    assert_eq!(values, expected, "{report}");
    let json = report.json();
    assert_eq!(json["violations"][rule.to_string()], 1);
    assert_eq!(json["valid"], false);
    let message = report.to_string();
    for place in &report.violations[0].places {
        let named = format!("{} by #{}", place.value, place.operation);
        let at = place
            .offset
            .map(|offset| format!("{} at {offset} by", place.value));
        assert!(message.contains(&at.unwrap_or(named)), "{message}");
        assert!(
            message.contains(&format!("#{} client", place.operation)),
            "{message}"
        );
    }
}

#[test]
fn an_acknowledged_value_that_readers_passed_is_a_lost_write() {
    let written = Script::default().sent(1, 0, &[1]).sent(2, 1, &[2]);
    // Two readers, so that neither leaves anything out.
    let report = written
        .sent(1, 2, &[3])
        .poll(8, &[(0, 1)])
        .poll(9, &[(2, 3)])
        .check();
    assert_only(&report, Rule::LostWrite, &[2]);
    let lost = Place {
        value: value(2),
        offset: Some(1),
        operation: 1,
    };
    assert_eq!(report.violations[0].places, [lost]);
}

#[test]
fn a_value_that_was_sent_together_with_one_that_was_read_is_a_lost_write() {
    let report = Script::default()
        .send(1, &[(1, None), (2, None)], Outcome::Info)
        .sent(2, 2, &[3])
        .poll(7, &[(0, 1)])
        .poll_that(8, &[(1, 2)], Outcome::Info)
        .poll(9, &[(2, 3)])
        .check();
    assert_only(&report, Rule::LostWrite, &[2]);
}

#[test]
fn an_acknowledged_value_behind_all_that_was_read_is_unseen() {
    let written = Script::default().sent(1, 0, &[1]).sent(1, 1, &[2]);
    let report = written.poll(9, &[(0, 1)]).check();
    assert_only(&report, Rule::Unseen, &[2]);
    let postfix = Losses {
        postfix: 1,
        ..Losses::default()
    };
    assert_eq!(report.queue.lost, postfix);
}

#[test]
fn an_acknowledged_value_without_an_offset_that_nobody_read_is_unseen() {
    let written = Script::default().send(1, &[(1, None)], Outcome::Ok);
    let report = written.sent(2, 0, &[2]).poll(9, &[(0, 2)]).check();
    assert_only(&report, Rule::Unseen, &[1]);
}

#[test]
fn a_value_that_was_read_once_but_not_in_the_end_has_vanished() {
    let written = Script::default().sent(1, 0, &[1, 2]);
    let written = written.poll(8, &[(0, 1), (1, 2)]);
    let report = written.drain(9, &[(0, 1)]).drain(8, &[]).check();
    assert_only(&report, Rule::Vanished, &[2, 2, 2]);
    let shown_by: Vec<_> = report.violations[0]
        .places
        .iter()
        .map(|place| place.operation)
        .collect();
    assert_eq!(shown_by, [0, 1, 3]);
    let postfix = Losses {
        postfix: 1,
        ..Losses::default()
    };
    assert_eq!(report.queue.lost, postfix);
}

#[test]
fn a_value_of_unknown_outcome_that_was_read_once_but_not_in_the_end_has_vanished() {
    let written = Script::default().send(1, &[(1, None)], Outcome::Info);
    let report = written.poll(8, &[(0, 1)]).assign(8).drain(8, &[]).check();
    assert_only(&report, Rule::Vanished, &[1, 1, 1]);
}

#[test]
fn an_acknowledged_value_that_only_one_of_two_last_readings_has_has_vanished() {
    let written = Script::default().sent(1, 0, &[1]).sent(2, 1, &[2]);
    let written = written.drain(8, &[(0, 1)]);
    let report = written.drain(9, &[(0, 1), (1, 2)]).check();
    assert_only(&report, Rule::Vanished, &[2, 2, 2]);
}

#[test]
fn a_value_at_two_offsets_is_a_duplicate() {
    let written = Script::default().sent(1, 0, &[1]).sent(2, 1, &[2]);
    let report = written.poll(9, &[(0, 1), (1, 2), (2, 1)]).check();
    assert_only(&report, Rule::Duplicate, &[1, 1]);
    assert_eq!(report.violations[0].places[1].offset, Some(2));
}

#[test]
fn an_acknowledgement_with_another_offset_than_readers_see_is_a_duplicate() {
    let written = Script::default().sent(1, 1, &[1]);
    let report = written.poll(9, &[(0, 1)]).check();
    assert_only(&report, Rule::Duplicate, &[1, 1]);
}

#[test]
fn two_values_at_one_offset_are_inconsistent() {
    let written = Script::default().send(1, &[(1, None)], Outcome::Ok);
    let written = written.send(2, &[(2, None)], Outcome::Info);
    let report = written.poll(8, &[(0, 1)]).poll(9, &[(0, 2)]).check();
    assert_only(&report, Rule::InconsistentOffsets, &[1, 2]);
}

#[test]
fn an_acknowledgement_of_an_offset_where_readers_see_another_value_is_inconsistent() {
    let written = Script::default().send(2, &[(2, None)], Outcome::Info);
    let report = written
        .sent(1, 0, &[1])
        .poll(8, &[(0, 1)])
        .poll(9, &[(0, 2)])
        .check();
    assert_only(&report, Rule::InconsistentOffsets, &[1, 2]);
}

#[test]
fn an_offset_at_which_nothing_was_ever_seen_is_a_gap() {
    let written = Script::default().sent(1, 0, &[1]).sent(2, 2, &[2]);
    let report = written.poll(9, &[(0, 1), (2, 2)]).check();
    assert_only(&report, Rule::OffsetGap, &[1, 2]);
}

#[test]
fn a_value_whose_send_failed_must_not_be_read() {
    let written = Script::default().sent(1, 0, &[1]);
    let written = written.send(2, &[(2, None)], Outcome::Fail);
    let report = written.poll(9, &[(0, 1), (1, 2)]).check();
    assert_only(&report, Rule::AbortedRead, &[2, 2]);
}

#[test]
fn a_value_that_nobody_sent_must_not_be_read() {
    let report = Script::default()
        .sent(1, 0, &[1])
        .poll(9, &[(0, 1), (1, 2)])
        .check();
    assert_only(&report, Rule::PrecommittedRead, &[2]);
    assert_eq!(report.queue.unexpected, 1);
}

#[test]
fn a_value_must_not_be_read_before_its_send_has_begun() {
    let early = Script::default().poll(9, &[(0, 1)]);
    let report = early.sent(1, 0, &[1]).check();
    assert_only(&report, Rule::PrecommittedRead, &[1, 1]);
}

#[test]
fn a_poll_that_begins_again_is_not_monotonic() {
    let written = Script::default().sent(1, 0, &[1, 2]);
    let report = written
        .poll(9, &[(0, 1), (1, 2)])
        .poll(9, &[(1, 2)])
        .check();
    assert_only(&report, Rule::NonmonotonicPoll, &[2, 2]);
    let written = Script::default().sent(1, 0, &[1, 2]);
    let report = written
        .poll(8, &[(0, 1)])
        .poll(9, &[(1, 2)])
        .poll(9, &[(0, 1)])
        .check();
    assert_only(&report, Rule::NonmonotonicPoll, &[2, 1]);
}

#[test]
fn a_poll_out_of_order_is_not_monotonic_within() {
    let written = Script::default().sent(1, 0, &[1, 2]);
    let report = written.poll(9, &[(1, 2), (0, 1)]).check();
    assert_only(&report, Rule::InternalNonmonotonicPoll, &[2, 1]);
}

#[test]
fn a_poll_that_goes_on_too_far_is_a_skip() {
    let written = Script::default().sent(1, 0, &[1, 2, 3]);
    let report = written
        .poll(8, &[(0, 1), (1, 2)])
        .poll(9, &[(0, 1)])
        .poll(9, &[(2, 3)])
        .check();
    assert_only(&report, Rule::PollSkip, &[1, 3]);
}

#[test]
fn a_poll_that_leaves_something_out_is_a_skip_within() {
    let written = Script::default().sent(1, 0, &[1, 2, 3]);
    let report = written
        .poll(8, &[(0, 1), (1, 2)])
        .poll(9, &[(0, 1), (2, 3)])
        .check();
    assert_only(&report, Rule::InternalPollSkip, &[1, 3]);
}

#[test]
fn a_send_that_overtakes_an_earlier_one_is_not_monotonic() {
    let written = Script::default().sent(1, 1, &[1]).sent(1, 0, &[2]);
    let report = written.poll(9, &[(0, 2), (1, 1)]).check();
    assert_only(&report, Rule::NonmonotonicSend, &[1, 2]);
    // Also if the first is known only by readers.
    let written = Script::default().send(1, &[(1, None)], Outcome::Info);
    let report = written.sent(1, 0, &[2]).poll(9, &[(0, 2), (1, 1)]).check();
    assert_only(&report, Rule::NonmonotonicSend, &[1, 2]);
}

#[test]
fn a_send_whose_values_change_their_order_is_not_monotonic_within() {
    let written = Script::default().send(1, &[(1, Some(1)), (2, Some(0))], Outcome::Ok);
    let report = written.poll(9, &[(0, 2), (1, 1)]).check();
    assert_only(&report, Rule::InternalNonmonotonicSend, &[1, 2]);
}

#[test]
fn a_send_with_another_one_between_its_values_is_split() {
    let written = Script::default().send(1, &[(1, None), (2, None)], Outcome::Ok);
    let report = written
        .sent(2, 1, &[3])
        .poll(9, &[(0, 1), (1, 3), (2, 2)])
        .check();
    assert_only(&report, Rule::SplitBatch, &[1, 2]);
}

#[test]
fn losses_are_told_apart_by_what_the_producer_has_around_them() {
    let written = Script::default().sent(7, 0, &[0, 1, 2, 3, 4]);
    let report = written.poll(8, &[(1, 1)]).poll(9, &[(3, 3)]).check();
    let each = Losses {
        prefix: 1,
        middle: 1,
        postfix: 1,
    };
    assert_eq!(report.queue.lost, each);
    let rules: Vec<_> = report.violations.iter().map(|found| found.rule).collect();
    assert_eq!(rules, [Rule::LostWrite, Rule::LostWrite, Rule::Unseen]);
}

#[test]
#[should_panic(expected = "unseen in partition 0: 7/2 at 1 by #1")]
fn a_broken_rule_fails_the_test_with_what_broke_it() {
    let written = Script::default().sent(1, 0, &[1]).sent(1, 1, &[2]);
    written.poll(9, &[(0, 1)]).check().assert_valid();
}
