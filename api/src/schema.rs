//! Schemas of the words that `common` owns, for the OpenAPI document.

use common::model::{Phase, StreamName};
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

/// A phase, with all its names.
pub(crate) fn phase() -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(Phase::ALL.map(Phase::as_str))).build()
}

/// A stream, with all its names.
pub(crate) fn stream() -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(StreamName::ALL.map(StreamName::as_str))).build()
}
