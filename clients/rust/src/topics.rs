//! Managing topics, with calls that are repeated.

use kelda_proto::v1::{
    AddPartitionsRequest, CreateTopicRequest, DeleteRecordsRequest, DeleteTopicRequest,
    ErrorReason, GetTopicRequest, ListOffsetsRequest, ListTopicsRequest, PartitionOffset,
    PartitionTrim, StartPosition, Topic, UpdateTopicRequest,
};

use crate::client::{Called, Client, topic_service};
use crate::error::Error;

/// Manages topics. Calls are repeated as [`crate::Options::retry`] says; when an attempt that seemed to fail took
/// effect after all, that counts as success.
#[derive(Clone)]
pub struct Topics {
    client: Client,
}

impl Topics {
    pub(crate) fn new(client: Client) -> Self {
        Topics { client }
    }

    /// Creates a topic and returns it with its partitions.
    pub async fn create(&self, request: CreateTopicRequest) -> Result<Topic, Error> {
        let called = self
            .client
            .call(|channel| {
                let request = self.client.request(request.clone());
                async move { topic_service(channel).create_topic(request).await }
            })
            .await;
        match called.result {
            Ok(response) => given(response.topic),
            Err(error) if called.unsure && error.reason() == Some(ErrorReason::TopicExists) => {
                let topic = self.get(&request.name).await?;
                let wanted = (request.partition_count.max(1), request.replication_factor);
                let ours = topic.partition_count == wanted.0
                    && (wanted.1 == 0 || topic.replication_factor == wanted.1);
                if ours { Ok(topic) } else { Err(error) }
            }
            Err(error) => Err(error),
        }
    }

    /// Returns a topic with its partitions.
    pub async fn get(&self, name: &str) -> Result<Topic, Error> {
        let called = self.client.call(|channel| {
            let name = name.to_owned();
            let request = self.client.request(GetTopicRequest { name });
            async move { topic_service(channel).get_topic(request).await }
        });
        given(called.await.result?.topic)
    }

    /// Lists all topics whose names start with `prefix`, in ascending order of name and without their partitions.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Topic>, Error> {
        let mut topics = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = ListTopicsRequest {
                prefix: prefix.to_owned(),
                page_size: 0,
                page_token,
            };
            let called = self.client.call(|channel| {
                let request = self.client.request(request.clone());
                async move { topic_service(channel).list_topics(request).await }
            });
            let page = called.await.result?;
            topics.extend(page.topics);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(topics);
            }
        }
    }

    /// Changes a topic's configuration and returns the topic without its partitions.
    pub async fn update(&self, request: UpdateTopicRequest) -> Result<Topic, Error> {
        let called = self.client.call(|channel| {
            let request = self.client.request(request.clone());
            async move { topic_service(channel).update_topic(request).await }
        });
        given(called.await.result?.topic)
    }

    /// Deletes a topic and all its records.
    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        let Called { result, unsure } = self
            .client
            .call(|channel| {
                let name = name.to_owned();
                let request = self.client.request(DeleteTopicRequest { name });
                async move { topic_service(channel).delete_topic(request).await }
            })
            .await;
        match result {
            Err(error) if unsure && error.reason() == Some(ErrorReason::UnknownTopic) => Ok(()),
            result => result.map(drop),
        }
    }

    /// Raises the number of partitions to `partition_count` and returns the topic with its partitions.
    pub async fn add_partitions(&self, name: &str, partition_count: u32) -> Result<Topic, Error> {
        let request = AddPartitionsRequest {
            name: name.to_owned(),
            partition_count: i32::try_from(partition_count).unwrap_or(i32::MAX),
        };
        let Called { result, unsure } = self
            .client
            .call(|channel| {
                let request = self.client.request(request.clone());
                async move { topic_service(channel).add_partitions(request).await }
            })
            .await;
        match result {
            Ok(response) => given(response.topic),
            Err(error) if unsure && error.reason() == Some(ErrorReason::InvalidField) => {
                let topic = self.get(name).await?;
                if topic.partition_count == request.partition_count {
                    Ok(topic)
                } else {
                    Err(error)
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Finds the offset of `position` in each of `partitions`; none: all.
    pub async fn list_offsets(
        &self,
        topic: &str,
        partitions: &[u32],
        position: StartPosition,
    ) -> Result<Vec<PartitionOffset>, Error> {
        let request = ListOffsetsRequest {
            topic: topic.to_owned(),
            partitions: partitions.iter().map(|p| wire_partition(*p)).collect(),
            position: Some(position),
        };
        let called = self.client.call(|channel| {
            let request = self.client.request(request.clone());
            async move { topic_service(channel).list_offsets(request).await }
        });
        Ok(called.await.result?.offsets)
    }

    /// Deletes the oldest records of partitions and returns where each now starts.
    pub async fn delete_records(
        &self,
        topic: &str,
        partitions: Vec<PartitionTrim>,
    ) -> Result<Vec<PartitionOffset>, Error> {
        let request = DeleteRecordsRequest {
            topic: topic.to_owned(),
            partitions,
        };
        let called = self.client.call(|channel| {
            let request = self.client.request(request.clone());
            async move { topic_service(channel).delete_records(request).await }
        });
        Ok(called.await.result?.offsets)
    }
}

fn given(topic: Option<Topic>) -> Result<Topic, Error> {
    topic.ok_or(Error::Protocol {
        detail: "an answer lacks its topic",
    })
}

/// A partition's number in messages. No topic has partitions that do not fit: the broker refuses the largest.
pub(crate) fn wire_partition(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}
