//! A cluster of honest nodes.

use super::*;
use crate::membership::Key;

#[tokio::test]
async fn a_seed_that_comes_up_late_is_found() {
    let (early, late) = loop {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("bound");
        let early = start(config("early", &[address])).await;
        until(&early, |view| alive(view) == ["early"]).await;
        drop(socket);
        let late = Config {
            bind: address,
            ..config("late", &[])
        };
        match try_start(late).await {
            Ok(late) => break (early, late),
            // Another test was quicker.
            Err(StartError::InUse(_)) => {}
            Err(error) => panic!("{error}"),
        }
    };
    until(&early, |view| alive(view) == ["early", "late"]).await;
    until(&late, |view| alive(view) == ["early", "late"]).await;
}

#[tokio::test]
async fn a_seed_may_be_a_name_and_one_of_many() {
    let a = start(config("a", &[])).await;
    let mut seeds = config("b", &[]);
    seeds.seeds = vec![
        "no.such.host.invalid:1".to_owned(),
        "not an address".to_owned(),
        format!("localhost:{}", a.address().port()),
    ];
    let b = start(seeds).await;
    until(&a, |view| alive(view) == ["a", "b"]).await;
    until(&b, |view| alive(view) == ["a", "b"]).await;
}

#[tokio::test]
async fn a_port_in_use_is_one_line_that_names_the_flag() {
    let a = start(config("a", &[])).await;
    let taken = Config {
        bind: a.address(),
        ..config("b", &[])
    };
    let error = try_start(taken.clone()).await.err().expect("in use");
    assert!(matches!(error, StartError::InUse(_)), "{error}");
    assert!(error.to_string().contains("--cluster-port"), "{error}");
    drop(a);
    let udp_only = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let taken = Config {
        bind: udp_only.local_addr().expect("bound"),
        ..taken
    };
    let error = try_start(taken).await.err().expect("in use");
    assert!(matches!(error, StartError::InUse(_)), "{error}");
}

#[tokio::test]
async fn what_can_not_be_told_to_others_stops_the_start() {
    let everywhere = Config {
        bind: SocketAddr::from(([0, 0, 0, 0], 0)),
        ..config("a", &[])
    };
    let error = try_start(everywhere).await.err().expect("no address");
    assert!(error.to_string().contains("--address"), "{error}");
    let error = try_start(config("a b", &[])).await.err().expect("no name");
    assert!(error.to_string().contains("--node-id"), "{error}");
    let mut long = announcement("c");
    long.rack = "r".repeat(600);
    let error = Gossip::start(
        config("a", &[]),
        long,
        Metrics::new("1"),
        &Handle::current(),
    )
    .await;
    let error = error.err().expect("too long");
    assert!(error.to_string().contains("--rack"), "{error}");
}

#[tokio::test]
async fn a_node_that_died_comes_back_under_its_name_from_another_address() {
    let a = start(config("a", &[])).await;
    let seeds = [a.address()];
    let b = start(config("b", &seeds)).await;
    let address = b.address();
    until(&a, |view| are(view, &["b"], Liveness::Alive)).await;
    drop(b);
    // At once, while its death is still unknown.
    let b = start(config("b", &seeds)).await;
    assert_ne!(b.address(), address);
    let view = until(&a, |view| {
        view.node("b")
            .is_some_and(|node| node.address == b.address() && node.liveness == Liveness::Alive)
    })
    .await;
    assert_eq!(view.nodes["b"].conflict, None);
    until(&b, |view| alive(view) == ["a", "b"]).await;
    assert_eq!(b.watch().borrow().nodes["b"].conflict, None);
}

#[tokio::test]
async fn a_node_that_comes_back_elsewhere_is_seen_there_before_its_death_is_known() {
    let slow = |name, seeds: &[SocketAddr]| Config {
        probe_interval: Duration::from_secs(600),
        ..config(name, seeds)
    };
    let a = start(slow("a", &[])).await;
    let seeds = [a.address()];
    let c = start(slow("c", &seeds)).await;
    let b = start(slow("b", &seeds)).await;
    until(&c, |view| are(view, &["a", "b"], Liveness::Alive)).await;
    drop(b);
    let b = start(slow("b", &seeds)).await;
    for other in [&a, &c] {
        until(other, |view| {
            let node = view.node("b");
            node.is_some_and(|it| it.address == b.address() && it.liveness == Liveness::Alive)
        })
        .await;
    }
}

#[tokio::test]
async fn a_second_node_of_the_same_name_is_seen_by_all_until_it_stops() {
    let a = start(config("a", &[])).await;
    let seeds = [a.address()];
    let first = start(config("b", &seeds)).await;
    until(&a, |view| are(view, &["b"], Liveness::Alive)).await;
    let second = start(config("b", &seeds)).await;
    let conflict = |view: &View| view.node("b").and_then(|node| node.conflict);
    let view = until(&second, |view| conflict(view).is_some()).await;
    assert_eq!(conflict(&view), Some(first.address()));
    let view = until(&a, |view| conflict(view).is_some()).await;
    assert_eq!(conflict(&view), Some(second.address()));
    assert_eq!(view.nodes["b"].address, first.address());
    drop(second);
    until(&a, |view| conflict(view).is_none()).await;
    until(&a, |view| are(view, &["b"], Liveness::Alive)).await;
}

#[tokio::test]
async fn what_a_node_tells_of_itself_is_sent_only_when_it_changed_and_not_too_often() {
    let metrics = Metrics::new("1");
    let count = || {
        let text = metrics.render();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("kelda_gossip_announcements_total "));
        line.expect("the counter").parse::<u64>().expect("a number")
    };
    let interval = Duration::from_secs(1);
    let slow = Config {
        metadata_interval: interval,
        ..config("a", &[])
    };
    let here = Handle::current();
    let a = Gossip::start(slow, announcement("c"), Arc::clone(&metrics), &here);
    let a = a.await.expect("a free port");
    let b = start(config("b", &[a.address()])).await;
    until(&b, |view| alive(view) == ["a", "b"]).await;
    let rack = |rack: &str| Announcement {
        rack: rack.to_owned(),
        ..announcement("c")
    };
    let is_in = |rack: &'static str| {
        move |view: &View| {
            view.node("a")
                .is_some_and(|node| node.announcement.rack == rack)
        }
    };
    a.announce(announcement("c")).expect("short");
    let began = tokio::time::Instant::now();
    a.announce(rack("r1")).expect("short");
    until(&b, is_in("r1")).await;
    assert!(began.elapsed() < interval, "the first one is sent at once");
    assert_eq!(count(), 1);
    for number in 0..100 {
        a.announce(rack(&format!("x{number}"))).expect("short");
    }
    a.announce(rack("r2")).expect("short");
    until(&b, is_in("r2")).await;
    assert!(began.elapsed() >= interval, "the next one is not");
    assert_eq!(count(), 2, "of many the last one is sent");
}

#[tokio::test]
async fn a_node_without_the_key_is_not_let_in_and_keys_can_be_changed() {
    let (old, new, wrong) = (Key([1; 32]), Key([2; 32]), Key([3; 32]));
    let keyed = |name, seeds: &[SocketAddr], keys: &[Key]| Config {
        keys: keys.to_vec(),
        ..config(name, seeds)
    };
    let a = start(keyed("a", &[], &[old, new])).await;
    let seeds = [a.address()];
    let open = start(config("open", &seeds)).await;
    let lost = start(keyed("lost", &seeds, &[wrong])).await;
    // In the middle of a change: one node still sends with the old key, the other with the new one.
    let b = start(keyed("b", &seeds, &[new, old])).await;
    let c = start(keyed("c", &seeds, &[old, new])).await;
    for member in [&a, &b, &c] {
        until(member, |view| alive(view) == ["a", "b", "c"]).await;
    }
    let mut news = announcement("c");
    news.rack = "r".to_owned();
    b.announce(news).expect("short");
    for member in [&a, &c] {
        until(member, |view| view.nodes["b"].announcement.rack == "r").await;
    }
    for (member, name) in [(&open, "open"), (&lost, "lost")] {
        assert_eq!(alive(&member.watch().borrow()), [name]);
    }
    let view = Arc::clone(&a.watch().borrow());
    assert_eq!(alive(&view), ["a", "b", "c"]);
}
