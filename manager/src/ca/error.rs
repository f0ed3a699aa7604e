//! Why the authority cannot do its work.

use std::io;
use std::path::PathBuf;

use common::tls::MaterialError;

/// Why the authority cannot do its work.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file of the authority cannot be read or written.
    #[error("{path} cannot be read or written", path = path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The certificate is there and the key is not: making a new authority would lock the whole fleet out.
    #[error("{present} is there and {missing} is not; restore it, or remove both to start a new cluster", present = present.display(), missing = missing.display())]
    Half {
        /// The file that is there.
        present: PathBuf,
        /// The file that is not.
        missing: PathBuf,
    },
    /// The list of authorities makes no sense.
    #[error("{path} does not say which authorities are trusted; restore it from a backup", path = path.display())]
    List {
        /// Which file.
        path: PathBuf,
    },
    /// Other users can read the key.
    #[error("the authority's key cannot be used")]
    Key(#[source] MaterialError),
    /// A certificate of an authority cannot be read.
    #[error("the authority's certificate cannot be used")]
    Certificate(#[source] MaterialError),
    /// A certificate could not be made.
    #[error("the certificate cannot be made")]
    Make(#[source] rcgen::Error),
    /// A name cannot stand in a certificate.
    #[error("{0} cannot stand in a certificate")]
    Name(String),
    /// The step does not follow from where the rotation is.
    #[error("{0}")]
    Step(&'static str),
    /// The work was cut short by the end of the program.
    #[error("the work was interrupted")]
    Interrupted,
}
