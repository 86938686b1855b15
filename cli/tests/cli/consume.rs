//! `kelda consume`.

use std::io::{BufRead, BufReader, Write};

use serde_json::json;

use crate::support::{Broker, eventually, json, wait};

fn numbers(broker: &Broker, topic: &str, count: usize) {
    broker.ok(&["topic", "create", topic]);
    let input: String = (0..count).map(|number| format!("{number}\n")).collect();
    broker.produce(&[topic], &input);
}

#[test]
fn reading_starts_where_it_is_told_and_stops_at_the_end() {
    let broker = Broker::ephemeral();
    numbers(&broker, "numbers", 100);
    assert_eq!(broker.ok(&["consume", "numbers"]).lines().count(), 100);
    assert_eq!(
        broker.ok(&["consume", "numbers", "--from", "98"]),
        "98\n99\n"
    );
    assert_eq!(broker.ok(&["consume", "numbers", "--from", "latest"]), "");
    assert_eq!(
        broker.ok(&["consume", "numbers", "--from", "earliest", "--max", "3"]),
        "0\n1\n2\n"
    );
    assert_eq!(
        broker.ok(&["consume", "numbers", "--from", "50", "--max", "1"]),
        "50\n"
    );
    assert_eq!(
        broker.ok(&["consume", "numbers", "--partition", "0", "--max", "0"]),
        ""
    );
}

#[test]
fn reading_starts_at_a_time() {
    let broker = Broker::ephemeral();
    numbers(&broker, "numbers", 10);
    let first = broker.ok(&["consume", "numbers", "--format", "%T\\n", "--max", "1"]);
    let before: i64 = first.trim().parse().expect("a timestamp");
    // A later append has a later time: it may be the same millisecond only for a moment.
    let later = || {
        broker.produce(&["numbers"], "later\n");
        let times = broker.ok(&["consume", "numbers", "--from", "10", "--format", "%T\\n"]);
        times
            .lines()
            .last()
            .and_then(|time| time.parse::<i64>().ok())
            .expect("a timestamp")
    };
    let mut last = before;
    eventually("the clock moving on", || {
        last = later();
        last > before
    });
    let from = format!("@{last}");
    assert_eq!(
        broker.ok(&["consume", "numbers", "--from", &from, "--max", "1"]),
        "later\n"
    );
    assert_eq!(
        broker.ok(&[
            "consume",
            "numbers",
            "--from",
            "@2001-01-01T00:00:00Z",
            "--max",
            "1"
        ]),
        "0\n"
    );
    assert_eq!(
        broker.ok(&["consume", "numbers", "--from", "@2999-01-01T00:00:00Z"]),
        ""
    );
}

#[test]
fn json_is_one_object_a_line() {
    let broker = Broker::ephemeral();
    broker.ok(&["topic", "create", "orders"]);
    broker.kelda_with(
        &["produce", "orders", "--key", "k", "-H", "a=b"],
        b"text\n\xff\n",
    );
    let out = broker.ok(&["consume", "orders", "-o", "json"]);
    let records: Vec<_> = out.lines().map(json).collect();
    assert_eq!(records.len(), 2);
    assert_eq!(records[0]["value"], "text");
    assert_eq!(records[0]["headers"], json!([{ "key": "a", "value": "b" }]));
    assert_eq!(records[1]["value_base64"], "/w==");
    assert_eq!(records[1]["offset"], 1);
}

#[test]
fn following_shows_new_records_at_once_and_goes_on() {
    let broker = Broker::ephemeral();
    numbers(&broker, "numbers", 2);
    let mut reader = broker.spawn(&["consume", "numbers", "--follow", "--max", "4"]);
    let mut lines = BufReader::new(reader.stdout.take().expect("piped")).lines();
    let mut next = || lines.next().expect("a line").expect("text");
    assert_eq!((next(), next()), ("0".to_owned(), "1".to_owned()));
    broker.produce(&["numbers"], "two\n");
    assert_eq!(next(), "two");
    broker.produce(&["numbers"], "three\nfour\n");
    assert_eq!(next(), "three");
    assert!(reader.wait().expect("ends").success(), "--max ends it");
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let broker = Broker::ephemeral();
    numbers(&broker, "numbers", 200_000);
    let mut reader = broker.spawn(&["consume", "numbers"]);
    let mut stdout = BufReader::new(reader.stdout.take().expect("piped"));
    let mut first = String::new();
    stdout.read_line(&mut first).expect("a line");
    drop(stdout);
    let mut stderr = String::new();
    std::io::Read::read_to_string(&mut reader.stderr.take().expect("piped"), &mut stderr)
        .expect("text");
    assert_eq!(
        (reader.wait().expect("ends").code(), stderr.as_str()),
        (Some(0), "")
    );
}

#[test]
fn produce_sends_a_line_before_the_next_is_there() {
    let broker = Broker::ephemeral();
    broker.ok(&["topic", "create", "chat"]);
    let mut producer = broker.spawn(&["produce", "chat"]);
    let mut stdin = producer.stdin.take().expect("piped");
    stdin.write_all(b"hello\n").expect("writes");
    eventually("the first line arriving", || {
        broker.ok(&["consume", "chat"]) == "hello\n"
    });
    stdin.write_all(b"bye\n").expect("writes");
    drop(stdin);
    assert_eq!(wait(producer).code, 0);
    assert_eq!(broker.ok(&["consume", "chat"]), "hello\nbye\n");
}
