//! Records and batches that are too large, damaged or not what they say.

use std::io::Write as _;

use kelda_proto::{
    batch::{self, crc32c},
    limits,
    v1::{self, Compression, ErrorReason},
};
use tonic::{Code, Status};

use crate::support::{
    orders::{Orders, TOPIC, good, packed},
    record,
    refusals::{assert_invalid_fields, assert_refusal},
};

const CODECS: [Compression; 4] = [
    Compression::Unspecified,
    Compression::Lz4,
    Compression::Zstd,
    Compression::Gzip,
];

/// Packs records that the client library would refuse to pack.
fn pack_anything(records: &[v1::Record]) -> v1::RecordBatch {
    let bytes = batch::encode_records(records);
    v1::RecordBatch {
        compression: Compression::Unspecified.into(),
        record_count: i32::try_from(records.len()).expect("few"),
        crc32c: crc32c(&bytes),
        records: bytes,
    }
}

fn compressed(compression: Compression, bytes: Vec<u8>) -> v1::RecordBatch {
    v1::RecordBatch {
        compression: compression.into(),
        record_count: 1,
        crc32c: crc32c(&bytes),
        records: bytes.into(),
    }
}

/// Sends records once as they are and once packed.
async fn refused_both_ways(orders: &Orders, records: Vec<v1::Record>) -> [Status; 2] {
    let batch = pack_anything(&records);
    let plain = v1::ProduceRequest { records, ..good() };
    [
        orders.refused(plain).await,
        orders.refused(packed(batch)).await,
    ]
}

#[tokio::test]
async fn a_record_that_is_too_large_is_refused_with_its_position() {
    let mut orders = Orders::start().await;
    let large = record(&"x".repeat(limits::RECORD_BYTES_MAX));
    let size = limits::RECORD_BYTES_MAX + 4;
    for status in refused_both_ways(&orders, vec![record("a"), large]).await {
        assert_refusal(
            &status,
            Code::InvalidArgument,
            ErrorReason::RecordTooLarge,
            &[
                ("record_index", "1"),
                ("size_bytes", &size.to_string()),
                ("limit_bytes", "1048576"),
            ],
            "split it",
        );
    }
    orders.check().await;
}

#[tokio::test]
async fn the_limits_of_a_topic_count() {
    let mut orders = Orders::start().await;
    let request = v1::CreateTopicRequest {
        name: "small".to_owned(),
        config: Some(v1::TopicConfig {
            record_bytes_max: Some(20),
            batch_bytes_max: Some(50),
            ..Default::default()
        }),
        ..Default::default()
    };
    let created = orders.node.topics().create_topic(request).await;
    created.expect("the topic is created");
    let to_small = |records: Vec<v1::Record>| v1::ProduceRequest {
        topic: "small".to_owned(),
        records,
        ..good()
    };
    let status = orders
        .refused(to_small(vec![record(&"x".repeat(30))]))
        .await;
    let metadata = [
        ("record_index", "0"),
        ("size_bytes", "32"),
        ("limit_bytes", "20"),
    ];
    let (code, reason) = (Code::InvalidArgument, ErrorReason::RecordTooLarge);
    assert_refusal(&status, code, reason, &metadata, "split it");
    let status = orders
        .refused(to_small(vec![record("0123456789"); 4]))
        .await;
    let metadata = [("size_bytes", "56"), ("limit_bytes", "50")];
    let reason = ErrorReason::BatchTooLarge;
    assert_refusal(&status, code, reason, &metadata, "send fewer records");
    assert!(orders.node.values("small", 0, 0).await.is_empty());
    orders.check().await;
}

#[tokio::test]
async fn a_batch_that_is_too_large_is_refused() {
    let mut orders = Orders::start().await;
    let records = vec![record(&"x".repeat(600_000)); 2];
    let size = batch::encode_records(&records).len().to_string();
    for status in refused_both_ways(&orders, records).await {
        assert_refusal(
            &status,
            Code::InvalidArgument,
            ErrorReason::BatchTooLarge,
            &[("size_bytes", &size), ("limit_bytes", "1114112")],
            "send fewer records at once",
        );
    }
    orders.check().await;
}

#[tokio::test]
async fn a_batch_of_too_many_records_is_refused() {
    let mut orders = Orders::start().await;
    let records = vec![v1::Record::default(); limits::BATCH_RECORDS_MAX + 1];
    for status in refused_both_ways(&orders, records).await {
        assert_refusal(
            &status,
            Code::InvalidArgument,
            ErrorReason::BatchTooLarge,
            &[("size_bytes", "65537"), ("limit_bytes", "65536")],
            "send fewer records at once",
        );
    }
    orders.check().await;
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused_with_both_sizes() {
    let mut orders = Orders::start().await;
    let large = record(&"x".repeat(limits::REQUEST_BYTES_MAX));
    let status = orders
        .refused(v1::ProduceRequest {
            records: vec![large],
            ..good()
        })
        .await;
    let metadata =
        crate::support::assert_refused(&status, Code::InvalidArgument, ErrorReason::BatchTooLarge);
    assert_eq!(metadata["limit_bytes"], "16777216");
    let size: usize = metadata["size_bytes"].parse().expect("a number");
    assert!(size > limits::REQUEST_BYTES_MAX);
    assert!(status.message().contains("send fewer records at once"));
    orders.check().await;
    // Requests without records have a lower limit, and are told that one.
    let status = orders
        .node
        .topics()
        .list_offsets(v1::ListOffsetsRequest {
            topic: "x".repeat(5 << 20),
            ..Default::default()
        })
        .await
        .expect_err("it must be refused");
    let metadata =
        crate::support::assert_refused(&status, Code::InvalidArgument, ErrorReason::BatchTooLarge);
    assert_eq!(metadata["limit_bytes"], "4194304");
    orders.check().await;
}

#[tokio::test]
async fn too_many_headers_and_long_header_keys_are_refused() {
    let mut orders = Orders::start().await;
    let with = |headers: Vec<v1::Header>| v1::Record {
        headers,
        ..record("a")
    };
    let header = |key: String| v1::Header {
        key,
        value: Default::default(),
    };
    let many = with(vec![header("k".to_owned()); limits::RECORD_HEADERS_MAX + 1]);
    let long = with(vec![header("k".repeat(limits::HEADER_KEY_BYTES_MAX + 1))]);
    for bad in [many, long] {
        for status in refused_both_ways(&orders, vec![record("a"), bad.clone()]).await {
            assert_invalid_fields(&status, &["records[1].headers"]);
            assert!(status.message().contains("more than"), "{status:?}");
        }
    }
    orders.check().await;
}

#[tokio::test]
async fn a_wrong_checksum_is_refused_with_both_checksums() {
    let mut orders = Orders::start().await;
    for codec in CODECS {
        let mut batch = batch::pack(&[record("a")], codec).expect("packed");
        let right = batch.crc32c;
        batch.crc32c ^= 1;
        let wrong = batch.crc32c;
        assert_refusal(
            &orders.refused(packed(batch)).await,
            Code::InvalidArgument,
            ErrorReason::ChecksumMismatch,
            &[
                ("expected", &wrong.to_string()),
                ("actual", &right.to_string()),
            ],
            "send the batch again",
        );
    }
    orders.check().await;
}

#[tokio::test]
async fn a_count_that_differs_from_the_records_is_refused() {
    let mut orders = Orders::start().await;
    for codec in CODECS {
        for count in [3, 1, 0, -1, i32::MAX, i32::MIN] {
            let mut batch = batch::pack(&[record("a"), record("b")], codec).expect("packed");
            batch.record_count = count;
            assert_refusal(
                &orders.refused(packed(batch)).await,
                Code::InvalidArgument,
                ErrorReason::RecordCountMismatch,
                &[("expected", &count.to_string()), ("actual", "2")],
                "set record_count to the number of records",
            );
        }
    }
    orders.check().await;
}

#[tokio::test]
async fn bytes_that_are_no_records_are_refused() {
    let mut orders = Orders::start().await;
    let mut cut = batch::encode_records(&[record("abcdef")]).to_vec();
    cut.pop();
    let samples: [&[u8]; 5] = [
        &[0xff; 40],
        b"hello",
        &cut,
        &[0x0a, 0xff, 0xff, 0x7f],
        &[0x0b],
    ];
    for codec in CODECS {
        for sample in samples {
            let status = orders
                .refused(packed(compressed(codec, sample.to_vec())))
                .await;
            let metadata = crate::support::assert_refused(
                &status,
                Code::InvalidArgument,
                ErrorReason::MalformedRecords,
            );
            assert_eq!(metadata.len(), 1);
            assert!(!metadata["detail"].is_empty());
            let advice = "send one encoded RecordSet, compressed as compression says";
            assert!(status.message().contains(advice), "{status:?}");
        }
    }
    orders.check().await;
}

#[tokio::test]
async fn a_batch_without_records_is_refused() {
    let mut orders = Orders::start().await;
    let empty = compressed(Compression::Unspecified, Vec::new());
    let status = orders.refused(packed(empty)).await;
    assert_invalid_fields(&status, &["records"]);
    orders.check().await;
}

#[tokio::test]
async fn an_unknown_compression_is_refused() {
    let mut orders = Orders::start().await;
    for unknown in [4, -1, i32::MAX] {
        let mut batch = batch::pack(&[record("a")], Compression::Unspecified).expect("packed");
        batch.compression = unknown;
        let status = orders.refused(packed(batch)).await;
        assert_invalid_fields(&status, &["batch.compression"]);
    }
    orders.check().await;
}

/// Zeros, one more than a batch may hold, compressed without saying how many there are.
fn bombs() -> [v1::RecordBatch; 3] {
    let zeros = vec![0; limits::DECOMPRESSED_BYTES_MAX + 1];
    let mut zstd = zstd::stream::Encoder::new(Vec::new(), 1).expect("an encoder");
    zstd.write_all(&zeros).expect("written");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&zeros).expect("written");
    let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
    lz4.write_all(&zeros).expect("written");
    [
        compressed(Compression::Zstd, zstd.finish().expect("a frame")),
        compressed(Compression::Gzip, gzip.finish().expect("a member")),
        compressed(Compression::Lz4, lz4.finish().expect("a frame")),
    ]
}

#[tokio::test]
async fn a_decompression_bomb_is_refused() {
    let mut orders = Orders::start().await;
    for bomb in bombs() {
        assert!(bomb.records.len() < 1 << 18, "it is small");
        assert_refusal(
            &orders.refused(packed(bomb)).await,
            Code::ResourceExhausted,
            ErrorReason::DecompressedTooLarge,
            &[("limit_bytes", "16777216")],
            "send fewer records at once",
        );
    }
    orders.check().await;
}

#[tokio::test]
async fn a_frame_that_claims_a_huge_size_is_refused() {
    let mut orders = Orders::start().await;
    // Magic, a single segment with a size of eight bytes, 2^62 bytes, and an empty last block.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0xe0];
    frame.extend((1_u64 << 62).to_le_bytes());
    frame.extend([1, 0, 0]);
    assert_refusal(
        &orders
            .refused(packed(compressed(Compression::Zstd, frame)))
            .await,
        Code::ResourceExhausted,
        ErrorReason::DecompressedTooLarge,
        &[("limit_bytes", "16777216")],
        "send fewer records at once",
    );
    orders.check().await;
}

#[tokio::test]
async fn records_and_a_batch_are_not_mixed_and_one_of_them_is_needed() {
    let mut orders = Orders::start().await;
    let batch = batch::pack(&[record("a")], Compression::Unspecified).expect("packed");
    let both = v1::ProduceRequest {
        batch: Some(batch),
        ..good()
    };
    let neither = v1::ProduceRequest {
        records: Vec::new(),
        ..good()
    };
    for request in [both, neither] {
        assert_invalid_fields(&orders.refused(request).await, &["records"]);
    }
    orders.check().await;
}

#[tokio::test]
async fn one_bad_record_keeps_all_of_its_request_out() {
    let mut orders = Orders::start().await;
    // Keys of both partitions, so that the shares are packed one by one.
    let mut records: Vec<_> = (0..20)
        .map(|number| v1::Record {
            key: Some(format!("key {number}").into()),
            ..record("a")
        })
        .collect();
    records.push(v1::Record {
        key: Some("last".into()),
        ..record(&"x".repeat(limits::RECORD_BYTES_MAX))
    });
    let request = v1::ProduceRequest {
        topic: TOPIC.to_owned(),
        records,
        ..Default::default()
    };
    let status = orders.refused(request).await;
    let metadata =
        crate::support::assert_refused(&status, Code::InvalidArgument, ErrorReason::RecordTooLarge);
    assert_eq!(
        metadata["record_index"], "20",
        "its position in the request"
    );
    assert!(orders.node.values(TOPIC, 1, 0).await.is_empty());
    orders.check().await;
}
