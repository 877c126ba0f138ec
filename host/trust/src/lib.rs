//! Trust: signatures of components, the proof of a host's identity, and files whose safety depends on their owner and
//! mode.

pub mod forwarded;
pub mod identity;
pub mod private_files;
pub mod signature;
