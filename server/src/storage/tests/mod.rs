//! Tests of the whole room. Codecs, keys and layouts have theirs beside the code.

mod crash;
mod damage;
mod disk;
mod files;
mod model;
mod occupied;
mod suite;
mod support;
