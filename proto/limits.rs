//! Numbers that clients and brokers agree on. The broker advertises them in `Welcome` and `GetStatus`.

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Largest encoded record.
pub const RECORD_BYTES_MAX: usize = MIB;
/// Largest `RecordBatch.records` that a topic may allow.
pub const BATCH_BYTES_MAX: usize = 8 * MIB;
/// Largest `RecordBatch.records` of a topic that does not say: 1 MiB of payload and its framing.
pub const BATCH_BYTES_DEFAULT: usize = MIB + 64 * KIB;
/// Largest request.
pub const REQUEST_BYTES_MAX: usize = 16 * MIB;
/// Most records in a batch.
pub const BATCH_RECORDS_MAX: usize = 65_536;
/// Most headers of a record.
pub const RECORD_HEADERS_MAX: usize = 64;
/// Longest header key.
pub const HEADER_KEY_BYTES_MAX: usize = 255;
/// Largest decompressed batch.
pub const DECOMPRESSED_BYTES_MAX: usize = 16 * MIB;
/// Most partitions of a topic.
pub const PARTITIONS_MAX: usize = 10_000;
/// Longest topic name.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;
/// Longest producer session id.
pub const SESSION_ID_BYTES_MAX: usize = 64;
/// Appends of a session that are recognised when they are repeated; a session's window is never larger.
pub const SESSION_RECENT_MAX: usize = 32;
/// Window of a produce stream without a session.
pub const STREAM_WINDOW: usize = 256;

const _: () = assert!(RECORD_BYTES_MAX <= BATCH_BYTES_DEFAULT);
const _: () = assert!(BATCH_BYTES_DEFAULT <= BATCH_BYTES_MAX);
const _: () = assert!(BATCH_BYTES_MAX <= REQUEST_BYTES_MAX);
const _: () = assert!(BATCH_BYTES_MAX <= DECOMPRESSED_BYTES_MAX);
