//! Nodes of other clusters.

use super::*;

async fn of_cluster(config: Config, cluster_id: &str) -> Gossip {
    let here = Handle::current();
    let started = Gossip::start(config, announcement(cluster_id), Metrics::new("1"), &here);
    started.await.expect("a free port")
}

#[tokio::test]
async fn another_cluster_is_refused_and_does_no_harm() {
    let a = of_cluster(config("a", &[]), "one").await;
    let b = of_cluster(config("b", &[a.address()]), "one").await;
    until(&b, |view| alive(view) == ["a", "b"]).await;
    // It has a node of the same name, and is told the wrong seed.
    let other_b = of_cluster(config("b", &[]), "two").await;
    let seeds = [a.address(), other_b.address()];
    let other_c = of_cluster(config("c", &seeds), "two").await;
    until(&other_c, |view| alive(view) == ["b", "c"]).await;
    // One that belongs to none yet joins the cluster that it finds.
    let joiner = of_cluster(config("j", &[a.address()]), "").await;
    until(&joiner, |view| alive(view) == ["a", "b", "j"]).await;
    for member in [&a, &b] {
        until(member, |view| alive(view) == ["a", "b", "j"]).await;
        let view = Arc::clone(&member.watch().borrow());
        assert_eq!(view.nodes["b"].address, b.address());
        assert_eq!(view.nodes["b"].conflict, None);
        assert!(view.node("c").is_none());
    }
    let view = Arc::clone(&other_c.watch().borrow());
    assert_eq!(view.nodes["b"].address, other_b.address());
    assert!(view.node("a").is_none());
}
