//! Walks an encoded `RecordSet` without decoding or allocating.
//!
//! The walk accepts what a protobuf decoder accepts, with the same depth limit, and nothing else: whatever [`scan`]
//! passes, `prost` decodes to `record_count` records. Two properties in the tests compare the two.

use super::{Error, Rules, Summary};

/// Field `RecordSet.records`.
pub(super) const RECORD_TAG: u32 = 1;
/// How deep unknown groups may be nested, counted as the decoder does: from the outermost message.
const DEPTH_MAX: u32 = 100;

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;
const GROUP_START: u8 = 3;
const GROUP_END: u8 = 4;
const FIXED32: u8 = 5;

const TRUNCATED: Error = malformed("a field is longer than what holds it");

const fn malformed(detail: &'static str) -> Error {
    Error::Malformed { detail }
}

/// Checks an encoded `RecordSet`: the structure of every record and header, and their limits under `rules`.
pub fn scan(records: &[u8], rules: &Rules) -> Result<Summary, Error> {
    let mut count = 0_usize;
    let mut max_timestamp_ms = None;
    let mut timestamp_missing = false;
    let mut largest_record_bytes = 0;
    let mut set = Fields(records);
    while let Some(record) = set.next_record()? {
        let timestamp_ms = scan_record(record, count, rules)?;
        if timestamp_ms == 0 {
            timestamp_missing = true;
        } else {
            max_timestamp_ms = max_timestamp_ms.max(Some(timestamp_ms));
        }
        largest_record_bytes = largest_record_bytes.max(record.len());
        count += 1;
    }
    if count == 0 {
        return Err(Error::Empty);
    }
    Ok(Summary {
        record_count: u32::try_from(count).map_err(|_| Error::TooManyRecords {
            limit: rules.batch_records_max,
        })?,
        max_timestamp_ms: max_timestamp_ms.unwrap_or(0),
        timestamp_missing,
        largest_record_bytes,
    })
}

/// Counts the messages at the end of a path of field numbers, and those on the way to them.
pub(crate) fn nested_items(message: &[u8], path: &[u32]) -> Result<usize, Error> {
    let Some((wanted, rest)) = path.split_first() else {
        return Ok(0);
    };
    let mut items = 0;
    let mut fields = Fields(message);
    while !fields.is_empty() {
        match fields.key()? {
            (tag, BYTES) if tag == *wanted => {
                items += 1 + nested_items(fields.bytes(BYTES)?, rest)?;
            }
            (tag, wire_type) => fields.skip(tag, wire_type, DEPTH_MAX)?,
        }
    }
    Ok(items)
}

/// As [`super::position_at_time`], of an encoded `RecordSet`.
pub(super) fn position_at_time(
    records: &[u8],
    from: u32,
    append_time_ms: i64,
    target_ms: i64,
    rules: &Rules,
) -> Result<Option<u32>, Error> {
    let mut set = Fields(records);
    let mut position = 0;
    while let Some(record) = set.next_record()? {
        let given_ms = scan_record(record, position as usize, rules)?;
        let timestamp_ms = if given_ms == 0 {
            append_time_ms
        } else {
            given_ms
        };
        if position >= from && timestamp_ms >= target_ms {
            return Ok(Some(position));
        }
        position += 1;
    }
    Ok(None)
}

/// Checks one encoded record, the `index`th, and returns its timestamp.
fn scan_record(record: &[u8], index: usize, rules: &Rules) -> Result<i64, Error> {
    const KEY: u32 = 1;
    const VALUE: u32 = 2;
    const HEADER: u32 = 3;
    const TIMESTAMP: u32 = 4;

    if index >= rules.batch_records_max {
        return Err(Error::TooManyRecords {
            limit: rules.batch_records_max,
        });
    }
    if record.len() > rules.record_bytes_max {
        return Err(Error::RecordTooLarge {
            index,
            size: record.len(),
            limit: rules.record_bytes_max,
        });
    }
    let mut timestamp_ms = 0;
    let mut headers = 0;
    let mut fields = Fields(record);
    while !fields.is_empty() {
        match fields.key()? {
            (KEY | VALUE, wire_type) => {
                fields.bytes(wire_type)?;
            }
            (HEADER, wire_type) => {
                headers += 1;
                if headers > rules.record_headers_max {
                    return Err(Error::TooManyHeaders {
                        index,
                        limit: rules.record_headers_max,
                    });
                }
                scan_header(fields.bytes(wire_type)?, index, rules)?;
            }
            // A repeated field's last value counts. The bits of an int64 are those of the varint.
            (TIMESTAMP, VARINT) => timestamp_ms = fields.varint()? as i64,
            (TIMESTAMP, _) => return Err(malformed("a timestamp is not a varint")),
            (tag, wire_type) => fields.skip(tag, wire_type, DEPTH_MAX - 1)?,
        }
    }
    Ok(timestamp_ms)
}

fn scan_header(header: &[u8], index: usize, rules: &Rules) -> Result<(), Error> {
    const KEY: u32 = 1;
    const VALUE: u32 = 2;

    let mut fields = Fields(header);
    while !fields.is_empty() {
        match fields.key()? {
            (KEY, wire_type) => {
                let key = fields.bytes(wire_type)?;
                if key.len() > rules.header_key_bytes_max {
                    return Err(Error::HeaderKeyTooLong {
                        index,
                        size: key.len(),
                        limit: rules.header_key_bytes_max,
                    });
                }
                std::str::from_utf8(key).map_err(|_| malformed("a header key is not UTF-8"))?;
            }
            (VALUE, wire_type) => {
                fields.bytes(wire_type)?;
            }
            (tag, wire_type) => fields.skip(tag, wire_type, DEPTH_MAX - 2)?,
        }
    }
    Ok(())
}

/// The bytes of a message that are not read yet.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next record of a `RecordSet`.
    fn next_record(&mut self) -> Result<Option<&'a [u8]>, Error> {
        while !self.is_empty() {
            match self.key()? {
                (RECORD_TAG, wire_type) => return self.bytes(wire_type).map(Some),
                (tag, wire_type) => self.skip(tag, wire_type, DEPTH_MAX)?,
            }
        }
        Ok(None)
    }

    /// Tag and wire type of the next field.
    #[inline]
    fn key(&mut self) -> Result<(u32, u8), Error> {
        let key =
            u32::try_from(self.varint()?).map_err(|_| malformed("a field number is too large"))?;
        match key >> 3 {
            0 => Err(malformed("a field number is 0")),
            tag => Ok((tag, (key & 7) as u8)),
        }
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, Error> {
        match self.0 {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.0 = rest;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Error> {
        let mut value = 0;
        for (position, byte) in self.0.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * position);
            if *byte < 0x80 {
                // The tenth byte has room for one bit.
                if position == 9 && *byte > 1 {
                    break;
                }
                self.0 = &self.0[position + 1..];
                return Ok(value);
            }
        }
        Err(malformed("a varint does not end"))
    }

    /// Content of a field that must be length-delimited.
    #[inline]
    fn bytes(&mut self, wire_type: u8) -> Result<&'a [u8], Error> {
        if wire_type != BYTES {
            return Err(malformed("a field has the wrong wire type"));
        }
        let size = usize::try_from(self.varint()?).map_err(|_| TRUNCATED)?;
        self.take(size)
    }

    #[inline]
    fn take(&mut self, size: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.0.split_at_checked(size).ok_or(TRUNCATED)?;
        self.0 = rest;
        Ok(taken)
    }

    /// Skips an unknown field. The recursion ends at `depth` 0.
    fn skip(&mut self, tag: u32, wire_type: u8, depth: u32) -> Result<(), Error> {
        if depth == 0 {
            return Err(malformed("groups are nested too deeply"));
        }
        match wire_type {
            VARINT => self.varint().map(drop),
            FIXED64 => self.take(8).map(drop),
            BYTES => self.bytes(wire_type).map(drop),
            FIXED32 => self.take(4).map(drop),
            GROUP_START => loop {
                match self.key()? {
                    (end, GROUP_END) if end == tag => return Ok(()),
                    (inner, inner_type) => self.skip(inner, inner_type, depth - 1)?,
                }
            },
            GROUP_END => Err(malformed("a group ends that did not start")),
            _ => Err(malformed("unknown wire type")),
        }
    }
}
