//! What a log may do.

use super::script::Script;
use crate::support::checker::{Losses, Outcome};

#[test]
fn a_send_of_unknown_outcome_may_be_read_or_not() {
    let report = Script::default()
        .send(1, &[(1, None)], Outcome::Info)
        .send(2, &[(2, None)], Outcome::Info)
        .sent(3, 1, &[3])
        .drain(9, &[(0, 1), (1, 3)])
        .check();
    report.assert_valid();
    let values = &report.json()["values"];
    assert_eq!(values["attempts"], 3);
    assert_eq!(values["published"], 1);
    assert_eq!(values["recovered"], 1);
    let operations = &report.json()["operations"];
    assert_eq!(operations["send"]["unknown"], 2);
    assert_eq!(report.queue.lost, Losses::default());
}

#[test]
fn a_failed_send_may_be_anything_but_read() {
    let script = Script::default().send(1, &[(1, Some(0))], Outcome::Fail);
    script
        .sent(1, 0, &[2])
        .drain(9, &[(0, 2)])
        .check()
        .assert_valid();
}

#[test]
fn a_send_of_unknown_outcome_may_arrive_between_two_last_readings() {
    Script::default()
        .send(1, &[(1, None)], Outcome::Info)
        .sent(2, 0, &[2])
        .drain(8, &[(0, 2)])
        .drain(9, &[(0, 2), (1, 1)])
        .check()
        .assert_valid();
}

#[test]
fn a_client_may_go_anywhere_once_it_has_said_so() {
    let written = Script::default().sent(1, 0, &[1, 2, 3, 4]);
    written
        .poll(9, &[(0, 1), (1, 2)])
        .assign(9)
        .poll(9, &[(0, 1)])
        .assign(9)
        .poll(9, &[(3, 4)])
        .crash(9)
        .poll(9, &[(2, 3)])
        .drain(10, &[(0, 1), (1, 2), (2, 3), (3, 4)])
        .check()
        .assert_valid();
}

#[test]
fn a_poll_that_failed_or_found_nothing_moves_nobody() {
    let written = Script::default().sent(1, 0, &[1, 2]);
    written
        .poll(9, &[])
        .poll_that(9, &[(0, 1)], Outcome::Info)
        .poll_that(9, &[], Outcome::Fail)
        .poll(9, &[(0, 1)])
        .poll(9, &[])
        .drain(9, &[(1, 2)])
        .check()
        .assert_valid();
}

#[test]
fn clients_may_write_in_any_order_and_one_client_behind_its_crash_too() {
    Script::default()
        .sent(1, 2, &[1])
        .sent(2, 0, &[2])
        .crash(1)
        .sent(1, 1, &[3])
        .drain(9, &[(0, 2), (1, 3), (2, 1)])
        .check()
        .assert_valid();
}

#[test]
fn the_oldest_records_may_be_gone_before_anybody_sends() {
    let script = Script::default().sent(1, 100, &[1]);
    script.drain(9, &[(100, 1)]).check().assert_valid();
}

#[test]
#[should_panic(expected = "nothing acknowledged or nothing read")]
fn a_history_in_which_nothing_happened_shows_nothing() {
    Script::default().poll(9, &[]).check().assert_valid();
}

#[test]
#[should_panic(expected = "7/1 is sent twice")]
fn a_history_in_which_a_value_is_sent_twice_can_not_be_judged() {
    let script = Script::default().sent(1, 0, &[1]);
    script.sent(2, 1, &[1]).check().assert_valid();
}

#[test]
#[should_panic(expected = "partitions {0} are not drained")]
fn a_history_without_a_last_reading_shows_nothing() {
    let script = Script::default().sent(1, 0, &[1]).poll(9, &[(0, 1)]);
    script
        .drain(9, &[])
        .sent(1, 1, &[2])
        .poll(8, &[(1, 2)])
        .check()
        .assert_valid();
}
