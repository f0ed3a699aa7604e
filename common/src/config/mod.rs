//! Reading our own configuration files: YAML, strict, every error with its place and the nearest known key.
//!
//! Only this folder names the YAML library for configuration, so that it can be replaced in one place.

mod duration;
mod load;
mod secret;
mod size;

pub use duration::{DurationError, HumanDuration, parse_duration};
pub use load::{ConfigError, load, parse};
pub use secret::{Secret, SecretBytes};
pub use size::{Size, SizeError};
