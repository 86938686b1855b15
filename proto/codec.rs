//! The codec of all services: prost's, with a look at what a message would become before it is decoded.
//!
//! An empty record takes 2 bytes encoded and some hundred decoded, so a request within the size limit could take a
//! gigabyte. [`Guard`] counts what a message holds on the wire and refuses it first.

use std::marker::PhantomData;

use prost::{Message, bytes::Buf};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder},
};
use tonic_prost::ProstEncoder;

use crate::{
    batch::nested_items,
    v1::{ProduceRequest, ProduceStreamRequest},
};

/// Records and headers that a request may hold. What a topic accepts is decided later, with better words.
const ITEMS_MAX: usize = 1 << 20;

/// A message that may refuse to be decoded.
pub trait Guard: Message + Default {
    /// Looks at the encoded message. One that is malformed is the decoder's business.
    ///
    /// # Errors
    /// In words for the client, if decoding would take far more memory than the message.
    fn guard(_encoded: &[u8]) -> Result<(), &'static str> {
        Ok(())
    }
}

fn check_items(encoded: &[u8], path: &[u32]) -> Result<(), &'static str> {
    match nested_items(encoded, path) {
        Ok(items) if items > ITEMS_MAX => Err("too many records and headers: send fewer at once"),
        // The decoder says what is malformed.
        Ok(_) | Err(_) => Ok(()),
    }
}

impl Guard for ProduceRequest {
    fn guard(encoded: &[u8]) -> Result<(), &'static str> {
        // Headers of records.
        check_items(encoded, &[3, 3])
    }
}

impl Guard for ProduceStreamRequest {
    fn guard(encoded: &[u8]) -> Result<(), &'static str> {
        // Headers of records of an append.
        check_items(encoded, &[2, 3, 3])
    }
}

// For every other message of a service: nothing in them grows so much. Generated, so that none is forgotten.
include!(concat!(env!("OUT_DIR"), "/guards.rs"));

/// The codec. `E` is what is encoded, `D` what is decoded.
#[derive(Clone, Debug)]
pub struct GuardedCodec<E, D>(PhantomData<(E, D)>);

impl<E, D> Default for GuardedCodec<E, D> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<E, D> Codec for GuardedCodec<E, D>
where
    E: Message + Send + 'static,
    D: Guard + Send + 'static,
{
    type Encode = E;
    type Decode = D;
    type Encoder = ProstEncoder<E>;
    type Decoder = GuardedDecoder<D>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        GuardedDecoder(PhantomData)
    }
}

/// Decodes what [`Guard`] lets through.
#[derive(Clone, Debug)]
pub struct GuardedDecoder<D>(PhantomData<D>);

impl<D: Guard> Decoder for GuardedDecoder<D> {
    type Item = D;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        // A slice of the received buffer, as are the `Bytes` fields decoded from it: no copy.
        let encoded = buffer.copy_to_bytes(buffer.remaining());
        // INTERNAL is what tonic's own decoder answers; brokers translate both.
        D::guard(&encoded).map_err(Status::internal)?;
        let message = D::decode(encoded).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{Header, Record, produce_stream_request as stream};

    fn records(count: usize, headers: usize) -> Vec<Record> {
        let headers = vec![Header::default(); headers];
        let record = Record {
            headers,
            ..Record::default()
        };
        vec![record; count]
    }

    #[test]
    fn what_would_grow_too_much_is_refused_before_it_is_decoded() {
        for (count, headers, fits) in [
            (1000, 64, true),
            (ITEMS_MAX - 1, 0, true),
            (ITEMS_MAX + 1, 0, false),
            (1, ITEMS_MAX, false),
            (1024, 1024, false),
        ] {
            let records = records(count, headers);
            let request = ProduceRequest {
                topic: "t".to_owned(),
                records: records.clone(),
                ..ProduceRequest::default()
            };
            let encoded = request.encode_to_vec();
            assert_eq!(ProduceRequest::guard(&encoded).is_ok(), fits);
            let append = stream::Append {
                records,
                ..stream::Append::default()
            };
            let request = ProduceStreamRequest {
                message: Some(stream::Message::Append(append)),
            };
            let encoded = request.encode_to_vec();
            assert_eq!(ProduceStreamRequest::guard(&encoded).is_ok(), fits);
        }
    }

    #[test]
    fn what_is_malformed_is_left_to_the_decoder() {
        for encoded in [&b"\x1a\xff"[..], b"\xff\xff\xff", b"\x12\x02\x1a\x05", b""] {
            assert_eq!(ProduceRequest::guard(encoded), Ok(()));
            assert_eq!(ProduceStreamRequest::guard(encoded), Ok(()));
        }
    }
}
