//! The one JSON shape of every error: `ErrorModel` of the Iceberg REST specification, plus a position in the statement.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use floe_query::Place;

/// An error on its way to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The status, in the response and in the body.
    pub status: StatusCode,
    /// A stable word for programs, for example `InvalidStatement`.
    pub kind: &'static str,
    /// Tells people what is wrong and what to do.
    pub message: String,
    /// The position in the statement, if the error has one.
    pub place: Option<Place>,
}

impl Failure {
    /// An error without a position.
    #[must_use]
    pub(crate) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Failure {
        Failure { status, kind, message: message.into(), place: None }
    }

    fn body(&self) -> String {
        let mut error = json!({ "code": self.status.as_u16(), "type": self.kind, "message": self.message });
        if let Some(place) = self.place {
            error["line"] = place.line.into();
            error["column"] = place.column.into();
        }
        json!({ "error": error }).to_string()
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = self.body();
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_has_the_shape_of_the_iceberg_specification() {
        let mut failure = Failure::new(StatusCode::BAD_REQUEST, "InvalidStatement", "no \"such\" column");
        assert_eq!(
            failure.body(),
            r#"{"error":{"code":400,"message":"no \"such\" column","type":"InvalidStatement"}}"#
        );
        failure.place = Some(Place { line: 2, column: 7, width: 1 });
        assert!(failure.body().contains(r#""column":7,"line":2"#) || failure.body().contains(r#""line":2"#));
    }
}
