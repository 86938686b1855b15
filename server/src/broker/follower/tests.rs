//! The follower against a real catalog and storage, with groups that fail to open.

use kelda_proto::internal::v1::{
    CatalogCommand, ReplicaSet,
    catalog_command::{self as command, Command::*},
};

use super::*;
use crate::{
    consensus::{self, CatalogGroup, Reply},
    peers::Peers,
    storage::{Config, Hooks},
    types::NodeId,
};

const PATIENCE: Duration = Duration::from_secs(30);

struct Fixture {
    storage: Storage,
    groups: Groups,
    catalog: CatalogGroup,
}

impl Fixture {
    async fn new() -> Self {
        let storage =
            Storage::open(Config::in_memory(), Hooks::default()).expect("a new store opens");
        let groups = Groups::new(storage.clone(), Peers::alone());
        let catalog = groups
            .open_catalog(false)
            .await
            .expect("a new catalog opens");
        let fixture = Self {
            storage,
            groups,
            catalog,
        };
        fixture
            .apply(RegisterNode(command::RegisterNode::default()))
            .await;
        fixture
    }

    async fn apply(&self, command: command::Command) {
        let command = CatalogCommand {
            time_ms: 0,
            command: Some(command),
        };
        let group = self.catalog.group();
        let proposed = group.propose(consensus::Command::catalog(&command)).await;
        let reply = proposed.expect("running").wait().await;
        assert!(matches!(reply, Ok(Reply::Catalog(Ok(_)))), "{reply:?}");
    }

    async fn create(&self, name: &str) {
        let create = command::CreateTopic {
            name: name.to_owned(),
            partitions: vec![ReplicaSet { nodes: vec![1] }],
            config: None,
        };
        self.apply(CreateTopic(create)).await;
    }

    /// A follower of the topic "broken", the only one, whose partition failed to open.
    async fn with_broken(&self) -> Follower {
        self.create("broken").await;
        let mut follower = Follower {
            opener: Opener {
                groups: self.groups.clone(),
                runtime: Handle::current(),
                stored: Arc::default(),
            },
            catalog: self.catalog.watch(),
            directory: watch::channel(Arc::default()).0,
            deletions: JoinSet::new(),
            reopened: JoinSet::new(),
            reopening: HashSet::new(),
            leaving: JoinSet::new(),
            leaving_groups: HashSet::new(),
            surplus: Vec::new(),
            had_turn: HashSet::new(),
            leave_at: Instant::now(),
            failed: Vec::new(),
            reopen_after: REOPEN_AFTER_MIN,
            reopen_at: Instant::now(),
        };
        let view = self.catalog.view();
        let mut topics = view.topics_from(TopicRange::default());
        let topic = Arc::clone(topics.next().expect("created"));
        let handle = TopicHandle::new(topic, vec![Err(NotOpen::Failed)], None);
        follower.publish(Directory {
            version: view.version(),
            topics: HashMap::from([("broken".to_owned(), Arc::new(handle))]),
        });
        follower
    }
}

/// The directory as soon as it is as wanted.
async fn until(
    directory: &mut watch::Receiver<Arc<Directory>>,
    wanted: impl Fn(&Directory) -> bool,
) -> Arc<Directory> {
    let waiting = directory.wait_for(|directory| wanted(directory));
    let found = tokio::time::timeout(PATIENCE, waiting).await;
    Arc::clone(&found.expect("in time").expect("it is followed"))
}

fn slot<'a>(directory: &'a Directory, name: &str) -> Option<&'a Slot> {
    directory.topic(name).ok()?.slots().first()
}

#[tokio::test]
async fn a_partition_that_failed_to_open_is_tried_again() {
    let fixture = Fixture::new().await;
    let follower = fixture.with_broken().await;
    let mut directory = follower.directory.subscribe();
    let follower = tokio::spawn(follower.run());
    fixture.create("sound").await;
    let all = until(&mut directory, |now| {
        let open = |name| slot(now, name).is_some_and(Result::is_ok);
        open("broken") && open("sound")
    });
    let before = all.await;
    fixture.create("later").await;
    let after = until(&mut directory, |now| slot(now, "later").is_some()).await;
    for name in ["broken", "sound"] {
        let handles = [&before, &after].map(|now| now.topic(name).expect("there"));
        assert!(Arc::ptr_eq(handles[0], handles[1]), "{name} is unchanged");
    }
    follower.abort();
}

#[tokio::test]
async fn what_a_topic_has_stored_that_is_deleted_while_it_is_being_opened_goes_too() {
    let fixture = Fixture::new().await;
    let mut follower = fixture.with_broken().await;
    let opened = fixture
        .groups
        .open_partition(GroupId(1), &[NodeId(1)])
        .await;
    opened.expect("opened").group().stop().await;
    let is_stored = || {
        let groups = fixture.storage.groups().expect("listed");
        groups.contains(&GroupId(1))
    };
    assert!(is_stored());
    follower.reopen();
    fixture
        .apply(DeleteTopic(command::DeleteTopic {
            name: "broken".to_owned(),
            topic_id: 1,
        }))
        .await;
    follower.catch_up().await;
    assert!(follower.directory.borrow().topic("broken").is_err());
    assert!(follower.deletions.is_empty(), "it is being opened");
    let reopened = follower.reopened.join_next().await;
    follower.take(reopened.expect("one task").expect("no panic"));
    let deleted = follower.deletions.join_next().await;
    deleted.expect("one task").expect("no panic");
    assert!(!is_stored());
}
