//! `POST /api/v1/sql`: a statement in, rows out.

use axum::body::{Body, Bytes, HttpBody as _};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};

use floe_query::{Format, Kind, QueryError};

use crate::failure::Failure;
use crate::limits::{BODY_BYTES_MAX, BODY_READ_SECONDS_MAX, REPLY_BUFFER_BYTES};

/// The engine that answers statements. The binary implements it with `floe_sql`.
pub trait QueryService: Send + Sync + 'static {
    /// Plans the statement and starts to run it. Dropping the reply ends the query.
    fn query(&self, request: QueryRequest) -> BoxFuture<'_, Result<QueryReply, QueryError>>;
}

/// A statement and the format for its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryRequest {
    /// The SQL text.
    pub text: String,
    /// The format for the rows.
    pub format: Format,
}

/// All formats with their media types, in the order of preference.
const MEDIA_TYPES: [(Format, &str); 4] = [
    (Format::Json, "application/json"),
    (Format::ArrowStream, "application/vnd.apache.arrow.stream"),
    (Format::JsonLines, "application/x-ndjson"),
    (Format::Csv, "text/csv"),
];

fn media_type(format: Format) -> &'static str {
    let (_, name) =
        MEDIA_TYPES.into_iter().find(|(known, _)| *known == format).expect("the table holds every format");
    name
}

/// The first type in an `Accept` header that we can write, or `None` if there is none. Of the weights only `q=0`
/// counts, which says that a type is not acceptable (RFC 9110, 12.4.2); else the client's order does.
fn accepted(accept: Option<&str>) -> Option<Format> {
    let Some(accept) = accept else { return Some(Format::default()) };
    let ranges: Vec<(String, bool)> = accept.split(',').map(range).collect();
    ranges.iter().filter(|(_, wanted)| *wanted).find_map(|(range, _)| {
        let mut formats = MEDIA_TYPES.into_iter().map(|(format, _)| format);
        formats.find(|format| {
            let Some(exactness) = exactness(range, *format) else { return false };
            // The most exact range that holds a type decides (RFC 9110, 12.5.1).
            !ranges
                .iter()
                .any(|(other, wanted)| !wanted && self::exactness(other, *format) >= Some(exactness))
        })
    })
}

/// One type or range of types of an `Accept` header, and whether it is acceptable.
fn range(part: &str) -> (String, bool) {
    let mut words = part.split(';').map(|word| word.trim().to_ascii_lowercase());
    let name = words.next().unwrap_or_default();
    let weight = words.find_map(|word| word.strip_prefix("q=").map(|weight| weight.trim().parse::<f32>()));
    (name, !matches!(weight, Some(Ok(0.0))))
}

/// How exactly a range names a format, from `*/*` to its whole name. `None` if the range does not hold the format.
fn exactness(range: &str, format: Format) -> Option<u8> {
    match (range, format) {
        ("*/*", _) => Some(0),
        ("text/*", Format::Csv) => Some(1),
        ("application/*", Format::Json | Format::JsonLines | Format::ArrowStream) => Some(1),
        ("application/jsonl", Format::JsonLines) => Some(2),
        (range, format) => (range == media_type(format)).then_some(2),
    }
}

/// The rows of a statement, encoded in the requested format.
pub struct QueryReply {
    /// Pieces of the body. An error is the last item.
    pub body: BoxStream<'static, Result<Bytes, QueryError>>,
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Failure {
        let (status, kind) = match error.kind {
            Kind::Invalid => (StatusCode::BAD_REQUEST, "InvalidStatement"),
            Kind::Limit => (StatusCode::UNPROCESSABLE_ENTITY, "LimitExceeded"),
            Kind::Busy => (StatusCode::TOO_MANY_REQUESTS, "TooManyQueries"),
            Kind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "Unavailable"),
            Kind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "Internal"),
        };
        Failure { place: error.place, ..Failure::new(status, kind, error.to_string()) }
    }
}

/// The JSON body of a request.
#[derive(serde::Deserialize)]
struct QueryBody {
    query: String,
}

/// Handles a request.
pub(crate) async fn query(service: &dyn QueryService, headers: &HeaderMap, body: Body) -> Response {
    match run(service, headers, body).await {
        Ok(response) => response,
        Err(failure) => failure.into_response(),
    }
}

async fn run(service: &dyn QueryService, headers: &HeaderMap, body: Body) -> Result<Response, Failure> {
    json_body(headers)?;
    let accept = headers.get(header::ACCEPT).map(|value| value.to_str().unwrap_or_default());
    let Some(format) = accepted(accept) else {
        let known: Vec<&str> = MEDIA_TYPES.iter().map(|(_, name)| *name).collect();
        let message = format!("accept one of {}", known.join(", "));
        return Err(Failure::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message));
    };
    let text = statement(&read_body(body).await?)?;
    let reply = service.query(QueryRequest { text, format }).await?;
    Ok(([(header::CONTENT_TYPE, media_type(format))], whole_or_streamed(reply).await?).into_response())
}

/// Refuses a body that does not say to be JSON. A web page of any origin may send plain text or a form.
pub(crate) fn json_body(headers: &HeaderMap) -> Result<(), Failure> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let first = values.next().and_then(|value| value.to_str().ok()).unwrap_or_default();
    let name = first.split(';').next().unwrap_or_default().trim();
    if name.eq_ignore_ascii_case("application/json") && values.next().is_none() {
        return Ok(());
    }
    let message = "send JSON, and say so: `content-type: application/json`, as in \
                   curl --json '{\"query\": \"select 1\"}'";
    Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message))
}

/// Reads the whole body of a request, bounded in size and time.
pub(crate) async fn read_body(body: Body) -> Result<Bytes, Failure> {
    match tokio::time::timeout(BODY_READ_SECONDS_MAX, whole_body(body)).await {
        Ok(read) => read,
        Err(_) => Err(Failure::new(
            StatusCode::REQUEST_TIMEOUT,
            "BodyTimeout",
            format!("the body did not arrive within {} s", BODY_READ_SECONDS_MAX.as_secs()),
        )),
    }
}

async fn whole_body(body: Body) -> Result<Bytes, Failure> {
    let too_large = || {
        let message = format!("the body has more than {BODY_BYTES_MAX} bytes");
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "BodyTooLarge", message)
    };
    // Nobody waits for a body that says itself how large it is.
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let (mut parts, mut bytes) = (body.into_data_stream(), Vec::new());
    while let Some(part) = parts.next().await {
        let part = part.map_err(|error| {
            Failure::new(StatusCode::BAD_REQUEST, "BodyBroken", format!("the body broke off: {error}"))
        })?;
        if bytes.len() + part.len() > BODY_BYTES_MAX {
            return Err(too_large());
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes.into())
}

fn statement(body: &[u8]) -> Result<String, Failure> {
    serde_json::from_slice::<QueryBody>(body).map(|body| body.query).map_err(|error| {
        let message = format!("the body must be JSON like {{\"query\": \"select 1\"}}: {error}");
        Failure::new(StatusCode::BAD_REQUEST, "InvalidBody", message)
    })
}

/// Holds a small reply back until it is complete, so that an error in the middle reaches the client as an error.
async fn whole_or_streamed(mut reply: QueryReply) -> Result<Body, Failure> {
    let mut pieces = Vec::new();
    let mut bytes = 0;
    while bytes <= REPLY_BUFFER_BYTES {
        match reply.body.next().await {
            None => return Ok(Body::from(pieces.concat())),
            Some(piece) => {
                let piece = piece?;
                bytes += piece.len();
                pieces.push(piece);
            }
        }
    }
    let head = stream::iter(pieces.into_iter().map(Ok));
    let tail = reply.body.inspect(|piece| {
        if let Err(error) = piece {
            tracing::warn!(%error, "a query failed after part of its result was sent");
        }
    });
    Ok(Body::from_stream(head.chain(tail)))
}

/// The JSON body of a request. `example` shows what it may be, for the error.
pub(crate) async fn parsed<T: serde::de::DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    example: &str,
) -> Result<T, Failure> {
    json_body(headers)?;
    let body = read_body(body).await?;
    serde_json::from_slice(&body).map_err(|error| {
        let message = format!("the body must be JSON like {example}: {error}");
        Failure::new(StatusCode::BAD_REQUEST, "InvalidBody", message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_is_read() {
        let check = |accept: Option<&str>, expected: Option<Format>| {
            assert_eq!(accepted(accept), expected, "{accept:?}");
        };
        check(None, Some(Format::Json));
        check(Some("*/*"), Some(Format::Json));
        check(Some("text/csv; header=present"), Some(Format::Csv));
        check(Some("image/png, Application/VND.apache.arrow.stream"), Some(Format::ArrowStream));
        check(Some("application/x-ndjson;q=0.5, text/csv"), Some(Format::JsonLines));
        check(Some("application/json;q=0"), None);
        check(Some("application/json; q=0.0, text/csv;q=0.1"), Some(Format::Csv));
        check(Some("*/*, application/json;Q=0"), Some(Format::ArrowStream));
        check(Some("text/csv, */*;q=0"), Some(Format::Csv));
        check(Some("application/*;q=0, */*"), Some(Format::Csv));
        check(Some("image/png"), None);
        check(Some(""), None);
        for (format, name) in MEDIA_TYPES {
            check(Some(name), Some(format));
            assert_eq!(media_type(format), name);
        }
    }

    #[test]
    fn a_body_must_say_to_be_json() {
        let check = |types: &[&'static str]| {
            let mut headers = HeaderMap::new();
            types.iter().for_each(|text| {
                headers.append(header::CONTENT_TYPE, axum::http::HeaderValue::from_static(text));
            });
            json_body(&headers).map_err(|failure| failure.status)
        };
        for good in ["application/json", "Application/JSON ; charset=utf-8"] {
            assert_eq!(check(&[good]), Ok(()), "{good}");
        }
        let simple = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"];
        let twisted =
            ["", "text/plain; application/json", "application/jsonx", "text/plain,application/json"];
        for wrong in simple.into_iter().chain(twisted) {
            assert_eq!(check(&[wrong]), Err(StatusCode::UNSUPPORTED_MEDIA_TYPE), "{wrong}");
        }
        assert!(check(&[]).is_err() && check(&["application/json", "text/plain"]).is_err());
    }

    #[test]
    fn bodies_that_are_not_ours_are_refused() {
        assert_eq!(statement(br#"{"query":"select 1"}"#).unwrap(), "select 1");
        for body in [&b""[..], b"select 1", b"{}", br#"{"query":1}"#, b"\xff"] {
            assert_eq!(statement(body).unwrap_err().status, StatusCode::BAD_REQUEST);
        }
    }
}
