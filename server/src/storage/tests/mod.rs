//! Tests of the whole room. Codecs, keys and layouts have theirs beside the code.

mod suite;
mod support;
