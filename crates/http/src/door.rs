//! What every request passes before its handler: a web page of another origin gets nothing, whether it asks across
//! origins or under a name of its own that leads here (DNS rebinding). Every answer carries the headers that keep
//! browsers from guessing, framing and storing.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::failure::Failure;
use crate::hosts::{Hosts, Name};
use crate::services::Services;

/// Headers of every answer. An answer is data and never a page: a browser must not guess its type, run or frame it,
/// hand it to another origin, or keep it.
const HEADERS: [(&str, &str); 6] = [
    ("x-content-type-options", "nosniff"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'; sandbox"),
    ("x-frame-options", "DENY"),
    ("cross-origin-resource-policy", "same-origin"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-store"),
];

/// Refuses foreign names and origins.
pub(crate) async fn guard(
    State(services): State<Arc<Services>>,
    mut request: Request,
    next: Next,
) -> Response {
    match judge(&services.hosts, request.uri(), request.headers()) {
        Ok(name) => {
            request.extensions_mut().insert(name);
            next.run(request).await
        }
        Err(failure) => failure.into_response(),
    }
}

/// Adds the headers of every answer.
pub(crate) async fn with_headers(mut response: Response) -> Response {
    for (name, value) in HEADERS {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

fn judge(hosts: &Hosts, uri: &Uri, headers: &HeaderMap) -> Result<Name, Failure> {
    let host = host(uri, headers)?;
    foreign_origin(&host, headers)?;
    match hosts.allow(&host) {
        true => Ok(Name::Ours),
        // Probes and proxies ask under any name.
        false if matches!(uri.path(), "/health" | "/ready") => Ok(Name::Foreign),
        false => Err(refused(
            "host",
            StatusCode::MISDIRECTED_REQUEST,
            "UnknownHost",
            format!(
                "this server does not answer as {host:?}: ask by IP address or as localhost, or add the name to the \
                 server's setting http_allowed_hosts (a web page must not reach it under a name of its own)"
            ),
        )),
    }
}

/// The name that the client asks for. An absolute target counts instead of `Host` (RFC 9112, 3.2.2). It is empty if
/// the client names none, as old probes do.
fn host(uri: &Uri, headers: &HeaderMap) -> Result<String, Failure> {
    if let Some(authority) = uri.authority() {
        return Ok(authority.as_str().to_owned());
    }
    let mut values = headers.get_all(header::HOST).iter();
    let (first, second) = (values.next(), values.next());
    let text = first.map_or(Ok(""), HeaderValue::to_str);
    match (text, second) {
        (Ok(host), None) => Ok(host.to_owned()),
        _ => {
            let message = "send one header `host`, of ASCII characters";
            Err(refused("host", StatusCode::BAD_REQUEST, "InvalidHost", message.to_owned()))
        }
    }
}

/// Refuses the pages of other origins: whatever they send, browsers say where it is from. A page of a name that leads
/// here, on the same port, is of this origin; whether we answer under that name is another question.
fn foreign_origin(host: &str, headers: &HeaderMap) -> Result<(), Failure> {
    for origin in headers.get_all(header::ORIGIN) {
        if !origin.to_str().is_ok_and(|origin| is_origin_of(host, origin)) {
            return Err(refused(
                "origin",
                StatusCode::FORBIDDEN,
                "ForeignOrigin",
                format!(
                    "a web page of {origin:?} asks, and this server answers no page but its own: ask from a program, \
                     which sends no header `origin`"
                ),
            ));
        }
    }
    Ok(())
}

fn is_origin_of(host: &str, origin: &str) -> bool {
    // Browsers leave the port of the scheme out, in both headers.
    let schemes = [("http://", ":80"), ("https://", ":443")];
    schemes.into_iter().any(|(scheme, port)| {
        let plain = |text: &str| text.strip_suffix(port).unwrap_or(text).to_ascii_lowercase();
        origin.strip_prefix(scheme).is_some_and(|at| !at.is_empty() && plain(at) == plain(host))
    })
}

fn refused(reason: &'static str, status: StatusCode, kind: &'static str, message: String) -> Failure {
    metrics::counter!("floe_http_refused_requests_total", "reason" => reason).increment(1);
    Failure::new(status, kind, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_ours_if_it_is_the_host_that_was_asked() {
        for (host, origin) in [
            ("127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("floe.example", "https://floe.example"),
            ("floe.example:443", "https://floe.example"),
            ("FLOE.example", "http://floe.EXAMPLE:80"),
            ("[::1]:8080", "http://[::1]:8080"),
        ] {
            assert!(is_origin_of(host, origin), "{host} {origin}");
        }
        for (host, origin) in [
            ("127.0.0.1:8080", "http://127.0.0.1:3000"),
            ("127.0.0.1:8080", "http://127.0.0.1"),
            ("127.0.0.1:8080", "http://localhost:8080"),
            ("127.0.0.1:8080", "http://evil.example"),
            ("127.0.0.1:8080", "null"),
            ("127.0.0.1:8080", ""),
            ("127.0.0.1:8080", "file://"),
            ("", "http://"),
            ("floe.example:80", "https://floe.example"),
            ("floe.example", "chrome-extension://floe.example"),
        ] {
            assert!(!is_origin_of(host, origin), "{host} {origin}");
        }
    }
}
