//! Who writes: a principal and a client id, interned as a small number.

use std::sync::Arc;

/// Who writes: the principal that the broker authenticated and the client id that the client gave.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Writer {
    /// Set by the broker, never by the client.
    pub principal: Arc<str>,
    /// As the client calls itself.
    pub client_id: Arc<str>,
}

impl Writer {
    /// A writer of this principal and client id.
    pub fn new(principal: &str, client_id: &str) -> Writer {
        Writer { principal: principal.into(), client_id: client_id.into() }
    }
}
