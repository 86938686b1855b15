//! The gRPC methods that a server has, taken from its descriptors, so that no list of them is kept by hand.

use std::{collections::HashMap, sync::Arc};

use prost::{DecodeError, Message as _};
use prost_types::FileDescriptorSet;

/// What layers know about a method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method {
    /// `package.Service/Method`, as metrics show it.
    pub name: Arc<str>,
    /// Whether either side sends a stream of messages.
    pub streaming: bool,
    /// Whether overload limits spare it: a node must be able to say that it is alive while it is busy.
    pub exempt: bool,
}

/// All methods by path.
#[derive(Debug)]
pub struct Methods {
    by_path: HashMap<String, Method>,
    unknown: Method,
}

impl Methods {
    /// Reads encoded `google.protobuf.FileDescriptorSet`s. Methods outside `kelda.…` packages, which are health and
    /// reflection, are exempt from overload limits.
    pub fn from_descriptors(descriptors: &[&[u8]]) -> Result<Self, DecodeError> {
        let mut by_path = HashMap::new();
        for encoded in descriptors {
            for file in FileDescriptorSet::decode(*encoded)?.file {
                let package = file.package().to_owned();
                for service in &file.service {
                    for method in &service.method {
                        let name = format!("{package}.{}/{}", service.name(), method.name());
                        let known = Method {
                            name: Arc::from(name.as_str()),
                            streaming: method.client_streaming() || method.server_streaming(),
                            exempt: !package.starts_with("kelda."),
                        };
                        by_path.insert(format!("/{name}"), known);
                    }
                }
            }
        }
        Ok(Self {
            by_path,
            // One name for all of them, or any client could make series without end.
            unknown: Method {
                name: Arc::from("_OTHER"),
                streaming: false,
                exempt: false,
            },
        })
    }

    /// The method at a request's path.
    pub fn get(&self, path: &str) -> &Method {
        self.by_path.get(path).unwrap_or(&self.unknown)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The methods of Kelda and of health.
    pub(in crate::middleware) fn methods() -> Arc<Methods> {
        let descriptors = [
            kelda_proto::DESCRIPTORS,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
        ];
        Arc::new(Methods::from_descriptors(&descriptors).unwrap())
    }

    #[test]
    fn methods_are_known_from_the_contract() {
        let methods = methods();
        let unary = methods.get("/kelda.v1.ProduceService/Produce");
        assert_eq!(&*unary.name, "kelda.v1.ProduceService/Produce");
        assert!(!unary.streaming && !unary.exempt);
        for path in [
            "/kelda.v1.ProduceService/ProduceStream",
            "/kelda.v1.ConsumeService/Consume",
        ] {
            assert!(methods.get(path).streaming, "{path}");
        }
        let watch = methods.get("/grpc.health.v1.Health/Watch");
        assert!(watch.streaming && watch.exempt);
    }

    #[test]
    fn all_unknown_paths_are_one_method() {
        let methods = methods();
        assert_eq!(&*methods.get("/a.B/C").name, "_OTHER");
        assert_eq!(methods.get("/a.B/C"), methods.get("/a.B/D"));
    }
}
