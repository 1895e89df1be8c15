//! One connection, from its seat to its ending.
//!
//! ```text
//! doorman.rs     admits it, or turns it away        peer.rs      who is at the other end
//! connection.rs  its reader and its writer          progress.rs  what the two know of each other
//! frames.rs      requests as they arrive            ending.rs    why it ends
//! admission.rs   the memory of a request            send.rs      answers as they leave
//! ```

pub(crate) mod admission;
pub(crate) mod connection;
pub(crate) mod doorman;
pub(crate) mod ending;
pub(crate) mod frames;
pub(crate) mod peer;
pub(crate) mod progress;
pub(crate) mod send;
