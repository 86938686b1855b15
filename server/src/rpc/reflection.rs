//! Server reflection, v1 and v1alpha: tools such as grpcurl need no proto files.

use std::convert::Infallible;

use http::{Request, Response};
use tonic::body::Body;
use tonic_reflection::server::{Builder, Error};
use tower::util::BoxCloneSyncService;

use crate::middleware::ReceiveBody;

/// A gRPC service whose type nobody needs to name.
pub(super) type Boxed = BoxCloneSyncService<Request<ReceiveBody<Body>>, Response<Body>, Infallible>;

/// Descriptors of everything that a node serves and stores, and of the details of its errors, which a tool can then
/// show in words.
pub(super) const DESCRIPTORS: [&[u8]; 5] = [
    kelda_proto::DESCRIPTORS,
    tonic_types::pb::FILE_DESCRIPTOR_SET,
    tonic_health::pb::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
];

/// The services of v1 and v1alpha.
pub(super) fn services() -> Result<(Boxed, Boxed), Error> {
    let builder = || {
        DESCRIPTORS
            .iter()
            .fold(Builder::configure(), |builder, descriptors| {
                builder.register_encoded_file_descriptor_set(descriptors)
            })
            // They are among the descriptors, both of them.
            .include_reflection_service(false)
    };
    Ok((
        BoxCloneSyncService::new(builder().build_v1()?),
        BoxCloneSyncService::new(builder().build_v1alpha()?),
    ))
}
