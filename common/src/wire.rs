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

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut names: Vec<_> = self.env.keys().collect();
        names.sort_unstable();
        f.debug_struct("Secrets").field("env", &names).field("has_stdin", &self.has_stdin).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinRequest").field("token_id", &self.token_id).finish_non_exhaustive()
    }
}

impl Secrets {
    /// The same without any value: what may be kept, shown and sent back.
    #[must_use]
    pub fn names(&self) -> Self {
        let env = self.env.keys().map(|name| (name.clone(), bytes::Bytes::new())).collect();
        Self { env, stdin: bytes::Bytes::new(), has_stdin: self.has_stdin }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_is_printed_shows_no_secret() {
        let value = bytes::Bytes::from_static(b"hunter2");
        let env = [("TOKEN".to_owned(), value.clone())].into();
        let secrets = Secrets { env, stdin: value, has_stdin: true };
        assert!(!format!("{:?}", secrets.names()).contains("hunter2"));
        assert!(secrets.names().env.values().all(bytes::Bytes::is_empty) && secrets.names().stdin.is_empty());
        let command = Command { secrets: Some(secrets), ..Command::default() };
        let frame = Frame { body: Some(frame::Body::Command(command)), ..Frame::default() };
        for shown in [format!("{frame:?}"), format!("{frame:#?}")] {
            assert!(shown.contains("TOKEN") && !shown.contains("hunter2"), "{shown}");
            assert!(!shown.contains("104, 117"), "not as numbers either: {shown}");
        }
    }

    #[test]
    fn a_hello_that_is_printed_shows_no_join_secret() {
        let join = JoinRequest { token_id: "abcdefgh".into(), secret: bytes::Bytes::from_static(b"hunter2") };
        let hello = ClientHello { join: Some(join), ..ClientHello::default() };
        let frame = Frame { body: Some(frame::Body::ClientHello(hello)), ..Frame::default() };
        for shown in [format!("{frame:?}"), format!("{frame:#?}")] {
            assert!(shown.contains("abcdefgh") && !shown.contains("hunter2"), "{shown}");
        }
    }
}
