//! A client of a broker's HTTP address: SQL in, Arrow out.

use std::io::Cursor;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{StatusCode, Url};
use serde_json::Value;

/// Bytes of a printed table. It is in memory until its last row has come, because its widths must be known.
const ROWS_BYTES_MAX: usize = 1 << 30;
/// Bytes that are read of an error's body, and of a document.
const DOCUMENT_BYTES_MAX: usize = 1 << 20;

/// The rows of a statement.
pub(crate) struct Rows {
    pub(crate) schema: SchemaRef,
    pub(crate) batches: Vec<RecordBatch>,
}

impl Rows {
    /// The integer in the first column of the first row, as `SELECT count(*)` gives it.
    pub(crate) fn first_integer(&self) -> Option<i64> {
        let batch = self.batches.iter().find(|b| b.num_rows() > 0)?;
        let column = batch.columns().first()?;
        let column = arrow::compute::cast(column, &arrow::datatypes::DataType::Int64).ok()?;
        Some(arrow::array::cast::as_primitive_array::<arrow::datatypes::Int64Type>(&column).value(0))
    }
}

/// A broker's HTTP address.
#[derive(Clone)]
pub(crate) struct HttpClient {
    http: reqwest::Client,
    server: String,
}

impl HttpClient {
    /// A client of `server`, for example `http://127.0.0.1:8080`.
    ///
    /// # Errors
    /// The text is no such URL.
    pub(crate) fn new(server: &str) -> Result<Self> {
        check(server)?;
        let mut http = reqwest::Client::builder().connect_timeout(Duration::from_secs(5));
        if is_loopback(server) {
            // A proxy of the environment leads to the outside world, not to this machine.
            http = http.no_proxy();
        }
        Ok(Self { http: http.build()?, server: server.trim_end_matches('/').to_owned() })
    }

    /// Runs a statement and reads all of its rows.
    ///
    /// # Errors
    /// The broker refuses the statement and says where it is wrong, or the broker cannot be reached.
    pub(crate) async fn query(&self, statement: &str) -> Result<Rows> {
        let mut body = Vec::new();
        let limited = |piece: &[u8]| {
            ensure!(
                body.len() + piece.len() <= ROWS_BYTES_MAX,
                "the answer is larger than {ROWS_BYTES_MAX} bytes: add a LIMIT, or take --format csv"
            );
            body.extend_from_slice(piece);
            Ok(())
        };
        self.stream(statement, "application/vnd.apache.arrow.stream", limited).await?;
        let reader =
            StreamReader::try_new(Cursor::new(body), None).context("the broker's answer is not Arrow")?;
        let schema = reader.schema();
        let batches = reader.collect::<Result<Vec<_>, _>>().context("the broker's answer broke off")?;
        Ok(Rows { schema, batches })
    }

    /// Runs a statement and hands over its rows as they come, in the media type `accept`.
    ///
    /// # Errors
    /// As [`HttpClient::query`].
    pub(crate) async fn stream(
        &self,
        statement: &str,
        accept: &str,
        mut take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let request = serde_json::to_vec(&serde_json::json!({ "query": statement }))?;
        let post = self.http.post(format!("{}/api/v1/sql", self.server));
        let post = post.header(CONTENT_TYPE, "application/json").header(ACCEPT, accept).body(request);
        let mut answer = post.send().await.map_err(|error| self.unreachable(&error))?;
        if !answer.status().is_success() {
            return Err(told(answer).await);
        }
        while let Some(piece) = answer.chunk().await.context("the broker's answer broke off")? {
            take(&piece)?;
        }
        Ok(())
    }

    /// Asks `GET path`. None if the broker answers 404.
    ///
    /// # Errors
    /// As [`HttpClient::query`].
    pub(crate) async fn get(&self, path: &[&str]) -> Result<Option<Value>> {
        let answer =
            self.http.get(url(&self.server, path)?).send().await.map_err(|error| self.unreachable(&error))?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        read_json(answer).await.map(Some)
    }

    /// Sends `POST path` with a JSON body.
    ///
    /// # Errors
    /// As [`HttpClient::query`].
    pub(crate) async fn post(&self, path: &[&str], body: &Value) -> Result<Value> {
        let post = self.http.post(url(&self.server, path)?).header(CONTENT_TYPE, "application/json");
        let answer = post.body(body.to_string()).send().await.map_err(|error| self.unreachable(&error))?;
        read_json(answer).await
    }

    fn unreachable(&self, error: &reqwest::Error) -> anyhow::Error {
        let what = match error.is_connect() {
            true => "no broker answers",
            // A Kafka port closes the connection on the first bytes of HTTP.
            false => "nothing answers as HTTP servers do, so this may be the broker's port for Kafka",
        };
        anyhow!(
            "{what} at {}: start one with `floe serve`, or name its HTTP address with --server",
            self.server
        )
        .context(error.to_string())
    }
}

/// Checks that a text is the URL of a server.
fn check(server: &str) -> Result<()> {
    let given = |scheme| server.starts_with(scheme);
    let found = Url::parse(server).is_ok_and(|url| url.has_host());
    let example = if server.contains("://") { "127.0.0.1:8080" } else { server };
    ensure!(
        found && (given("http://") || given("https://")),
        "'{server}' is not the HTTP address of a server; write it as http://{example}"
    );
    Ok(())
}

/// The URL of a path, whose parts may hold any characters.
fn url(server: &str, path: &[&str]) -> Result<Url> {
    let mut url = Url::parse(server).with_context(|| format!("{server} is not a URL"))?;
    let parts = url.path_segments_mut();
    let mut parts =
        parts.map_err(|()| anyhow!("{server} is not the URL of a server, such as http://{server}"))?;
    parts.pop_if_empty().extend(path);
    drop(parts);
    Ok(url)
}

/// Whether a URL is of this machine.
fn is_loopback(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or(host == "localhost", |address| address.is_loopback())
}

/// The JSON of an answer, or the error that it tells.
async fn read_json(answer: reqwest::Response) -> Result<Value> {
    if !answer.status().is_success() {
        return Err(told(answer).await);
    }
    let body = read_some(answer).await;
    serde_json::from_slice(&body).context("the broker's answer is not JSON")
}

/// The error that the broker tells in the body of its answer.
async fn told(answer: reqwest::Response) -> anyhow::Error {
    let status = answer.status();
    let body: Value = serde_json::from_slice(&read_some(answer).await).unwrap_or_default();
    match body.pointer("/error/message").and_then(Value::as_str) {
        Some(message) => anyhow!("{message}"),
        None => anyhow!("the broker answered {status}"),
    }
}

/// The body of an answer, up to a limit.
async fn read_some(mut answer: reqwest::Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(piece)) = answer.chunk().await {
        body.extend_from_slice(&piece);
        if body.len() > DOCUMENT_BYTES_MAX {
            break;
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_path_may_hold_any_characters() {
        for server in ["http://127.0.0.1:8080", "http://127.0.0.1:8080/"] {
            let url = url(server, &["api", "a/b c?"]).expect("it is a URL");
            assert_eq!(url.as_str(), "http://127.0.0.1:8080/api/a%2Fb%20c%3F");
        }
        assert!(url("broker:8080", &["a"]).is_err());
    }

    #[test]
    fn a_server_has_a_scheme() {
        for good in ["http://127.0.0.1:8080", "https://floe.example/", "http://[::1]:80"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for (wrong, right) in [
            ("broker:8080", "http://broker:8080"),
            ("127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("broker", "http://broker"),
            ("ftp://broker:8080", "http://127.0.0.1:8080"),
            ("http://", "http://127.0.0.1:8080"),
        ] {
            let error = check(wrong).expect_err("it is no server").to_string();
            assert!(error.ends_with(right), "{error}");
        }
    }

    #[test]
    fn this_machine_is_known_by_its_names() {
        for url in ["http://127.0.0.1:8080", "http://127.1.2.3", "http://LOCALHOST:1/", "http://[::1]:80"] {
            assert!(is_loopback(url), "{url}");
        }
        for url in ["http://broker:8080", "http://10.0.0.1", "http://localhost.example", "127.0.0.1:8080"] {
            assert!(!is_loopback(url), "{url}");
        }
    }
}
