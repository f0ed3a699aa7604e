//! Schemas of the words that `common` owns, for the OpenAPI document.

use common::model::{Phase, StreamName};
use utoipa::openapi::schema::{Object, ObjectBuilder, OneOfBuilder, Schema, Type};

/// A phase, with all its names.
pub(crate) fn phase() -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(Phase::ALL.map(Phase::as_str))).build()
}

/// A stream, with all its names.
pub(crate) fn stream() -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(StreamName::ALL.map(StreamName::as_str))).build()
}

/// A text, or an object with a secret.
pub(crate) fn text_or_secret() -> Schema {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let secret = ObjectBuilder::new()
        .property("secret", text())
        .required("secret")
        .additional_properties(Some(utoipa::openapi::schema::AdditionalProperties::FreeForm(false)));
    Schema::OneOf(OneOfBuilder::new().item(text()).item(secret).build())
}

/// Texts or secrets by name.
pub(crate) fn texts_or_secrets() -> Object {
    ObjectBuilder::new().additional_properties(Some(text_or_secret())).build()
}
