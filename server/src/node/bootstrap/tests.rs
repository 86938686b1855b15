//! Every situation that nodes without a cluster may find themselves in.

use std::net::SocketAddr;

use super::*;
use crate::membership::{Liveness, Node};

/// A founder: its start, and whose it consents to.
fn founder(start: u64, consent: u64) -> Announcement {
    Announcement {
        founding: Some(Founding {
            expect: 3,
            start,
            consent,
        }),
        ..Announcement::default()
    }
}

fn member(cluster_id: &str) -> Announcement {
    Announcement {
        cluster_id: cluster_id.to_owned(),
        ..Announcement::default()
    }
}

fn view(nodes: Vec<(&str, Announcement, Liveness)>) -> View {
    let nodes = nodes.into_iter().map(|(name, announcement, liveness)| {
        let node = Node {
            name: name.to_owned(),
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            announcement: Announcement {
                raft_address: format!("raft of {name}"),
                ..announcement
            },
            liveness,
            conflict: None,
        };
        (name.to_owned(), node)
    });
    View {
        nodes: nodes.collect(),
    }
}

fn alive(nodes: Vec<(&str, Announcement)>) -> View {
    let nodes = nodes.into_iter();
    view(
        nodes
            .map(|(name, node)| (name, node, Liveness::Alive))
            .collect(),
    )
}

fn step(view: &View, me: &str, own: &Announcement) -> Step {
    plan(view, me, own.founding.expect("a founder"), None).expect("no conflict")
}

#[test]
fn all_choose_the_smallest_name_and_it_founds_when_all_consent() {
    let of = |b: u64, c: u64| {
        alive(vec![
            ("a", founder(1, 0)),
            ("b", founder(2, b)),
            ("c", founder(3, c)),
        ])
    };
    for me in [("b", 2), ("c", 3)] {
        let consent = Step::Consent {
            founder: "a".to_owned(),
            start: 1,
            address: "raft of a".to_owned(),
        };
        assert_eq!(step(&of(0, 0), me.0, &founder(me.1, 0)), consent);
        assert_eq!(step(&of(1, 1), me.0, &founder(me.1, 1)), consent);
    }
    let a = founder(1, 0);
    for (b, c) in [(0, 0), (1, 0), (0, 1), (1, 9)] {
        assert_eq!(step(&of(b, c), "a", &a), Step::Ask, "{b} {c}");
    }
    assert_eq!(step(&of(1, 1), "a", &a), Step::Found);
}

#[test]
fn what_was_said_to_an_earlier_start_counts_for_nothing() {
    // It was wiped; one of the others is in its cluster by now, and this node has old news of it.
    let old = alive(vec![
        ("a", founder(7, 0)),
        ("b", founder(2, 1)),
        ("c", founder(3, 7)),
    ]);
    assert_eq!(step(&old, "a", &founder(7, 0)), Step::Ask);
}

#[test]
fn who_hears_of_a_cluster_joins_it_whatever_else_it_hears() {
    let nodes = alive(vec![
        ("a", founder(1, 0)),
        ("b", founder(2, 1)),
        ("c", founder(3, 1)),
        ("d", member("x")),
    ]);
    let join = Step::Join(vec!["raft of d".to_owned()]);
    for (me, start) in [("a", 1), ("b", 2), ("c", 3)] {
        assert_eq!(step(&nodes, me, &founder(start, 1)), join);
    }
}

#[test]
fn who_has_agreed_to_a_founder_agrees_to_no_other_and_is_none() {
    let nodes = alive(vec![
        ("a", founder(1, 0)),
        ("b", founder(2, 0)),
        ("c", founder(3, 0)),
    ]);
    let own = |start| founder(start, 0).founding.expect("a founder");
    let refuse = |agreed: &str| Step::Refuse {
        founder: "a".to_owned(),
        agreed: agreed.to_owned(),
    };
    for agreed in ["b", "c", "z"] {
        for (me, start) in [("a", 1), ("b", 2), ("c", 3)] {
            let step = plan(&nodes, me, own(start), Some(agreed));
            assert_eq!(step, Ok(refuse(agreed)), "{me} after {agreed}");
        }
    }
    // Another start of the same one, and a cluster that there is, are something else.
    let step = plan(&nodes, "c", own(3), Some("a"));
    assert!(
        matches!(step, Ok(Step::Consent { start: 1, .. })),
        "{step:?}"
    );
    let nodes = alive(vec![("a", founder(1, 0)), ("d", member("x"))]);
    let step = plan(&nodes, "c", own(3), Some("b"));
    assert_eq!(step, Ok(Step::Join(vec!["raft of d".to_owned()])));
}

#[test]
fn too_few_too_many_dead_and_plain_nodes_make_it_wait() {
    let waits = |nodes: &View| matches!(step(nodes, "a", &founder(1, 0)), Step::Wait { .. });
    let (a, b, c) = (founder(1, 0), founder(2, 1), founder(3, 1));
    assert!(waits(&alive(vec![("a", a.clone()), ("b", b.clone())])));
    let plain = ("c", member(""));
    assert!(waits(&alive(vec![
        ("a", a.clone()),
        ("b", b.clone()),
        plain
    ])));
    let dead = ("c", c.clone(), Liveness::Dead);
    let living = |name, node: &Announcement| (name, node.clone(), Liveness::Alive);
    assert!(waits(&view(vec![living("a", &a), living("b", &b), dead])));
    let many = vec![("a", a), ("b", b), ("c", c), ("d", founder(4, 1))];
    let Step::Wait { here } = step(&alive(many), "a", &founder(1, 0)) else {
        panic!("it waits");
    };
    assert_eq!(here, "a, b, c, d");
}

#[test]
fn other_expectations_are_a_clear_error() {
    let nodes = alive(vec![("a", founder(1, 0)), ("b", founder(2, 0))]);
    let own = Founding {
        expect: 2,
        start: 1,
        consent: 0,
    };
    let error = plan(&nodes, "a", own, None).expect_err("a conflict");
    assert!(
        error.contains("node b") && error.contains("--bootstrap-expect 3"),
        "{error}"
    );
}

#[test]
fn one_node_founds_alone() {
    let own = Founding {
        expect: 1,
        start: 1,
        consent: 0,
    };
    assert_eq!(plan(&View::default(), "a", own, None), Ok(Step::Found));
}
