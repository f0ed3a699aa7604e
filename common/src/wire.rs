//! Generated protobuf types of the link, one place for all of them. Unknown fields are passed over by the decoder, and
//! numbers in the `.proto` files are never used again (protocol R-FRAME-6).
//!
//! They stay at the edges (link, command records, tests). Nothing in here decides anything; conversions to domain
//! types stand beside the domain type.

/// Messages of `proto/link/v1`.
#[expect(missing_docs, reason = "generated code; the documentation is in the .proto files")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/paprika.link.v1.rs"));
}

pub use generated::*;
