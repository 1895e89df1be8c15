//! The other end of a connection.

use std::net::IpAddr;
use std::sync::Arc;

/// The other end of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Address and port, for logs.
    pub(crate) name: Arc<str>,
    /// For the limits per address and for DescribeGroups; `None` without a socket.
    pub(crate) ip: Option<IpAddr>,
}
