//! The messages of `proto/mqchat/*.proto`, in protobuf and in JSON: one set of types for both forms.
//!
//! What is in `generated` is made of the schema and never written by hand; `proto/tests/schema.rs` compares, and makes it
//! anew when it is told to. In JSON, fields with their default value are left out, and a field that is there must be of
//! its type; fields that are not known are passed over.

#[allow(
    clippy::doc_markdown,
    clippy::doc_lazy_continuation,
    clippy::struct_excessive_bools,
    clippy::derive_partial_eq_without_eq,
    clippy::large_enum_variant,
    reason = "generated from the schema"
)]
#[rustfmt::skip]
mod generated;
mod json;

pub use generated::*;
pub use prost::Message;

/// Fields that are not there.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
