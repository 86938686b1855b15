//! What every kind of membership must do.

use super::*;
use crate::{
    membership::{Error, fake::FakeNetwork},
    types::NodeId,
};

/// `members` are of the names `a`, `b`, and `c` and can reach each other.
async fn suite(members: [impl Membership; 3]) {
    let [a, b, c] = members;
    for member in [&a, &b, &c] {
        until(member, |view| alive(view) == ["a", "b", "c"]).await;
    }
    let mut news = announcement("c");
    news.node_id = NodeId(7);
    news.rack = "r".to_owned();
    a.announce(news.clone()).expect("short");
    for member in [&a, &b, &c] {
        let told = |view: &View| view.nodes["a"].announcement == news;
        until(member, told).await;
    }
    news.rack = "r".repeat(600);
    let error = a.announce(news.clone()).expect_err("too long");
    assert!(
        matches!(error, Error::TooLong { flag: "--rack", .. }),
        "{error}"
    );

    b.leave().await;
    b.leave().await;
    for member in [&a, &b, &c] {
        until(member, |view| are(view, &["b"], Liveness::Left)).await;
    }
    drop(c);
    until(&a, |view| are(view, &["c"], Liveness::Dead)).await;
    until(&a, |view| are(view, &["b"], Liveness::Left)).await;
    assert_eq!(alive(&a.watch().borrow()), ["a"]);
}

#[tokio::test]
async fn nodes_find_each_other_over_the_network_and_see_who_leaves_and_who_dies() {
    let a = start(config("a", &[])).await;
    let seeds = [a.address()];
    let b = start(config("b", &seeds)).await;
    let c = start(config("c", &seeds)).await;
    suite([a, b, c]).await;
}

#[tokio::test]
async fn the_fake_does_as_the_network_does() {
    let network = FakeNetwork::default();
    let start = |name| network.start(name, announcement("c")).expect("short");
    let fakes = ["a", "b", "c"].map(start);
    let other = SocketAddr::from(([1, 2, 3, 4], 5));
    network.conflict("a", Some(other));
    assert_eq!(fakes[2].watch().borrow().nodes["a"].conflict, Some(other));
    network.conflict("a", None);
    suite(fakes).await;
}
