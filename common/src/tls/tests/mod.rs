//! TLS as peers see it: crafted certificates at every door, the edges of the recovery window, handshakes over a pipe.

mod crafted;
mod doors;
mod issued;
mod pki;
mod recovery;
