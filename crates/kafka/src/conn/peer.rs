//! Who is at the other end of a connection.

use std::net::IpAddr;
use std::sync::Arc;

/// Where a connection comes from.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// For logs.
    pub(crate) name: Arc<str>,
    /// For the per-address limit and for DescribeGroups.
    pub(crate) ip: Option<IpAddr>,
}
