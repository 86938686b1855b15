//! Cuts input into lines, in big steps and without copying them.

use std::io::{self, ErrorKind, Read};

use bytes::{Bytes, BytesMut};
use kelda_proto::limits::RECORD_BYTES_MAX;

/// Bytes to ask the input for at once.
const READ_BYTES: usize = 256 * 1024;

/// What can be wrong with the input.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// It can not be read.
    #[error("cannot read the input: {0}")]
    Read(#[from] io::Error),
    /// A line is larger than any record may be.
    #[error(
        "line {line} is longer than {RECORD_BYTES_MAX} bytes, the largest record that a broker takes"
    )]
    TooLong {
        /// Its number, from 1.
        line: u64,
    },
}

/// Reads lines that end with a line feed, which is not part of them; the last may end with the input.
pub(super) struct Lines<R> {
    source: R,
    /// Read, but the end of the line is missing.
    rest: BytesMut,
    lines: u64,
}

impl<R: Read> Lines<R> {
    /// Lines of this source.
    pub(super) fn new(source: R) -> Self {
        Self {
            source,
            rest: BytesMut::new(),
            lines: 0,
        }
    }

    /// Waits for input and appends the lines that it completes, at least one; without one, the input has ended.
    pub(super) fn read(&mut self, lines: &mut Vec<Bytes>) -> Result<(), Error> {
        let before = lines.len();
        loop {
            let searched = self.rest.len();
            if self.fill()? == 0 {
                // The last line may lack its line feed; nothing behind a line feed is no line.
                if !self.rest.is_empty() {
                    lines.push(self.rest.split().freeze());
                }
                break;
            }
            if let Some(end) = self.rest[searched..]
                .iter()
                .rposition(|byte| *byte == b'\n')
            {
                let complete = self.rest.split_to(searched + end + 1).freeze();
                split(&complete, lines);
                break;
            }
            if self.rest.len() > RECORD_BYTES_MAX {
                return Err(Error::TooLong {
                    line: self.lines + 1,
                });
            }
        }
        self.lines += (lines.len() - before) as u64;
        Ok(())
    }

    /// Reads once into `rest`, and returns how much.
    fn fill(&mut self) -> io::Result<usize> {
        let filled = self.rest.len();
        self.rest.resize(filled + READ_BYTES, 0);
        let read = loop {
            match self.source.read(&mut self.rest[filled..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.rest.truncate(filled + *read.as_ref().unwrap_or(&0));
        read
    }
}

/// Cuts a block in which every line is complete; the lines share its memory.
fn split(block: &Bytes, lines: &mut Vec<Bytes>) {
    let mut start = 0;
    while let Some(length) = block[start..].iter().position(|byte| *byte == b'\n') {
        lines.push(block.slice(start..start + length));
        start += length + 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A source that gives a few bytes at a time.
    struct Drops<'a> {
        input: &'a [u8],
        sizes: Vec<usize>,
    }

    impl Read for Drops<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let size = self.sizes.pop().unwrap_or(7).clamp(1, buffer.len());
            (&mut self.input).take(size as u64).read(buffer)
        }
    }

    fn all(source: impl Read) -> Result<Vec<Bytes>, Error> {
        let (mut reader, mut lines) = (Lines::new(source), Vec::new());
        loop {
            let before = lines.len();
            reader.read(&mut lines)?;
            if lines.len() == before {
                return Ok(lines);
            }
        }
    }

    #[test]
    fn empty_lines_count_and_the_last_may_lack_its_line_feed() {
        assert_eq!(all(b"a\n\nb".as_slice()).expect("reads"), ["a", "", "b"]);
        assert_eq!(all(b"a\nb\n".as_slice()).expect("reads"), ["a", "b"]);
        assert_eq!(all(b"\n".as_slice()).expect("reads"), [""]);
        assert!(all(b"".as_slice()).expect("reads").is_empty());
        assert_eq!(all(b"a\r\n".as_slice()).expect("reads"), ["a\r"]);
    }

    #[test]
    fn a_line_without_end_is_refused_by_its_number() {
        let endless = b"one\ntwo\n".chain(io::repeat(b'x'));
        let error = all(endless).expect_err("line 3 never ends");
        assert!(matches!(error, Error::TooLong { line: 3 }), "{error}");
    }

    #[test]
    fn a_line_larger_than_a_step_is_whole() {
        let long = vec![b'x'; 3 * READ_BYTES];
        let lines = all(long.as_slice().chain(b"\nshort\n".as_slice())).expect("reads");
        assert_eq!(lines, [long.as_slice(), b"short"]);
    }

    proptest! {
        #[test]
        fn steps_of_any_size_make_the_same_lines(
            input in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200),
            sizes in proptest::collection::vec(1..20_usize, 0..50),
        ) {
            let lines = all(Drops { input: &input, sizes }).expect("reads");
            let mut expected: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
            if expected.last().is_some_and(|line| line.is_empty()) {
                expected.pop();
            }
            prop_assert_eq!(lines, expected);
        }
    }
}
