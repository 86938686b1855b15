//! Compiles `proto/` with protox, so a fresh machine needs no protoc.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const FILES: [&str; 9] = [
    "kelda/v1/record.proto",
    "kelda/v1/errors.proto",
    "kelda/v1/produce_service.proto",
    "kelda/v1/consume_service.proto",
    "kelda/v1/topic_service.proto",
    "kelda/v1/cluster_service.proto",
    "kelda/internal/v1/catalog.proto",
    "kelda/internal/v1/partition.proto",
    "kelda/internal/v1/storage.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    // `Bytes` fields are slices of the received buffer: no copy of the payload.
    tonic_prost_build::configure()
        .bytes(".")
        // Maps that are stored have one byte form, whatever the order of insertion.
        .btree_map(".kelda.internal")
        .compile_fds(descriptors)?;
    Ok(())
}
