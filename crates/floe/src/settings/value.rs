//! What a setting may hold, and the Rust types that read it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use floe_http::Hosts;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// The value of a setting, before it has the type of its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// `true` or `false`.
    Switch(bool),
    /// A number of things or of bytes.
    Number(u64),
    /// Milliseconds.
    Time(Duration),
    /// Text.
    Text(String),
    /// A file or a directory, which need not be UTF-8.
    Path(PathBuf),
    /// Text that is never shown.
    Secret(Secret),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Switch(on) => write!(f, "{on}"),
            Value::Number(number) => write!(f, "{number}"),
            Value::Time(time) => write!(f, "{}", time.as_millis()),
            Value::Text(text) => f.write_str(text),
            Value::Path(path) => write!(f, "{}", path.display()),
            Value::Secret(_) => f.write_str("(not shown)"),
        }
    }
}

impl From<bool> for Value {
    fn from(on: bool) -> Value {
        Value::Switch(on)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Value {
        Value::Number(u64::from(number))
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Number(number)
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Value {
        Value::Number(number as u64)
    }
}

impl From<Duration> for Value {
    fn from(time: Duration) -> Value {
        Value::Time(time)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<PathBuf> for Value {
    fn from(path: PathBuf) -> Value {
        Value::Path(path)
    }
}

/// Values by the name of their setting.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Values(BTreeMap<&'static str, Value>);

impl Values {
    pub(crate) fn insert(&mut self, name: &'static str, value: Value) {
        self.0.insert(name, value);
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// The value of a setting in the type of its row; every value must have been checked.
    pub(crate) fn get<T: FromValue>(&self, name: &str) -> T {
        T::from_value(self.find(name)).expect("a checked value fits the type of its row")
    }
}

/// A type that a row of the table may have.
pub(crate) trait FromValue: Sized {
    /// The value in this type. `None` if it does not fit; a setting without a value fits an [`Option`] alone.
    fn from_value(value: Option<&Value>) -> Option<Self>;
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: Option<&Value>) -> Option<Self> {
        match value {
            None => Some(None),
            some => T::from_value(some).map(Some),
        }
    }
}

/// Implements [`FromValue`] by what one kind of value gives.
macro_rules! from_value {
    ($($type:ty: $kind:ident($value:ident) => $read:expr;)+) => {$(
        impl FromValue for $type {
            fn from_value(value: Option<&Value>) -> Option<Self> {
                match value? {
                    Value::$kind($value) => $read,
                    _ => None,
                }
            }
        }
    )+};
}

from_value! {
    bool: Switch(on) => Some(*on);
    u32: Number(number) => u32::try_from(*number).ok();
    u64: Number(number) => Some(*number);
    usize: Number(number) => usize::try_from(*number).ok();
    Duration: Time(time) => Some(*time);
    String: Text(text) => Some(text.clone());
    PathBuf: Path(path) => Some(path.clone());
    Secret: Secret(secret) => Some(secret.clone());
    HostPort: Text(text) => HostPort::parse(text);
    Hosts: Text(text) => Hosts::parse(text);
    StorePlace: Text(text) => StorePlace::parse(text);
    JournalPlace: Text(text) => JournalPlace::parse(text);
    LogFilter: Text(text) => LogFilter::parse(text);
    LogFormat: Text(text) => LogFormat::parse(text);
}

/// Text that `Debug` and `--print-config` do not show.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPort {
    /// A name or an address, IPv6 without brackets.
    pub(crate) host: String,
    /// The port; 0 listens on a free one.
    pub(crate) port: u16,
}

impl HostPort {
    /// Splits `HOST:PORT`, with an IPv6 host in brackets.
    fn parse(text: &str) -> Option<HostPort> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = port.parse().ok()?;
        (!host.is_empty()).then(|| HostPort { host: host.to_owned(), port })
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> HostPort {
        HostPort { host: address.ip().to_string(), port: address.port() }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V6(_)) => write!(f, "[{}]:{}", self.host, self.port),
            _ => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Where records are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StorePlace {
    /// In files below the data directory.
    Local,
    /// In files of another directory.
    Directory(PathBuf),
    /// In a bucket, under keys that begin with the prefix.
    S3 { bucket: String, prefix: String },
}

impl StorePlace {
    /// The name of the local store.
    pub(crate) const LOCAL: &str = "local";

    fn parse(text: &str) -> Option<StorePlace> {
        if text == StorePlace::LOCAL {
            return Some(StorePlace::Local);
        }
        if let Some(path) = text.strip_prefix("file://") {
            return path.starts_with('/').then(|| StorePlace::Directory(PathBuf::from(path)));
        }
        let path = text.strip_prefix("s3://")?;
        let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
        let prefix = prefix.trim_matches('/');
        (!bucket.is_empty()).then(|| StorePlace::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }

    /// Whether it is on another machine.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self, StorePlace::S3 { .. })
    }

    /// The directory with the objects, if they are in files; `data` is the data directory.
    pub(crate) fn directory(&self, data: &Path) -> Option<PathBuf> {
        match self {
            StorePlace::Local => Some(data.join("store")),
            StorePlace::Directory(directory) => Some(directory.clone()),
            StorePlace::S3 { .. } => None,
        }
    }
}

/// Where the metadata journal is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum JournalPlace {
    /// In files below the data directory.
    Local,
    /// In the store, beside the records.
    Bucket,
    /// In a PostgreSQL server; the address may have a password.
    Postgres(Secret),
}

impl JournalPlace {
    fn parse(text: &str) -> Option<JournalPlace> {
        match text {
            "local" => Some(JournalPlace::Local),
            "bucket" => Some(JournalPlace::Bucket),
            _ => {
                let address =
                    ["postgres://", "postgresql://"].iter().find_map(|begin| text.strip_prefix(begin));
                let is_address = address.is_some_and(|address| !address.is_empty());
                is_address.then(|| JournalPlace::Postgres(Secret(text.to_owned())))
            }
        }
    }
}

/// A filter of log lines, as `tracing` reads it.
#[derive(Debug, Clone)]
pub(crate) struct LogFilter(pub(crate) String);

impl LogFilter {
    /// A word alone is a level. `tracing` takes any other for the name of a module, so a level with a mistake in it
    /// would silence all others.
    fn parse(text: &str) -> Option<LogFilter> {
        let is_known = |part: &str| part.contains(['=', '[']) || part.parse::<LevelFilter>().is_ok();
        let known = text.split(',').map(str::trim).all(|part| part.is_empty() || is_known(part));
        (known && EnvFilter::try_new(text).is_ok()).then(|| LogFilter(text.to_owned()))
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    fn parse(text: &str) -> Option<LogFormat> {
        match text {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::LogFilter;

    #[test]
    fn a_mistyped_level_is_no_filter() {
        for text in
            ["info", "WARN", "off", "warn,floe_lake=debug", "floe_lake=debug, info", "[span]=info", ""]
        {
            assert!(LogFilter::parse(text).is_some(), "{text}");
        }
        for text in ["inof", "warn,floe_lake", "floe=verbose", "debug info"] {
            assert!(LogFilter::parse(text).is_none(), "{text}");
        }
    }
}
