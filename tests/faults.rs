//! What can go wrong around a node: directories, ports, disks, overload, and peers that do not speak its language.

mod support;

mod faults {
    mod directory;
    mod disk;
    mod overload;
    mod receiving;
    mod transport;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a node in a process of its own, which the other tests start"]
async fn node_process() {
    support::process::serve().await;
}
