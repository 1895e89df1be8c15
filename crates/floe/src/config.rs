//! Settings in two steps: [`RawConfig`] is what was typed (flags, environment, file), [`Config`] is checked.
//!
//! Every key of the file is also a flag and an environment variable: `linger_ms`, `--linger-ms`, `FLOE_LINGER_MS`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

/// What becomes of a topic that a client creates by using it, when it says nothing of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TableDefault {
    /// A topic and no table.
    Off,
    /// Its JSON records are rows.
    Json,
    /// Its keys, values and headers are rows of bytes.
    Raw,
}

impl TableDefault {
    /// The value of `floe.table`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Json => "json",
            Self::Raw => "raw",
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What was typed; what is missing has a default.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawConfig {
    /// Directory of the metadata journal and, on a local store, of all data [default: ./floe-data]
    #[arg(long, env = "FLOE_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Where records are stored: `local` (below the data directory) or s3://BUCKET/PREFIX [default: local]
    #[arg(long, env = "FLOE_STORE", value_name = "STORE")]
    pub(crate) store: Option<String>,
    /// Listen here for Kafka clients [default: 127.0.0.1:9092]
    #[arg(long, env = "FLOE_KAFKA", value_name = "HOST:PORT")]
    pub(crate) kafka: Option<String>,
    /// The address that Kafka clients are told to use [default: the one listened on]
    #[arg(long, env = "FLOE_ADVERTISED", value_name = "HOST:PORT")]
    pub(crate) advertised: Option<String>,
    /// Listen here for HTTP: SQL, Iceberg catalog, metrics, health [default: 127.0.0.1:8080]
    #[arg(long, env = "FLOE_HTTP", value_name = "HOST:PORT")]
    pub(crate) http: Option<String>,
    /// Create a topic when a client first uses its name [default: true]
    #[arg(long, env = "FLOE_AUTO_CREATE_TOPICS", value_name = "BOOL")]
    pub(crate) auto_create_topics: Option<bool>,
    /// Partitions of a topic that is created without a number [default: 1]
    #[arg(long, env = "FLOE_DEFAULT_PARTITIONS", value_name = "N")]
    pub(crate) default_partitions: Option<u32>,
    /// `floe.table` of topics that are created by use [default: off]
    #[arg(long, env = "FLOE_TABLE_DEFAULT", value_enum, value_name = "KIND")]
    pub(crate) table_default: Option<TableDefault>,
    /// Delay of the first rebalance of an empty group, in milliseconds [default: 500]
    #[arg(long, env = "FLOE_GROUP_INITIAL_DELAY_MS", value_name = "MS")]
    pub(crate) group_initial_delay_ms: Option<u64>,
    /// Upload a WAL object at this age, in milliseconds [default: 0 on a local store, 100 on a remote one]
    #[arg(long, env = "FLOE_LINGER_MS", value_name = "MS")]
    pub(crate) linger_ms: Option<u64>,
    /// Upload a WAL object at this size, in bytes [default: 8388608]
    #[arg(long, env = "FLOE_OBJECT_BYTES", value_name = "BYTES")]
    pub(crate) object_bytes: Option<usize>,
    /// Uploads of WAL objects under way at once [default: what suits the store]
    #[arg(long, env = "FLOE_UPLOADS", value_name = "N")]
    pub(crate) uploads: Option<usize>,
    /// Memory for records that wait for their upload, in bytes [default: 268435456]
    #[arg(long, env = "FLOE_APPEND_BYTES", value_name = "BYTES")]
    pub(crate) append_bytes: Option<usize>,
    /// Memory for records that are read again, in bytes [default: 268435456]
    #[arg(long, env = "FLOE_CACHE_BYTES", value_name = "BYTES")]
    pub(crate) cache_bytes: Option<usize>,
    /// Largest Kafka request, in bytes [default: 104857600]
    #[arg(long, env = "FLOE_FRAME_BYTES", value_name = "BYTES")]
    pub(crate) frame_bytes: Option<usize>,
    /// Kafka connections at once [default: 8192]
    #[arg(long, env = "FLOE_CONNECTIONS", value_name = "N")]
    pub(crate) connections: Option<usize>,
    /// Memory of all SQL queries together, in bytes [default: 536870912]
    #[arg(long, env = "FLOE_SQL_MEMORY_BYTES", value_name = "BYTES")]
    pub(crate) sql_memory_bytes: Option<usize>,
    /// Bytes of log that a SQL query reads of one table whose Iceberg files are behind; at a quarter of it (64 MiB at
    /// most) files are written whatever the topic's freshness [default: 268435456]
    #[arg(long, env = "FLOE_SQL_TAIL_BYTES", value_name = "BYTES")]
    pub(crate) sql_tail_bytes: Option<u64>,
    /// End a SQL query that takes longer, in milliseconds [default: 60000]
    #[arg(long, env = "FLOE_SQL_TIMEOUT_MS", value_name = "MS")]
    pub(crate) sql_timeout_ms: Option<u64>,
    /// S3 endpoint, for stores other than AWS.
    #[arg(long, env = "FLOE_S3_ENDPOINT", value_name = "URL")]
    pub(crate) s3_endpoint: Option<String>,
    /// S3 region [default: us-east-1]
    #[arg(long, env = "FLOE_S3_REGION", value_name = "REGION")]
    pub(crate) s3_region: Option<String>,
    /// S3 access key id.
    #[arg(long, env = "AWS_ACCESS_KEY_ID", value_name = "ID")]
    pub(crate) s3_access_key_id: Option<String>,
    /// S3 secret access key; give it by the environment or the file rather than on the command line.
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY", value_name = "SECRET", hide_env_values = true)]
    #[serde(skip_serializing)]
    pub(crate) s3_secret_access_key: Option<String>,
    /// What is logged to standard error, as a tracing filter [default: info]
    #[arg(long, env = "FLOE_LOG", value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// How log lines look [default: text]
    #[arg(long, env = "FLOE_LOG_FORMAT", value_enum, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
}

/// Takes each field from the first that has it.
macro_rules! first_of {
    ($first:expr, $second:expr, [$($field:ident),+ $(,)?]) => {
        RawConfig { $($field: $first.$field.or($second.$field)),+ }
    };
}

impl RawConfig {
    /// Reads a TOML file.
    ///
    /// # Errors
    /// When it cannot be read, is not TOML, or has a key that does not exist.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("cannot use {}", path.display()))
    }

    /// These settings, and those of `file` where these say nothing.
    pub(crate) fn over(self, file: Self) -> Self {
        first_of!(
            self,
            file,
            [
                data,
                store,
                kafka,
                advertised,
                http,
                auto_create_topics,
                default_partitions,
                table_default,
                group_initial_delay_ms,
                linger_ms,
                object_bytes,
                uploads,
                append_bytes,
                cache_bytes,
                frame_bytes,
                connections,
                sql_memory_bytes,
                sql_tail_bytes,
                sql_timeout_ms,
                s3_endpoint,
                s3_region,
                s3_access_key_id,
                s3_secret_access_key,
                log,
                log_format,
            ]
        )
    }
}

/// The bucket of a remote store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct S3 {
    pub(crate) bucket: String,
    pub(crate) prefix: String,
    pub(crate) endpoint: Option<String>,
    pub(crate) region: String,
    pub(crate) access_key_id: Option<String>,
    pub(crate) secret_access_key: Option<String>,
}

/// Where records are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StoreConfig {
    /// In files below the data directory.
    Local,
    /// In a bucket.
    S3(S3),
}

/// Settings that were checked; the meaning of each is on its field of [`RawConfig`].
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) data: PathBuf,
    pub(crate) store: StoreConfig,
    pub(crate) kafka: String,
    pub(crate) advertised: Option<(String, u16)>,
    pub(crate) http: String,
    pub(crate) auto_create_topics: bool,
    pub(crate) default_partitions: u32,
    pub(crate) table_default: TableDefault,
    pub(crate) group_initial_delay: Duration,
    pub(crate) linger: Duration,
    pub(crate) object_bytes: usize,
    pub(crate) uploads: Option<usize>,
    pub(crate) append_bytes: usize,
    pub(crate) cache_bytes: usize,
    pub(crate) frame_bytes: usize,
    pub(crate) connections: usize,
    pub(crate) sql_memory_bytes: usize,
    pub(crate) sql_tail_bytes: u64,
    pub(crate) sql_timeout: Duration,
    pub(crate) log: String,
    pub(crate) log_format: LogFormat,
}

impl Config {
    /// Checks what was typed and fills in the defaults.
    ///
    /// # Errors
    /// One that names the setting and what it may be.
    pub(crate) fn check(raw: RawConfig) -> Result<Self> {
        let store = store_config(&raw)?;
        let linger_default = if store == StoreConfig::Local { 0 } else { 100 };
        let config = Self {
            data: raw.data.unwrap_or_else(|| PathBuf::from("floe-data")),
            store,
            kafka: raw.kafka.unwrap_or_else(|| "127.0.0.1:9092".to_owned()),
            advertised: raw.advertised.as_deref().map(host_port).transpose()?,
            http: raw.http.unwrap_or_else(|| "127.0.0.1:8080".to_owned()),
            auto_create_topics: raw.auto_create_topics.unwrap_or(true),
            default_partitions: raw.default_partitions.unwrap_or(1),
            table_default: raw.table_default.unwrap_or(TableDefault::Off),
            group_initial_delay: Duration::from_millis(raw.group_initial_delay_ms.unwrap_or(500)),
            linger: Duration::from_millis(raw.linger_ms.unwrap_or(linger_default)),
            object_bytes: raw.object_bytes.unwrap_or(8 << 20),
            uploads: raw.uploads,
            append_bytes: raw.append_bytes.unwrap_or(256 << 20),
            cache_bytes: raw.cache_bytes.unwrap_or(256 << 20),
            frame_bytes: raw.frame_bytes.unwrap_or(100 << 20),
            connections: raw.connections.unwrap_or(8192),
            sql_memory_bytes: raw.sql_memory_bytes.unwrap_or(512 << 20),
            sql_tail_bytes: raw.sql_tail_bytes.unwrap_or(256 << 20),
            sql_timeout: Duration::from_millis(raw.sql_timeout_ms.unwrap_or(60_000)),
            log: raw.log.unwrap_or_else(|| "info".to_owned()),
            log_format: raw.log_format.unwrap_or(LogFormat::Text),
        };
        config.check_ranges()?;
        Ok(config)
    }

    /// The settings as they are used, in the form that [`RawConfig::read`] takes. What has no value (no upload limit
    /// but the store's own, no address but the one listened on) is left out.
    pub(crate) fn used(&self) -> RawConfig {
        let millis = |duration: Duration| Some(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
        let s3 = match &self.store {
            StoreConfig::Local => None,
            StoreConfig::S3(s3) => Some(s3),
        };
        RawConfig {
            data: Some(self.data.clone()),
            store: Some(
                s3.map_or_else(|| "local".to_owned(), |s3| format!("s3://{}/{}", s3.bucket, s3.prefix)),
            ),
            kafka: Some(self.kafka.clone()),
            advertised: self.advertised.as_ref().map(|(host, port)| match host.contains(':') {
                true => format!("[{host}]:{port}"),
                false => format!("{host}:{port}"),
            }),
            http: Some(self.http.clone()),
            auto_create_topics: Some(self.auto_create_topics),
            default_partitions: Some(self.default_partitions),
            table_default: Some(self.table_default),
            group_initial_delay_ms: millis(self.group_initial_delay),
            linger_ms: millis(self.linger),
            object_bytes: Some(self.object_bytes),
            uploads: self.uploads,
            append_bytes: Some(self.append_bytes),
            cache_bytes: Some(self.cache_bytes),
            frame_bytes: Some(self.frame_bytes),
            connections: Some(self.connections),
            sql_memory_bytes: Some(self.sql_memory_bytes),
            sql_tail_bytes: Some(self.sql_tail_bytes),
            sql_timeout_ms: millis(self.sql_timeout),
            s3_endpoint: s3.and_then(|s3| s3.endpoint.clone()),
            s3_region: s3.map(|s3| s3.region.clone()),
            s3_access_key_id: s3.and_then(|s3| s3.access_key_id.clone()),
            s3_secret_access_key: s3.and_then(|s3| s3.secret_access_key.clone()),
            log: Some(self.log.clone()),
            log_format: Some(self.log_format),
        }
    }

    fn check_ranges(&self) -> Result<()> {
        let within = |name: &str, value: usize, min: usize, max: usize| {
            ensure!((min..=max).contains(&value), "{name} is {value}; it may be {min} to {max}");
            Ok(())
        };
        within("default_partitions", self.default_partitions as usize, 1, 10_000)?;
        within("object_bytes", self.object_bytes, 64 << 10, 256 << 20)?;
        within("uploads", self.uploads.unwrap_or(1), 1, 64)?;
        within("append_bytes", self.append_bytes, 2 * self.frame_bytes, 1 << 40)
            .context("a request must fit in the memory for records that wait")?;
        within("cache_bytes", self.cache_bytes, 1 << 20, 1 << 40)?;
        within("frame_bytes", self.frame_bytes, 64 << 10, 1 << 30)?;
        within("connections", self.connections, 1, 1 << 20)?;
        within("sql_memory_bytes", self.sql_memory_bytes, 16 << 20, 1 << 40)
    }
}

fn store_config(raw: &RawConfig) -> Result<StoreConfig> {
    let store = raw.store.as_deref().unwrap_or("local");
    if store == "local" {
        return Ok(StoreConfig::Local);
    }
    let Some(path) = store.strip_prefix("s3://") else {
        bail!("store is `{store}`; it may be `local` or s3://BUCKET/PREFIX");
    };
    let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
    ensure!(!bucket.is_empty(), "store is `{store}`, which names no bucket");
    Ok(StoreConfig::S3(S3 {
        bucket: bucket.to_owned(),
        prefix: prefix.trim_matches('/').to_owned(),
        endpoint: raw.s3_endpoint.clone(),
        region: raw.s3_region.clone().unwrap_or_else(|| "us-east-1".to_owned()),
        access_key_id: raw.s3_access_key_id.clone(),
        secret_access_key: raw.s3_secret_access_key.clone(),
    }))
}

/// Splits `HOST:PORT`, with an IPv6 host in brackets.
fn host_port(text: &str) -> Result<(String, u16)> {
    let (host, port) = text.rsplit_once(':').with_context(|| format!("`{text}` is not HOST:PORT"))?;
    let port = port.parse().with_context(|| format!("`{port}` in `{text}` is not a port"))?;
    ensure!(!host.is_empty(), "`{text}` names no host");
    Ok((host.trim_start_matches('[').trim_end_matches(']').to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(toml: &str) -> Result<Config> {
        Config::check(toml::from_str(toml)?)
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let flags = RawConfig { kafka: Some("127.0.0.1:1".to_owned()), ..RawConfig::default() };
        let file = toml::from_str("kafka = '127.0.0.1:2'\nuploads = 7").unwrap();
        let config = Config::check(flags.over(file)).unwrap();
        assert_eq!((config.kafka.as_str(), config.uploads), ("127.0.0.1:1", Some(7)));
        assert_eq!(config.linger, Duration::ZERO);
    }

    #[test]
    fn what_is_used_reads_back_as_the_same() {
        for toml in ["", "store = 's3://b/p'\nadvertised = '[::1]:9'\ns3_secret_access_key = 'hidden'"] {
            let used = check(toml).unwrap().used();
            let text = toml::to_string(&used).unwrap();
            for named in ["kafka = \"127.0.0.1:9092\"", "linger_ms = ", "sql_tail_bytes = 268435456"] {
                assert!(text.contains(named), "{named} in {text}");
            }
            assert!(!text.contains("hidden"), "{text}");
            let again = toml::to_string(&check(&text).unwrap().used()).unwrap();
            assert_eq!(again, text);
        }
    }

    #[test]
    fn stores_are_told_apart() {
        let StoreConfig::S3(s3) = check("store = 's3://b/p/q/'").unwrap().store else { panic!("not S3") };
        assert_eq!((s3.bucket.as_str(), s3.prefix.as_str()), ("b", "p/q"));
        assert_eq!(check("store = 's3://b'").unwrap().linger, Duration::from_millis(100));
        assert!(check("store = 'ftp://b'").is_err());
        assert!(check("store = 's3:///p'").is_err());
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_name() {
        for (toml, named) in [
            ("uploads = 0", "uploads"),
            ("object_bytes = 1", "object_bytes"),
            ("advertised = 'x'", "HOST:PORT"),
            ("advertised = 'x:99999'", "port"),
            ("colour = 'blue'", "colour"),
        ] {
            let error = format!("{:#}", check(toml).expect_err(toml));
            assert!(error.contains(named), "{toml}: {error}");
        }
        assert_eq!(check("advertised = '[::1]:9'").unwrap().advertised, Some(("::1".to_owned(), 9)));
    }
}
