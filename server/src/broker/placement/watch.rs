//! Changes of the cluster for a client that watches: what is different from what it was told.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kelda_proto::v1;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};

use super::{Overview, is_settled, nodes::described_nodes};
use crate::{
    broker::{Broker, topics::describe},
    consensus::CatalogView,
    machine::catalog::{Topic, TopicRange},
};

/// Elements of a message at most: the largest stay far below the limit of a message.
const ELEMENTS_MAX: usize = 1000;
/// Pause before the catalog's leader is asked again that did not answer.
const AGAIN: Duration = Duration::from_secs(1);

/// The cluster as one client knows it.
pub struct ClusterChanges {
    broker: Broker,
    catalog: watch::Receiver<CatalogView>,
    overview: Overview,
    nodes: BTreeMap<u64, v1::Node>,
    topics: BTreeMap<String, Arc<Topic>>,
    places: BTreeMap<(String, i32), v1::PartitionPlace>,
}

impl Broker {
    /// What a client will be told that knows nothing yet.
    pub fn watch_cluster(&self) -> ClusterChanges {
        ClusterChanges {
            broker: self.clone(),
            catalog: self.shared.catalog.watch(),
            overview: Overview::default(),
            nodes: BTreeMap::new(),
            topics: BTreeMap::new(),
            places: BTreeMap::new(),
        }
    }
}

impl ClusterChanges {
    /// The whole cluster, in as many messages as it takes.
    pub async fn state(&mut self) -> Vec<v1::ClusterUpdate> {
        let overview = self.broker.overview_soon().await;
        // Without a leader of the catalog nobody tells of the others, but this node knows whom it hears.
        self.overview = overview.unwrap_or_else(|| self.broker.heard_overview());
        self.catalog.mark_unchanged();
        let state = self.update();
        if state.is_empty() {
            vec![v1::ClusterUpdate::default()]
        } else {
            state
        }
    }

    /// What has changed, once something has; nothing if that takes until `deadline`. It may be dropped while it waits.
    pub async fn next(&mut self, deadline: Instant) -> Vec<v1::ClusterUpdate> {
        loop {
            let wait = deadline.saturating_duration_since(Instant::now());
            let known = self.overview.version;
            let broker = self.broker.clone();
            let asked = async move {
                let answer = broker.ask_overview(known, wait).await;
                if answer.is_none() {
                    sleep(AGAIN).await;
                    // While another leader is elected, what the last one told stays as it was.
                    let has_quorum = broker.shared.catalog.group().has_quorum();
                    return (!has_quorum).then(|| broker.heard_overview());
                }
                answer
            };
            let news = async {
                tokio::select! {
                    answer = asked => answer,
                    // The catalog goes with the node, and the stream with it.
                    _ = self.catalog.changed() => None,
                }
            };
            let is_over = match timeout_at(deadline, news).await {
                Ok(Some(overview)) => {
                    self.overview = overview;
                    false
                }
                Ok(None) => false,
                Err(_) => true,
            };
            let update = self.update();
            if !update.is_empty() || is_over || Instant::now() >= deadline {
                return update;
            }
        }
    }

    /// Version of the catalog.
    pub fn catalog_version(&self) -> u64 {
        self.broker.shared.catalog.view().version()
    }

    fn update(&mut self) -> Vec<v1::ClusterUpdate> {
        let catalog = self.broker.shared.catalog.view();
        let mut chunks = Chunks::default();
        let nodes = described_nodes(&catalog, &self.overview);
        let nodes: BTreeMap<u64, v1::Node> = nodes.into_iter().map(|it| (it.id, it)).collect();
        for node in nodes.values() {
            if self.nodes.get(&node.id) != Some(node) {
                chunks.next().nodes.push(node.clone());
            }
        }
        for id in self.nodes.keys().filter(|id| !nodes.contains_key(id)) {
            chunks.next().removed_nodes.push(*id);
        }
        self.nodes = nodes;
        self.update_topics(&catalog, &mut chunks);
        chunks.done()
    }

    fn update_topics(&mut self, catalog: &CatalogView, chunks: &mut Chunks) {
        let mut topics = BTreeMap::new();
        let mut places = BTreeMap::new();
        for topic in catalog.topics_from(TopicRange::default()) {
            let known = self.topics.get(&topic.name);
            if known.is_none_or(|known| !Arc::ptr_eq(known, topic) && is_new(known, topic)) {
                chunks.next().topics.push(describe(topic));
            }
            for place in self.places_of(topic) {
                let key = (place.topic.clone(), place.partition);
                if self.places.get(&key) != Some(&place) {
                    chunks.next().partitions.push(place.clone());
                }
                places.insert(key, place);
            }
            topics.insert(topic.name.clone(), Arc::clone(topic));
        }
        for name in self
            .topics
            .keys()
            .filter(|name| !topics.contains_key(*name))
        {
            chunks.next().removed_topics.push(name.clone());
        }
        self.topics = topics;
        self.places = places;
    }

    fn places_of(&self, topic: &Topic) -> Vec<v1::PartitionPlace> {
        let place = |(number, placed): (i32, &crate::machine::catalog::Partition)| {
            let known = self.overview.partitions.get(&placed.group);
            v1::PartitionPlace {
                topic: topic.name.clone(),
                partition: number,
                leader: known.map_or(0, |it| it.leader.0),
                replicas: placed.replicas.iter().map(|id| id.0).collect(),
                settled: placed.replicas.len() == topic.replication_factor as usize
                    && is_settled(placed.group, &placed.replicas, &self.overview),
            }
        };
        (0..).zip(&topic.partitions).map(place).collect()
    }
}

/// Whether anything but where partitions are is different.
fn is_new(known: &Topic, topic: &Topic) -> bool {
    describe(known) != describe(topic)
}

/// An update in messages of bounded size.
#[derive(Default)]
struct Chunks {
    done: Vec<v1::ClusterUpdate>,
    elements: usize,
}

impl Chunks {
    /// The message that the next element goes into.
    fn next(&mut self) -> &mut v1::ClusterUpdate {
        if self.elements.is_multiple_of(ELEMENTS_MAX) {
            if let Some(last) = self.done.last_mut() {
                last.more = true;
            }
            self.done.push(v1::ClusterUpdate::default());
        }
        self.elements += 1;
        self.done
            .last_mut()
            .expect("one was pushed with the first element")
    }

    fn done(self) -> Vec<v1::ClusterUpdate> {
        self.done
    }
}
