//! `kelda.v1.TopicService`.

use std::collections::BTreeSet;

use kelda_proto::v1::{
    AddPartitionsRequest, AddPartitionsResponse, CreateTopicRequest, CreateTopicResponse,
    DeleteRecordsRequest, DeleteRecordsResponse, DeleteTopicRequest, DeleteTopicResponse,
    GetTopicRequest, GetTopicResponse, ListOffsetsRequest, ListOffsetsResponse, ListTopicsRequest,
    ListTopicsResponse, UpdateTopicRequest, UpdateTopicResponse,
    topic_service_server::TopicService,
};
use tonic::{Request, Response, Status};

use super::{
    convert::{self, Checks},
    status::status,
};
use crate::broker::{Broker, Error};

/// Most topics in a page.
const PAGE_SIZE_MAX: i32 = 1000;

/// Manages topics.
pub(super) struct Topics {
    pub(super) broker: Broker,
}

/// Which partitions of a request are named twice.
fn check_unique(checks: &mut Checks, partitions: impl Iterator<Item = i32>) {
    let mut seen = BTreeSet::new();
    for (index, partition) in partitions.enumerate() {
        if !seen.insert(partition) {
            checks.fail(format!("partitions[{index}]"), "must be named only once");
        }
    }
}

fn answer<T>(answer: Result<T, Error>) -> Result<Response<T>, Status> {
    answer.map(Response::new).map_err(|error| status(&error))
}

impl Topics {
    async fn offsets(&self, request: ListOffsetsRequest) -> Result<ListOffsetsResponse, Error> {
        let mut checks = Checks::default();
        check_unique(&mut checks, request.partitions.iter().copied());
        let start = convert::start(request.position);
        let start = start.map_err(|violation| Error::InvalidFields(vec![violation]))?;
        checks.done()?;
        let (topic, partitions) = (&request.topic, &request.partitions);
        let offsets = self.broker.list_offsets(topic, partitions, start).await?;
        Ok(ListOffsetsResponse { offsets })
    }

    async fn trimmed(&self, request: DeleteRecordsRequest) -> Result<DeleteRecordsResponse, Error> {
        let mut checks = Checks::default();
        check_unique(&mut checks, request.partitions.iter().map(|p| p.partition));
        if request.partitions.is_empty() {
            checks.fail("partitions", "must name at least one partition");
        }
        checks.done()?;
        let trims: Vec<_> = request
            .partitions
            .iter()
            .map(|trim| (trim.partition, trim.before_offset))
            .collect();
        let offsets = self.broker.delete_records(&request.topic, &trims).await?;
        Ok(DeleteRecordsResponse { offsets })
    }

    fn listed(&self, request: &ListTopicsRequest) -> Result<ListTopicsResponse, Error> {
        if request.page_size < 0 {
            return Err(Error::invalid("page_size", "must not be negative"));
        }
        let size = match request.page_size {
            0 => PAGE_SIZE_MAX,
            size => size.min(PAGE_SIZE_MAX),
        };
        let (topics, next) =
            self.broker
                .list_topics(&request.prefix, &request.page_token, convert::size(size));
        Ok(ListTopicsResponse {
            topics,
            next_page_token: next.unwrap_or_default(),
        })
    }
}

#[tonic::async_trait]
impl TopicService for Topics {
    async fn create_topic(
        &self,
        request: Request<CreateTopicRequest>,
    ) -> Result<Response<CreateTopicResponse>, Status> {
        let request = request.into_inner();
        let created = self.broker.create_topic(
            &request.name,
            request.partition_count,
            request.replication_factor,
            request.config.unwrap_or_default(),
            request.validate_only,
        );
        answer(
            created
                .await
                .map(|topic| CreateTopicResponse { topic: Some(topic) }),
        )
    }

    async fn get_topic(
        &self,
        request: Request<GetTopicRequest>,
    ) -> Result<Response<GetTopicResponse>, Status> {
        let topic = self.broker.get_topic(&request.get_ref().name).await;
        answer(topic.map(|topic| GetTopicResponse { topic: Some(topic) }))
    }

    async fn list_topics(
        &self,
        request: Request<ListTopicsRequest>,
    ) -> Result<Response<ListTopicsResponse>, Status> {
        answer(self.listed(request.get_ref()))
    }

    async fn update_topic(
        &self,
        request: Request<UpdateTopicRequest>,
    ) -> Result<Response<UpdateTopicResponse>, Status> {
        let request = request.into_inner();
        let config = request.config.unwrap_or_default();
        let mask = request.update_mask.unwrap_or_default().paths;
        let updated =
            self.broker
                .update_topic(&request.name, config, &mask, request.replication_factor);
        answer(
            updated
                .await
                .map(|topic| UpdateTopicResponse { topic: Some(topic) }),
        )
    }

    async fn delete_topic(
        &self,
        request: Request<DeleteTopicRequest>,
    ) -> Result<Response<DeleteTopicResponse>, Status> {
        let deleted = self.broker.delete_topic(&request.get_ref().name).await;
        answer(deleted.map(|()| DeleteTopicResponse {}))
    }

    async fn add_partitions(
        &self,
        request: Request<AddPartitionsRequest>,
    ) -> Result<Response<AddPartitionsResponse>, Status> {
        let AddPartitionsRequest {
            name,
            partition_count,
        } = request.into_inner();
        let grown = self.broker.add_partitions(&name, partition_count).await;
        answer(grown.map(|topic| AddPartitionsResponse { topic: Some(topic) }))
    }

    async fn list_offsets(
        &self,
        request: Request<ListOffsetsRequest>,
    ) -> Result<Response<ListOffsetsResponse>, Status> {
        answer(self.offsets(request.into_inner()).await)
    }

    async fn delete_records(
        &self,
        request: Request<DeleteRecordsRequest>,
    ) -> Result<Response<DeleteRecordsResponse>, Status> {
        answer(self.trimmed(request.into_inner()).await)
    }
}
