//! Requests of clients.

use kelda_proto::partitioner::partition_for_key;
use kelda_proto::v1::{self, Record, RecordBatch, TopicConfig};
use kelda_server::machine::topic_config::{Effective, merge, validate, validate_name};

use super::batch::check_batch;
use super::decode;

/// Decodes the input as the request that its first byte chooses, and runs the checks that need no broker.
pub fn requests(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    match kind % 14 {
        0 => produce(bytes),
        1 => produce_stream(bytes),
        2 => create_topic(bytes),
        3 => update_topic(bytes),
        4 => drop(decode::<v1::FetchRequest>(bytes)),
        5 => drop(decode::<v1::ConsumeRequest>(bytes)),
        6 => drop(decode::<v1::GetTopicRequest>(bytes)),
        7 => drop(decode::<v1::ListTopicsRequest>(bytes)),
        8 => drop(decode::<v1::DeleteTopicRequest>(bytes)),
        9 => drop(decode::<v1::AddPartitionsRequest>(bytes)),
        10 => drop(decode::<v1::ListOffsetsRequest>(bytes)),
        11 => drop(decode::<v1::DeleteRecordsRequest>(bytes)),
        12 => drop(decode::<v1::GetStatusRequest>(bytes)),
        _ => drop(decode::<v1::ListNodesRequest>(bytes)),
    }
}

fn produce(bytes: &[u8]) {
    if let Some(request) = decode::<v1::ProduceRequest>(bytes) {
        content(&request.records, request.batch.as_ref());
    }
}

fn produce_stream(bytes: &[u8]) {
    use v1::produce_stream_request::Message;

    let request = decode::<v1::ProduceStreamRequest>(bytes);
    if let Some(Message::Append(append)) = request.and_then(|request| request.message) {
        content(&append.records, append.batch.as_ref());
    }
}

fn content(records: &[Record], batch: Option<&RecordBatch>) {
    for key in records.iter().filter_map(|record| record.key.as_ref()) {
        assert!(partition_for_key(key, 7) < 7);
    }
    if let Some(batch) = batch {
        check_batch(batch);
    }
}

fn create_topic(bytes: &[u8]) {
    if let Some(request) = decode::<v1::CreateTopicRequest>(bytes) {
        let valid = validate_name(&request.name).is_ok();
        assert!(!valid || (!request.name.is_empty() && request.name.is_ascii()));
        usable(&request.config.unwrap_or_default());
    }
}

fn update_topic(bytes: &[u8]) {
    let Some(request) = decode::<v1::UpdateTopicRequest>(bytes) else {
        return;
    };
    let update = request.config.unwrap_or_default();
    let mask = request.update_mask.unwrap_or_default().paths;
    if let Ok(merged) = merge(&TopicConfig::default(), &update, &mask) {
        assert_eq!(validate(&merged), []);
    }
    usable(&update);
}

/// Whatever was asked for, what is in force is valid.
fn usable(config: &TopicConfig) {
    let in_force = TopicConfig::from(Effective::of(config));
    assert_eq!(validate(&in_force), []);
    if validate(config).is_empty() {
        assert_eq!(
            config.retention_ms.or(in_force.retention_ms),
            in_force.retention_ms
        );
        assert_eq!(
            config.batch_bytes_max.or(in_force.batch_bytes_max),
            in_force.batch_bytes_max
        );
    }
}
