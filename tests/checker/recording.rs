//! A recording is the history of those who recorded.

use crate::support::checker::{Kind, Outcome, Recorder, check};

#[test]
fn operations_are_recorded_with_their_outcomes() {
    let recorder = Recorder::default();
    let mut producer = recorder.client();
    let consumer = recorder.client();
    let values = producer.values(2);
    assert_eq!(values[1].to_string().parse(), Ok(values[1]));
    let send = producer.send(0, &values);
    let poll = consumer.poll(0);
    send.ok(Some(5));
    poll.ok(vec![(5, values[0]), (6, values[1])]);
    assert_eq!((recorder.acknowledged(), recorder.read()), (2, 2));
    let refused = producer.values(1);
    producer.send(1, &refused).fail();
    let mut producer = producer.crash();
    consumer.assign(0);
    consumer.poll(0).fail();
    let abandoned = producer.values(1);
    drop(producer.send(1, &abandoned));

    let history = recorder.history();
    let kinds: Vec<_> = history
        .operations()
        .iter()
        .map(|operation| {
            (
                operation.client,
                operation.outcome,
                operation.completed.is_some(),
            )
        })
        .collect();
    assert_eq!(
        kinds,
        [
            (0, Outcome::Ok, true),
            (1, Outcome::Ok, true),
            (0, Outcome::Fail, true),
            (0, Outcome::Ok, true),
            (1, Outcome::Ok, true),
            (1, Outcome::Fail, true),
            (2, Outcome::Info, false),
        ]
    );
    let sent = Kind::Send {
        partition: 0,
        values: vec![(values[0], Some(5)), (values[1], Some(6))],
    };
    assert_eq!(history.operations()[0].kind, sent);
    assert_eq!(history.operations()[3].kind, Kind::Crash);
    assert_eq!(check(history).violations, []);
}

#[test]
fn clients_record_from_many_threads() {
    let recorder = Recorder::default();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = recorder.client();
                for _ in 0..1000 {
                    let values = client.values(1);
                    client.send(0, &values).info();
                }
            });
        }
    });
    assert_eq!(recorder.history().operations().len(), 8000);
}
