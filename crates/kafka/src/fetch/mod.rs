//! What a broker remembers of fetching clients.

pub(crate) mod session;
