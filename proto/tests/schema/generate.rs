//! Makes Rust of the schema, without protoc.

use std::path::Path;

use prost_types::FileDescriptorSet;

/// Envelopes that have another shape in JSON.
pub(crate) const ONLY_PROTOBUF: [&str; 2] = ["RpcRequest", "RpcReply"];

/// The schema, with its comments.
pub(crate) fn schema() -> FileDescriptorSet {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["message", "entry", "event", "rpc"].map(|name| format!("mqchat/{name}.proto"));
    protox::Compiler::new([root])
        .unwrap()
        .include_source_info(true)
        .open_files(files)
        .unwrap_or_else(|error| panic!("{error:?}"))
        .file_descriptor_set()
}

/// The types of the schema in Rust.
pub(crate) fn rust() -> String {
    let schema = schema();
    let mut config = prost_build::Config::new();
    config.bytes(["."]).btree_map(["."]);
    for message in schema.file.iter().flat_map(|file| &file.message_type) {
        let name = message.name();
        if ONLY_PROTOBUF.contains(&name) {
            continue;
        }
        let path = format!(".mqchat.v1.{name}");
        config.message_attribute(
            &path,
            "#[derive(serde::Serialize, serde::Deserialize)]\n#[serde(default)]",
        );
        for field in &message.field {
            let path = format!("{path}.{}", field.name());
            let attribute = "#[serde(skip_serializing_if = \"super::is_default\")]";
            config.field_attribute(&path, attribute);
            if field.r#type() == prost_types::field_descriptor_proto::Type::Bytes {
                config.field_attribute(&path, "#[serde(with = \"super::json::base64\")]");
            }
        }
    }
    config.message_attribute(
        ".mqchat.v1.History",
        "#[serde(from = \"super::json::HistoryJson\", into = \"super::json::HistoryJson\")]",
    );
    let requests = schema
        .file
        .into_iter()
        .map(|file| {
            (
                prost_build::Module::from_protobuf_package_name("mqchat.v1"),
                file,
            )
        })
        .collect();
    let mut generated = config.generate(requests).unwrap();
    assert_eq!(generated.len(), 1, "one package");
    let (_, code) = generated.drain().next().unwrap();
    code
}
