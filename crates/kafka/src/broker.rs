//! The broker: accepts connections until it is told to stop.

use std::sync::Arc;

use floe_env::Env;
use floe_log::Log;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::Config;
use crate::conn::connection;
use crate::conn::peer::Peer;
use crate::limits;
use crate::shared::Shared;

/// A Kafka broker over a log. Clones are the same broker.
#[derive(Clone)]
pub struct Broker(Arc<Shared>);

impl Broker {
    /// A broker over `log`. It serves nobody before [`Broker::serve`].
    pub fn new(env: Env, log: Log, config: Config) -> Broker {
        Broker(Arc::new(Shared::new(env, log, config)))
    }

    /// Accepts connections until `shutdown` is true, and returns when all connections have ended.
    ///
    /// After `shutdown` no connection reads another request. A connection ends when its requests are answered, or
    /// after [`limits::SHUTDOWN_PATIENCE`].
    pub async fn serve(&self, listener: TcpListener, mut shutdown: watch::Receiver<bool>) {
        loop {
            let accepted = tokio::select! {
                biased;
                // A dropped sender never asks to stop.
                Ok(_) = shutdown.wait_for(|shutdown| *shutdown) => break,
                accepted = listener.accept() => accepted,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Mostly it is out of file handles: give connections time to end.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(limits::ACCEPT_BACKOFF).await;
                    continue;
                }
            };
            let peer = Peer { name: address.to_string().into(), ip: Some(address.ip()) };
            let seat = match self.0.doorman.admit(peer.ip) {
                Ok(seat) => seat,
                Err(reason) => {
                    metrics::counter!("floe_kafka_connections_refused_total").increment(1);
                    tracing::warn!(peer = &*peer.name, %reason, "connection turned away");
                    continue;
                }
            };
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(peer = &*peer.name, %error, "answers may be delayed");
            }
            let (source, sink) = stream.into_split();
            self.0.env.spawn("connection", connection::serve(self.0.clone(), source, sink, peer, seat));
        }
        self.0.shutdown.send_replace(true);
        // Every connection ends by itself within the patience. The grace on top is for writing the last answers.
        let patience = limits::SHUTDOWN_PATIENCE + limits::SHUTDOWN_GRACE;
        if tokio::time::timeout(patience, self.0.doorman.empty()).await.is_err() {
            tracing::warn!("connections are still open after {patience:?}, they are cut off");
        }
    }

    /// Serves one connection that the caller accepted, until it ends.
    pub async fn serve_connection<S>(&self, stream: S, peer: String)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let peer = Peer { name: peer.into(), ip: None };
        match self.0.doorman.admit(None) {
            Ok(seat) => {
                let (source, sink) = tokio::io::split(stream);
                connection::serve(self.0.clone(), source, sink, peer, seat).await;
            }
            Err(reason) => tracing::warn!(peer = &*peer.name, %reason, "connection turned away"),
        }
    }
}
