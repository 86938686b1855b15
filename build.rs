//! Compiles `proto/` with protox, so a fresh machine needs no protoc.

use std::{collections::BTreeSet, env, error::Error, fs, path::PathBuf};

use prost::Message;

const FILES: [&str; 11] = [
    "kelda/v1/record.proto",
    "kelda/v1/errors.proto",
    "kelda/v1/produce_service.proto",
    "kelda/v1/consume_service.proto",
    "kelda/v1/topic_service.proto",
    "kelda/v1/cluster_service.proto",
    "kelda/internal/v1/catalog.proto",
    "kelda/internal/v1/membership.proto",
    "kelda/internal/v1/partition.proto",
    "kelda/internal/v1/peer_service.proto",
    "kelda/internal/v1/storage.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    fs::write(out.join("guards.rs"), guards(&descriptors))?;
    // `Bytes` fields are slices of the received buffer: no copy of the payload.
    tonic_prost_build::configure()
        .bytes(".")
        // Maps that are stored have one byte form, whatever the order of insertion.
        .btree_map(".kelda.internal")
        .codec_path("crate::codec::GuardedCodec")
        .compile_fds(descriptors)?;
    Ok(())
}

/// Messages whose guard is written by hand, in `proto/codec.rs`.
const GUARDED: [&str; 2] = ["v1.ProduceRequest", "v1.ProduceStreamRequest"];

/// An empty guard for every other message that a service takes or gives.
fn guards(descriptors: &prost_types::FileDescriptorSet) -> String {
    let services = descriptors.file.iter().flat_map(|file| &file.service);
    let methods = services.flat_map(|service| &service.method);
    let messages: BTreeSet<_> = methods
        .flat_map(|method| [method.input_type(), method.output_type()])
        .filter_map(|name| name.strip_prefix(".kelda."))
        .filter(|name| !GUARDED.contains(name))
        .map(|name| name.replace('.', "::"))
        .collect();
    let guard = |name| format!("impl Guard for crate::{name} {{}}\n");
    messages.into_iter().map(guard).collect()
}
