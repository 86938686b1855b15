//! Compression, and decompression within bounds.
//!
//! A batch is exactly one frame (LZ4, Zstandard) or member (gzip): what follows it is refused, because decoders in
//! other languages disagree on whether to read on, ignore it or fail.

use std::io::{self, Read, Write};

use bytes::Bytes;
use lz4_flex::frame::{BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use super::Error;
use crate::limits;
use crate::v1::Compression;

/// Zstandard's own default.
const ZSTD_LEVEL: i32 = 3;
/// Largest Zstandard window, as a power of two: a frame can use no more than it may decompress to.
const ZSTD_WINDOW_LOG_MAX: u32 = limits::DECOMPRESSED_BYTES_MAX.ilog2();
/// First guess of how many times larger the output is than the input: only spares copies as the output grows.
const GROWTH_GUESS: usize = 4;

/// Compresses an encoded `RecordSet`.
pub(super) fn compress(compression: Compression, bytes: &Bytes) -> Bytes {
    let room = Vec::with_capacity(bytes.len() / 2);
    let compressed: io::Result<Vec<u8>> = match compression {
        Compression::Unspecified => return bytes.clone(),
        Compression::Lz4 => lz4(bytes, room),
        Compression::Zstd => zstd::bulk::compress(bytes, ZSTD_LEVEL),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(room, flate2::Compression::default());
            encoder.write_all(bytes).and_then(|()| encoder.finish())
        }
    };
    compressed
        .expect("compressing from memory to memory does not fail")
        .into()
}

fn lz4(bytes: &[u8], room: Vec<u8>) -> io::Result<Vec<u8>> {
    let block_size = if bytes.len() <= 64 * 1024 {
        BlockSize::Max64KB
    } else {
        BlockSize::Max256KB
    };
    let info = FrameInfo::new().block_size(block_size);
    let mut encoder = FrameEncoder::with_frame_info(info, room);
    encoder.write_all(bytes)?;
    encoder.finish().map_err(io::Error::from)
}

/// Decompresses the content of a batch to at most `limit` bytes. Memory grows with what is really there, never
/// with what a frame claims. Not compressed, the result shares the memory of `bytes`.
///
/// # Errors
/// [`Error::DecompressedTooLarge`], [`Error::Malformed`] (also for anything behind the one frame).
pub fn decompress(compression: Compression, bytes: &Bytes, limit: usize) -> Result<Bytes, Error> {
    match compression {
        Compression::Unspecified if bytes.len() > limit => {
            Err(Error::DecompressedTooLarge { limit })
        }
        Compression::Unspecified => Ok(bytes.clone()),
        Compression::Lz4 => decompress_lz4(bytes, limit),
        Compression::Zstd => decompress_zstd(bytes, limit),
        Compression::Gzip => decompress_gzip(bytes, limit),
    }
}

fn decompress_lz4(bytes: &[u8], limit: usize) -> Result<Bytes, Error> {
    const MALFORMED: &str = "not one whole LZ4 frame";
    // The decoder takes a missing end mark for an end, and reads on behind one.
    if lz4_frame_bytes(bytes) != Some(bytes.len()) {
        return Err(Error::Malformed { detail: MALFORMED });
    }
    let mut decoder = FrameDecoder::new(bytes);
    let output = read_bounded(&mut decoder, bytes.len(), limit, MALFORMED)?;
    // An empty block in the middle looks like the end to the decoder.
    one_frame(decoder.into_inner(), output, MALFORMED)
}

fn decompress_zstd(bytes: &[u8], limit: usize) -> Result<Bytes, Error> {
    const MALFORMED: &str = "not one whole Zstandard frame";
    let malformed = |_| Error::Malformed { detail: MALFORMED };
    if let Ok(Some(claimed)) = zstd::zstd_safe::get_frame_content_size(bytes)
        && claimed > limit as u64
    {
        return Err(Error::DecompressedTooLarge { limit });
    }
    let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes)
        .map_err(malformed)?
        .single_frame();
    decoder
        .window_log_max(ZSTD_WINDOW_LOG_MAX)
        .map_err(malformed)?;
    let output = read_bounded(&mut decoder, bytes.len(), limit, MALFORMED)?;
    one_frame(decoder.finish(), output, MALFORMED)
}

fn decompress_gzip(bytes: &[u8], limit: usize) -> Result<Bytes, Error> {
    const MALFORMED: &str = "not one whole gzip member";
    let mut decoder = flate2::bufread::GzDecoder::new(bytes);
    let output = read_bounded(&mut decoder, bytes.len(), limit, MALFORMED)?;
    one_frame(decoder.into_inner(), output, MALFORMED)
}

/// Reads all of `decoder`, at most `limit` bytes.
fn read_bounded(
    decoder: impl Read,
    compressed_bytes: usize,
    limit: usize,
    detail: &'static str,
) -> Result<Vec<u8>, Error> {
    let guess = compressed_bytes.saturating_mul(GROWTH_GUESS).min(limit);
    let mut output = Vec::with_capacity(guess);
    let one_too_many = (limit as u64).saturating_add(1);
    decoder
        .take(one_too_many)
        .read_to_end(&mut output)
        .map_err(|_| Error::Malformed { detail })?;
    if output.len() > limit {
        return Err(Error::DecompressedTooLarge { limit });
    }
    Ok(output)
}

fn one_frame(rest: &[u8], output: Vec<u8>, detail: &'static str) -> Result<Bytes, Error> {
    if rest.is_empty() {
        Ok(output.into())
    } else {
        Err(Error::Malformed { detail })
    }
}

/// Bytes of the LZ4 frame that `bytes` starts with, from its magic number to its end mark and checksum; nothing if
/// there is no whole frame. Reads the lengths only.
fn lz4_frame_bytes(bytes: &[u8]) -> Option<usize> {
    const MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();
    const BLOCK_CHECKSUM: u8 = 1 << 4;
    const CONTENT_SIZE: u8 = 1 << 3;
    const CONTENT_CHECKSUM: u8 = 1 << 2;
    const DICTIONARY: u8 = 1;
    const UNCOMPRESSED: u32 = 1 << 31;

    if bytes.get(..4)? != MAGIC {
        return None;
    }
    let flags = *bytes.get(4)?;
    let optional = |flag: u8, size: usize| if flags & flag == 0 { 0 } else { size };
    // Magic number, flags, block descriptor, the optional fields, header checksum.
    let mut position = 4 + 2 + optional(CONTENT_SIZE, 8) + optional(DICTIONARY, 4) + 1;
    loop {
        let header = bytes.get(position..)?.first_chunk::<4>()?;
        position += 4;
        match u32::from_le_bytes(*header) {
            0 => break,
            size => {
                let size = usize::try_from(size & !UNCOMPRESSED).ok()?;
                position = position.checked_add(size + optional(BLOCK_CHECKSUM, 4))?;
            }
        }
    }
    Some(position + optional(CONTENT_CHECKSUM, 4))
}

#[cfg(test)]
mod tests {
    use super::super::encode_records;
    use super::*;
    use crate::v1::Record;

    const LIMIT: usize = limits::DECOMPRESSED_BYTES_MAX;

    fn content(record_count: usize) -> Bytes {
        let record = Record {
            value: Some(Bytes::from_static(b"a somewhat longer value")),
            ..Record::default()
        };
        encode_records(&vec![record; record_count])
    }

    #[test]
    fn bombs_are_refused_at_the_limit() {
        let zeros = Bytes::from(vec![0; LIMIT + 1]);
        for compression in [Compression::Lz4, Compression::Zstd, Compression::Gzip] {
            let bomb = compress(compression, &zeros);
            assert!(bomb.len() < LIMIT / 200, "{compression:?}: {}", bomb.len());
            let exploded = decompress(compression, &bomb, LIMIT);
            assert_eq!(exploded, Err(Error::DecompressedTooLarge { limit: LIMIT }));
            assert_eq!(
                decompress(compression, &bomb, LIMIT + 1).map(|b| b.len()),
                Ok(LIMIT + 1)
            );
        }
        // Streamed: the frame does not say its size.
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("an encoder");
        encoder.write_all(&zeros).expect("memory");
        let bomb = Bytes::from(encoder.finish().expect("memory"));
        let exploded = decompress(Compression::Zstd, &bomb, LIMIT);
        assert_eq!(exploded, Err(Error::DecompressedTooLarge { limit: LIMIT }));
    }

    #[test]
    fn a_claimed_zstandard_size_or_window_is_not_believed() {
        // Magic number, an 8 byte content size, single segment: 1 TiB in 13 bytes.
        let mut claim = vec![0x28, 0xb5, 0x2f, 0xfd, 0xe0];
        claim.extend((1_u64 << 40).to_le_bytes());
        let exploded = decompress(Compression::Zstd, &claim.into(), LIMIT);
        assert_eq!(exploded, Err(Error::DecompressedTooLarge { limit: LIMIT }));
        // No content size, a window of 2 GiB, one raw block of one byte that is the last.
        let window = vec![
            0x28,
            0xb5,
            0x2f,
            0xfd,
            0x00,
            21 << 3,
            0x09,
            0x00,
            0x00,
            b'x',
        ];
        let exploded = decompress(Compression::Zstd, &window.clone().into(), LIMIT);
        assert!(matches!(exploded, Err(Error::Malformed { .. })));
        // The same with a window of 1 MiB is fine: the frame above was refused for its window alone.
        let mut window = window;
        window[5] = 10 << 3;
        let decompressed = decompress(Compression::Zstd, &window.into(), LIMIT);
        assert_eq!(decompressed, Ok(Bytes::from_static(b"x")));
    }

    #[test]
    fn a_batch_is_one_whole_frame_and_nothing_else() {
        let content = content(2);
        for compression in [Compression::Lz4, Compression::Zstd, Compression::Gzip] {
            let frame = compress(compression, &content);
            let refused = |bytes: Vec<u8>| {
                matches!(
                    decompress(compression, &bytes.into(), LIMIT),
                    Err(Error::Malformed { .. })
                )
            };
            assert_eq!(decompress(compression, &frame, LIMIT), Ok(content.clone()));
            assert!(refused([&frame[..], b"\0"].concat()), "{compression:?}");
            assert!(
                refused([&frame[..], b"garbage"].concat()),
                "{compression:?}"
            );
            assert!(
                refused([&frame[..], &frame[..]].concat()),
                "{compression:?}"
            );
            for cut in 0..frame.len() {
                assert!(
                    refused(frame[..cut].to_vec()),
                    "{compression:?} cut at {cut}"
                );
            }
        }
    }

    #[test]
    fn frames_made_by_other_encoders_are_read() {
        let content = content(20_000);
        use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
        let info = FrameInfo::new()
            .block_mode(BlockMode::Linked)
            .block_size(BlockSize::Max64KB)
            .block_checksums(true)
            .content_checksum(true)
            .content_size(Some(content.len() as u64));
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(&content).expect("memory");
        let frame = Bytes::from(encoder.finish().expect("memory"));
        assert_eq!(
            decompress(Compression::Lz4, &frame, LIMIT),
            Ok(content.clone())
        );

        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 19).expect("an encoder");
        encoder.include_checksum(true).expect("a parameter");
        encoder.write_all(&content).expect("memory");
        let frame = Bytes::from(encoder.finish().expect("memory"));
        assert_eq!(decompress(Compression::Zstd, &frame, LIMIT), Ok(content));
    }

    #[test]
    fn an_empty_block_in_an_lz4_frame_does_not_end_it() {
        let frame = compress(Compression::Lz4, &content(1)).to_vec();
        // Magic number and descriptor are 7 bytes; an uncompressed block of no bytes is only its header.
        let early = [&frame[..7], &0x8000_0000_u32.to_le_bytes(), &frame[7..]].concat();
        assert!(matches!(
            decompress(Compression::Lz4, &early.into(), LIMIT),
            Err(Error::Malformed { .. })
        ));
    }
}
