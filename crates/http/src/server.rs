//! The server: accepts within the limit of connections, runs one task per connection, drains at shutdown.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use floe_env::Env;

use crate::failure::Failure;
use crate::limits::{
    ACCEPT_RETRY_DELAY, DRAIN_SECONDS_MAX, HEAD_BYTES_MAX, HEAD_READ_SECONDS_MAX, HEADERS_MAX,
    WRITE_BYTES_MIN, WRITE_STALL_SECONDS_MAX,
};
use crate::seats::{BusyBody, Seat, Seats};
use crate::services::Services;
use crate::stall::StallGuard;
use crate::{door, health, routes};

/// Serves until `shutdown` turns true or its sender is gone. Then requests in progress get [`DRAIN_SECONDS_MAX`] to
/// end. Returns when no connection is left.
pub async fn serve(listener: TcpListener, services: Services, shutdown: watch::Receiver<bool>) {
    let env = services.env.clone();
    let seats = Seats::new(env.clone(), services.connections);
    let router = routes::router(Arc::new(services));
    let mut ended = shutdown.clone();
    let mut stop = pin!(async move { stopped(&mut ended).await });
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match seats.admit() {
                Some(seat) => {
                    let served = (seats.clone(), seat);
                    let connection =
                        connection(stream, env.clone(), router.clone(), shutdown.clone(), served);
                    env.spawn("http connection", async move {
                        if let Err(error) = connection.await {
                            tracing::debug!(%peer, %error, "an http connection ended with an error");
                        }
                    });
                }
                None => refuse(&stream),
            },
            Err(error) => {
                tracing::warn!(%error, "an http connection could not be accepted");
                sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
    drop(listener);
    seats.empty().await;
}

/// Returns when the server must stop.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it everybody who could have stopped us.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// Tells a client that all connections are taken. It does not wait for a client that cannot take even this line.
fn refuse(stream: &TcpStream) {
    const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
        content-type: application/json\r\ncontent-length: 95\r\n\r\n\
        {\"error\":{\"code\":503,\"type\":\"TooManyConnections\",\"message\":\"all connections are taken; retry\"}}";
    metrics::counter!("floe_http_refused_connections_total").increment(1);
    let _ = stream.try_write(FULL);
}

async fn connection(
    stream: TcpStream,
    env: Env,
    router: Router,
    mut shutdown: watch::Receiver<bool>,
    (seats, mut seat): (Seats, Seat),
) -> hyper::Result<()> {
    // Answers are small and clients wait for them, so there is no reason to wait for more bytes.
    let _ = stream.set_nodelay(true);
    let io = TokioIo::new(StallGuard::new(stream, env, WRITE_STALL_SECONDS_MAX, WRITE_BYTES_MIN));
    let (routes, number, is_for_probes) =
        (TowerToHyperService::new(router), seat.number(), seat.is_for_probes);
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let busy = seats.begin(number);
        let is_answered = !is_for_probes || health::is_probe(request.uri().path());
        let answer = is_answered.then(|| routes.call(request));
        async move {
            let response = match answer {
                Some(answer) => answer.await?,
                None => door::with_headers(turned_away()).await,
            };
            Ok::<_, Infallible>(response.map(|body| Body::new(BusyBody { body, _busy: busy })))
        }
    });
    let mut served = pin!(
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_READ_SECONDS_MAX)
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(io, service)
    );
    let result = tokio::select! {
        biased;
        () = stopped(&mut shutdown) => {
            served.as_mut().graceful_shutdown();
            timeout(DRAIN_SECONDS_MAX, served).await.unwrap_or_else(|_| {
                tracing::warn!("an http request was cut off: it did not end in time for the shutdown");
                Ok(())
            })
        }
        // Another connection has its seat now.
        _ = &mut seat.evicted => Ok(()),
        result = served.as_mut() => result,
    };
    drop(seat);
    result
}

/// The answer to all but probes on a seat that is kept for them.
fn turned_away() -> Response {
    metrics::counter!("floe_http_refused_connections_total").increment(1);
    let reason = "all connections are busy; retry".to_owned();
    let mut response =
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, "TooManyConnections", reason).into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
