//! Connects to a broker's address for Kafka clients.

use std::io::{self, ErrorKind};
use std::time::Duration;

use anyhow::{Error, Result};
use floe_client::{Client, ClientError};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio::time::timeout;

/// How long connecting may take, with the first answer.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// Connects to an address within the time for it. `name` is what the broker sees.
pub(crate) async fn connect(
    address: impl ToSocketAddrs,
    name: &str,
) -> Result<Client<TcpStream>, ClientError> {
    timeout(CONNECT_TIME_MAX, Client::connect(address, name))
        .await
        .unwrap_or_else(|_| Err(io::Error::from(ErrorKind::TimedOut).into()))
}

/// Connects to the broker that `--bootstrap` names.
///
/// # Errors
/// No broker answers there, or what answers is none; the message says which.
pub(crate) async fn bootstrap(address: &str, name: &str) -> Result<Client<TcpStream>> {
    connect(address, name).await.map_err(|error| {
        let said = said(&error, address);
        Error::new(error).context(said)
    })
}

/// What the error tells of the address.
fn said(error: &ClientError, address: &str) -> String {
    match error {
        ClientError::NotKafka { http: true, .. } => format!(
            "an HTTP server answers at {address}, and no Kafka broker: name the broker's address for Kafka clients with \
             --bootstrap"
        ),
        ClientError::NotKafka { http: false, .. } => {
            format!("what answers at {address} is no Kafka broker: name one with --bootstrap")
        }
        error if hung_up(error) => format!(
            "what listens at {address} closed the connection: is it a Kafka broker, and one without TLS? Name one with \
             --bootstrap"
        ),
        _ => format!(
            "no broker answers at {address}: start one with `floe serve`, or name it with --bootstrap"
        ),
    }
}

/// Servers of other protocols, and those that want TLS, give up on the first bytes.
fn hung_up(error: &ClientError) -> bool {
    match error {
        ClientError::Closed => true,
        ClientError::Io(error) => error.kind() == ErrorKind::ConnectionReset,
        _ => false,
    }
}
