//! SaslHandshake, the first request of authentication.

use crate::table::messages;

messages! {
    /// Asks to authenticate with a mechanism.
    struct SaslHandshakeRequest, versions "0-1", flexible "none" {
        mechanism: String, "0+";
    }

    /// Whether the client may go on, and the mechanisms that there are.
    struct SaslHandshakeResponse, versions "0-1", flexible "none" {
        error_code: i16, "0+";
        mechanisms: Vec<String>, "0+";
    }
}
