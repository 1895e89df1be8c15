//! The table: every setting of a broker, one row each. To add a setting, add a row here and use its field.
//!
//! A row has words for people, name, type, default and range, and where Amazon's tools have a name for the environment
//! variable, that name. From it come the flag, the environment variable, the key of the file, the lines of `--help`,
//! `--print-config` and docs/settings.md, and the field of [`Config`]. The default is a constant of the crate that the
//! setting belongs to, so the two cannot differ.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use floe_env::DISK_RESERVE_BYTES;
use floe_group::limits as group;
use floe_history::limits as history;
use floe_http::{Hosts, limits as http};
use floe_kafka::limits as kafka;
use floe_log::limits as log;
use floe_log::topic::PARTITIONS_MAX;
use floe_log::topic_config;
use floe_meta::limits as meta;
use floe_sql::limits as sql;
use floe_store::limits as store;

use crate::settings::setting::{
    JOURNAL, Setting, bytes, count, directory, host_port, millis, one_of, per_store, secret, switch, text,
    unset,
};
use crate::settings::value::{HostPort, JournalPlace, LogFilter, LogFormat, Secret, StorePlace, Values};

/// Makes [`SETTINGS`] and [`Config`] of the rows.
macro_rules! settings {
    ($($section:literal {
        $($(#[doc = $words:literal])+ $name:ident: $type:ty = $preset:expr, $takes:expr $(, $environment:literal)?;)+
    })+) => {
        /// The rows, in the order of the table.
        pub(crate) static SETTINGS: LazyLock<Vec<Setting>> = LazyLock::new(|| vec![$($(
            Setting::new::<$type>(
                stringify!($name), $section, concat!($($words),+), $takes, $preset.into(),
            )$(.named($environment))?,
        )+)+]);

        /// The settings as a broker uses them: checked, each in the type of its row.
        #[derive(Debug, Clone)]
        pub(crate) struct Config {
            $($($(#[doc = $words])+ pub(crate) $name: $type,)+)+
        }

        impl Config {
            /// Gives each checked value its type.
            pub(super) fn new(checked: &Values) -> Config {
                Config { $($($name: checked.get(stringify!($name)),)+)+ }
            }
        }
    };
}

settings! {
    "Data" {
        /// Directory of everything that is on this machine: on a local store all data, else the metadata journal if
        /// that is `local`, and files that can be lost
        data: PathBuf = PathBuf::from("floe-data"), directory();
        /// Where records are stored: below the data directory, in another directory or in a bucket
        store: StorePlace = StorePlace::LOCAL, text("STORE", "`local`, file:///DIRECTORY or s3://BUCKET/PREFIX");
        /// Where the metadata journal is: in files of the data directory, in the store beside the records, or in a
        /// PostgreSQL server (builds with the feature `postgres`). A cluster keeps the one that it began with
        journal: Option<JournalPlace> = unset(
            "what the store's claim names; for a new cluster `bucket` with a bucket, otherwise `local`; a data \
             directory that has a journal keeps it",
        ), text(JOURNAL, "`local`, `bucket` or postgres://USER:PASSWORD@HOST/DATABASE");
        /// Bytes of the data directory's disk that are kept for deletions, on a small disk a tenth of it. Within this
        /// reserve no records and files are written, within half of it only deletions are committed
        disk_reserve_bytes: u64 = DISK_RESERVE_BYTES, bytes(0..=1 << 40);
        /// Bytes that the files of the metadata journal take at most. On a local store records are there until they are
        /// merged
        journal_bytes: Option<u64> = unset("4 GiB, and an eighth of a disk below 32 GiB"),
            bytes(meta::RING_FILES_MIN * meta::RING_FILE_BYTES..=1 << 40);
        /// S3 endpoint, for stores other than Amazon's
        s3_endpoint: Option<String> = unset("Amazon's"), text("URL", "a URL, such as http://127.0.0.1:9000");
        /// S3 region
        s3_region: String = store::S3_REGION, text("REGION", "a region's name, such as eu-central-1");
        /// S3 access key id; used together with the secret
        s3_access_key_id: Option<String> = unset("what the machine offers, such as a role"),
            text("ID", "an access key id"), "AWS_ACCESS_KEY_ID";
        /// S3 secret access key; give it by the environment or the file rather than on the command line
        s3_secret_access_key: Option<Secret> = unset("what the machine offers, such as a role"),
            secret("SECRET", "the secret of the access key id"), "AWS_SECRET_ACCESS_KEY";
    }

    "Kafka" {
        /// Listen here for Kafka clients
        kafka: HostPort = kafka::LISTEN_ADDRESS, host_port();
        /// The address that Kafka clients are told to use
        advertised: Option<HostPort> = unset("the one listened on"), host_port();
        /// Kafka connections at once
        connections: usize = kafka::CONNECTIONS_MAX, count(1..=1 << 20);
        /// Kafka connections at once from one address
        connections_per_ip: usize = kafka::CONNECTIONS_PER_IP_MAX, count(1..=1 << 20);
        /// Largest Kafka request, in bytes
        frame_bytes: usize = kafka::FRAME_BYTES_MAX, bytes(64 << 10..=1 << 30);
        /// Delay of the first rebalance of an empty group, in milliseconds
        group_initial_delay_ms: Duration = Duration::from_millis(group::GROUP_INITIAL_REBALANCE_DELAY_MS),
            millis(0..=1_800_000);
        /// Committed offsets are kept so many minutes after the last member of a group has left, or nobody subscribes
        /// to the topic any more
        offsets_retention_minutes: u64 = group::OFFSETS_RETENTION.as_secs() / 60, count(1..=5_256_000);
    }

    "Topics" {
        /// Create a topic when a client first uses its name
        auto_create_topics: bool = kafka::AUTO_CREATE_TOPICS, switch();
        /// Partitions of a topic that is created without a number
        default_partitions: u32 = kafka::DEFAULT_PARTITIONS, count(1..=u64::from(PARTITIONS_MAX));
        /// How long topics keep their records that do not say it themselves with `retention.ms`, in milliseconds;
        /// 9223372036854775807 is for ever
        retention_ms: Duration = Duration::from_millis(log::RETENTION_MS.cast_unsigned()),
            millis(0..=log::UNLIMITED.cast_unsigned());
        /// Bytes that a partition keeps of topics that do not say it themselves with `retention.bytes`;
        /// 9223372036854775807 is all
        retention_bytes: u64 = log::UNLIMITED.cast_unsigned(), bytes(0..=log::UNLIMITED.cast_unsigned());
        /// How long deleted topics can come back that do not say it themselves with `floe.trash.ms`, in milliseconds; 0
        /// deletes for good, at once
        trash_ms: Duration = Duration::from_millis(log::TRASH_MS), millis(0..=log::UNLIMITED.cast_unsigned());
        /// Bytes of all deleted topics and removed records that can come back; beyond them, what went first goes for
        /// good; 9223372036854775807 is without a limit
        trash_bytes: u64 = log::TRASH_BYTES, bytes(0..=log::UNLIMITED.cast_unsigned());
        /// `floe.table` of topics that are created by use
        table_default: String = topic_config::TABLE_DEFAULT, one_of("KIND", &[
            ("off", "a topic and no table"),
            ("json", "its JSON records are rows"),
            ("raw", "its keys, values and headers are rows of bytes"),
        ]);
    }

    "Log" {
        /// Upload a WAL object at this age, in milliseconds
        linger_ms: Duration = per_store(log::LINGER_LOCAL, log::LINGER_REMOTE), millis(0..=60_000);
        /// Upload a WAL object at this size, in bytes
        object_bytes: usize = log::OBJECT_BYTES, bytes(64 << 10..=256 << 20);
        /// Uploads of WAL objects under way at once
        uploads: usize = per_store(log::UPLOADS_LOCAL, log::UPLOADS_REMOTE), count(1..=64);
        /// Memory for records that wait for their upload, in bytes; at least twice `frame_bytes`
        append_bytes: usize = log::BYTES_IN_FLIGHT_MAX, bytes(128 << 10..=1 << 40);
        /// Decompress each batch once before it is taken, to refuse those that no consumer could decode
        validate_compressed: bool = log::VALIDATE_COMPRESSED, switch();
        /// Memory for records that are read again, in bytes
        cache_bytes: usize = log::CACHE_TAIL_BYTES + log::CACHE_COLD_BYTES, bytes(1 << 20..=1 << 40);
    }

    "History" {
        /// Other readers of the table `system.commits` miss at most the commits of so much time, in milliseconds
        history_freshness_ms: Duration = history::FRESHNESS, millis(1_000..=604_800_000);
    }

    "HTTP and SQL" {
        /// Listen here for HTTP: SQL, Iceberg catalog, metrics, health
        http: HostPort = http::LISTEN_ADDRESS, host_port();
        /// Names under which HTTP is answered, beside IP addresses, `localhost` and the names in `http` and
        /// `advertised`; health checks are answered under any name. A name keeps web pages out that give this machine a
        /// name of their own
        http_allowed_hosts: Option<Hosts> = unset("no more names"),
            text("NAMES", "host names with commas between them; `*.example.com` is every name below example.com");
        /// Memory of all SQL queries together, in bytes. One that takes too much of it ends with an error; each of the
        /// processes that run queries also has some megabytes of its own
        sql_memory_bytes: usize = sql::MEMORY_BYTES_MAX, bytes(16 << 20..=1 << 40);
        /// Disk that all SQL queries together may use below `data` for sorting and grouping more than fits in memory,
        /// in bytes; at most half of what is free at start, and nothing while the disk is nearly full; 0 for none
        sql_spill_bytes: u64 = sql::SPILL_BYTES_MAX, bytes(0..=1 << 40);
        /// Records that are not in a table's Iceberg files yet are held in memory by a SQL query up to this many bytes
        /// of log; of more records, it decodes a part at a time, and so takes longer
        sql_tail_bytes: u64 = sql::TAIL_HELD_BYTES, bytes(0..=1 << 40);
        /// End a SQL query that takes longer, in milliseconds
        sql_timeout_ms: Duration = sql::QUERY_TIME_MAX, millis(1..=86_400_000);
        /// Run SQL queries in the broker's own process. Then a query may take more than `sql_memory_bytes`, and one
        /// that ends its process ends the broker. On other systems than Linux it is always so
        sql_in_process: bool = sql::IN_PROCESS, switch();
    }

    "Messages" {
        /// What is logged to standard error
        log: LogFilter = "info", text("FILTER", "a tracing filter, such as `info` or `warn,floe_lake=debug`");
        /// How log lines look
        log_format: LogFormat = "text", one_of("FORMAT", &[
            ("text", "for people"),
            ("json", "one JSON object a line"),
        ]);
    }
}
