//! A topic whose records must stay right, whatever else its node is sent.

use kelda_proto::v1;
use tonic::Status;

use super::{TestNode, panics, record};

/// Name of the topic.
pub(crate) const TOPIC: &str = "orders";

/// A node with the topic `orders` of two partitions, and what was acknowledged in partition 0.
pub(crate) struct Orders {
    pub(crate) node: TestNode,
    stored: Vec<String>,
    log_start: usize,
}

impl Orders {
    /// On a new node in memory.
    pub(crate) async fn start() -> Self {
        Self::create_on(TestNode::ephemeral().await).await
    }

    /// On a node that has no topics. Two records are there from the start.
    pub(crate) async fn create_on(node: TestNode) -> Self {
        node.create_topic(TOPIC, 2).await;
        let mut orders = Self {
            node,
            stored: Vec::new(),
            log_start: 0,
        };
        orders.check().await;
        orders.check().await;
        orders
    }

    /// Offset that the next record will get.
    pub(crate) fn end(&self) -> i64 {
        self.stored.len() as i64
    }

    /// Notes what a test has produced by itself to partition 0.
    pub(crate) fn note(&mut self, value: &str) {
        self.stored.push(value.to_owned());
    }

    /// Notes that records below an offset are deleted.
    pub(crate) fn note_log_start(&mut self, log_start: usize) {
        self.log_start = log_start;
    }

    /// Asserts that a good produce gets the next offset, that all that was acknowledged is there and nothing else,
    /// and that nothing has panicked.
    pub(crate) async fn check(&mut self) {
        let value = format!("good {}", self.stored.len());
        let offset = self.node.produce_values(TOPIC, &[&value]).await;
        assert_eq!(offset, self.end());
        self.stored.push(value);
        let from = i64::try_from(self.log_start).expect("small");
        let found = self.node.values(TOPIC, 0, from).await;
        assert_eq!(found, self.stored[self.log_start..]);
        panics::assert_none();
    }

    /// Sends a produce that must be refused.
    pub(crate) async fn refused(&self, request: v1::ProduceRequest) -> Status {
        let answer = self.node.produce().produce(request).await;
        answer.expect_err("it must be refused")
    }
}

/// A produce of one record to partition 0.
pub(crate) fn good() -> v1::ProduceRequest {
    v1::ProduceRequest {
        topic: TOPIC.to_owned(),
        partition: Some(0),
        records: vec![record("bad")],
        ..Default::default()
    }
}

/// A produce of a packed batch to partition 0.
pub(crate) fn packed(batch: v1::RecordBatch) -> v1::ProduceRequest {
    v1::ProduceRequest {
        records: Vec::new(),
        batch: Some(batch),
        ..good()
    }
}

/// A fetch of partition 0.
pub(crate) fn fetch(offset: i64) -> v1::FetchRequest {
    v1::FetchRequest {
        topic: TOPIC.to_owned(),
        offset,
        ..Default::default()
    }
}
