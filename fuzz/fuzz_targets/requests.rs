//! Every request that a client can send: the decoder takes any bytes, and what it takes it encodes to something that
//! decodes to the same.
#![no_main]

use std::fmt::Debug;

use kelda_proto::{
    batch::{self, Rules},
    v1,
};
use libfuzzer_sys::fuzz_target;
use prost::Message;

fn round_trip<M: Message + Default + PartialEq + Debug>(bytes: &[u8]) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    let again =
        M::decode(message.encode_to_vec().as_slice()).expect("what we encode can be decoded");
    assert!(message == again, "{message:?} became {again:?}");
    Some(message)
}

/// What the broker does with the records of a produce before anything else.
fn check_records(records: &[v1::Record], packed: Option<&v1::RecordBatch>) {
    for (index, record) in records.iter().enumerate() {
        // Either answer is right; that there is one, without a panic, is the point.
        let _ = batch::check_record(index, record, &Rules::default());
    }
    if let Some(packed) = packed {
        let _ = batch::check(packed, &Rules::default());
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    match kind % 13 {
        0 => {
            if let Some(request) = round_trip::<v1::ProduceRequest>(bytes) {
                check_records(&request.records, request.batch.as_ref());
            }
        }
        1 => {
            use v1::produce_stream_request::Message::Append;
            let request = round_trip::<v1::ProduceStreamRequest>(bytes);
            if let Some(Append(append)) = request.and_then(|request| request.message) {
                check_records(&append.records, append.batch.as_ref());
            }
        }
        2 => drop(round_trip::<v1::FetchRequest>(bytes)),
        3 => drop(round_trip::<v1::ConsumeRequest>(bytes)),
        4 => drop(round_trip::<v1::CreateTopicRequest>(bytes)),
        5 => drop(round_trip::<v1::GetTopicRequest>(bytes)),
        6 => drop(round_trip::<v1::ListTopicsRequest>(bytes)),
        7 => drop(round_trip::<v1::UpdateTopicRequest>(bytes)),
        8 => drop(round_trip::<v1::DeleteTopicRequest>(bytes)),
        9 => drop(round_trip::<v1::AddPartitionsRequest>(bytes)),
        10 => drop(round_trip::<v1::ListOffsetsRequest>(bytes)),
        11 => drop(round_trip::<v1::DeleteRecordsRequest>(bytes)),
        // The requests of ClusterService have no fields; RecordSet is the inside of a batch.
        _ => drop(round_trip::<v1::RecordSet>(bytes)),
    }
});
