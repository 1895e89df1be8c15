//! Topic settings: one table with names, types, defaults, checks and documentation.
//!
//! The table feeds CreateTopics, AlterConfigs, DescribeConfigs and the typed view [`TopicConfig`]. Kafka's names,
//! types and defaults are those of Apache Kafka 4 (`TopicConfig`, `LogConfig`), so Kafka's tools describe a topic
//! as usual. Where Floe has no use for a setting, its row says so. docs/topic-settings.md is made from this table.

use std::collections::BTreeMap;

/// The type of a setting. The numbers are those of Kafka's DescribeConfigs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum Kind {
    /// `true` or `false`.
    Boolean = 1,
    /// Text.
    String = 2,
    /// 32 bits, signed.
    Int = 3,
    /// 64 bits, signed.
    Long = 5,
    /// A decimal number; Kafka calls it double.
    Double = 6,
    /// Texts, separated by commas.
    List = 7,
}

/// The values that a setting accepts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Check {
    Bool,
    Range(i64, i64),
    Ratio,
    OneOf(&'static [&'static str]),
    ListOf(&'static [&'static str]),
    /// Kafka's lists of `partition:broker` or `*`; stored, not used.
    Replicas,
    /// One value, and why no other.
    Only(&'static str, &'static str),
}

/// One setting of a topic.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The canonical name.
    pub name: &'static str,
    /// Other accepted names.
    pub aliases: &'static [&'static str],
    /// The broker setting that Kafka names as the origin of the default; empty for Floe's own settings.
    pub broker_name: &'static str,
    /// The type that DescribeConfigs reports.
    pub kind: Kind,
    /// The value while none is set.
    pub default: &'static str,
    /// Whether Floe acts on it.
    pub effect: Effect,
    /// What it does, for people.
    pub doc: &'static str,
    check: Check,
}

/// Whether Floe acts on a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It does what it says.
    Works,
    /// It is checked, stored and described, so that tools which set it work. Nothing else follows from it.
    Kept,
    /// Only its default is taken. Any other value is refused with the reason.
    OnlyDefault,
}

impl Effect {
    /// The words of docs/topic-settings.md.
    pub fn words(self) -> &'static str {
        match self {
            Effect::Works => "works",
            Effect::Kept => "kept for tools only",
            Effect::OnlyDefault => "other values are refused",
        }
    }
}

/// Why settings were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No setting has this name.
    #[error("unknown topic setting '{0}'; docs/topic-settings.md has all")]
    UnknownName(String),
    /// The setting does not take this value.
    #[error("topic setting {name} cannot be '{value}': {reason}")]
    InvalidValue {
        /// The canonical name of the setting.
        name: &'static str,
        /// The refused value.
        value: String,
        /// The values that the setting accepts.
        reason: String,
    },
    /// A setting was given twice, under two names.
    #[error("topic setting {0} is given twice, under two of its names")]
    Twice(&'static str),
}

const INT: (i64, i64) = (i32::MIN as i64, i32::MAX as i64);
const INT_MAX: i64 = INT.1;
const UNUSED: &str = "Accepted for the sake of tools, of no use here: objects are durable and written once.";

/// Defines a constructor of rows with one effect, so that a row begins with what it does.
macro_rules! rows_that {
    ($name:ident, $effect:expr) => {
        const fn $name(
            name: &'static str,
            broker_name: &'static str,
            kind: Kind,
            default: &'static str,
            check: Check,
            doc: &'static str,
        ) -> Setting {
            Setting { name, aliases: &[], broker_name, kind, default, effect: $effect, doc, check }
        }
    };
}
rows_that!(works, Effect::Works);
rows_that!(kept, Effect::Kept);
rows_that!(only, Effect::OnlyDefault);

/// The default of `floe.table`: no table.
pub const TABLE_DEFAULT: &str = "off";

/// Every setting of a topic, sorted by name.
#[rustfmt::skip]
pub const TOPIC_CONFIGS: &[Setting] = &[
    works("cleanup.policy", "log.cleanup.policy", Kind::List, "delete", Check::ListOf(&["delete", "compact"]),
        "What happens to old records: with delete they go by retention.ms and retention.bytes. With compact, of each key the last record stays, and records without a key are refused; those that came before go. With both, records go either way."),
    kept("compression.gzip.level", "compression.gzip.level", Kind::Int, "-1", Check::Range(-1, 9), UNUSED),
    kept("compression.lz4.level", "compression.lz4.level", Kind::Int, "9", Check::Range(1, 17), UNUSED),
    only("compression.type", "compression.type", Kind::String, "producer",
        Check::Only("producer", "the broker keeps batches as producers compress them, set compression.type of the producer"),
        "Batches are kept as the producer compressed them; the broker never compresses again."),
    kept("compression.zstd.level", "compression.zstd.level", Kind::Int, "3", Check::Range(-131_072, 22), UNUSED),
    works("delete.retention.ms", "log.cleaner.delete.retention.ms", Kind::Long, "86400000", Check::Range(0, i64::MAX),
        "How long compaction keeps a tombstone, a record without a value, in milliseconds from the first pass on that meets it."),
    kept("file.delete.delay.ms", "log.segment.delete.delay.ms", Kind::Long, "60000", Check::Range(0, i64::MAX), UNUSED),
    works("floe.retention.wait.for.views", "", Kind::Boolean, "false", Check::Bool,
        "Whether retention and compaction wait until the topic's table has read the records. Without, they go, and the table says how many it lost to retention. DeleteRecords waits for nothing."),
    works("floe.table", "", Kind::String, TABLE_DEFAULT, Check::OneOf(&["off", "json", "raw"]),
        "Whether the topic is an Iceberg table as well: 'json' makes columns of the fields of JSON records, 'raw' keeps key, value and headers as bytes."),
    works("floe.table.bad.record", "", Kind::String, "dead-letter", Check::OneOf(&["dead-letter", "skip"]),
        "What happens to a record that does not fit the table: it goes to the topic <name>.dead-letter with the reason, or is skipped. Both are counted."),
    works("floe.table.file.bytes", "", Kind::Long, "134217728", Check::Range(1 << 20, 1 << 34),
        "Size in bytes at which a data file of the table is closed. When so much has gathered in the log, it becomes files before the freshness asks for it."),
    works("floe.table.freshness.ms", "", Kind::Long, "10000", Check::Range(100, 86_400_000),
        "How old a record may be before it is in the table, in milliseconds. SQL sees it at once either way. It gets there sooner when floe.table.file.bytes, or 64 MiB of log, has gathered."),
    works("floe.trash.bytes", "", Kind::Long, "9223372036854775807", Check::Range(0, i64::MAX),
        "How many bytes the records that DeleteRecords and retention took may have that can come back, together with the topic itself once it is deleted. Beyond that, what went first goes for good."),
    works("floe.trash.ms", "", Kind::Long, "86400000", Check::Range(0, i64::MAX),
        "How long the topic can come back after its deletion, in milliseconds, with its records, settings, committed offsets and table: floe topic undelete. 0 deletes it for good, at once. Where it is set, the records that DeleteRecords and retention take can come back as another topic for as long (floe topic undelete NAME --as OTHER); the default holds for deleted topics only."),
    kept("flush.messages", "log.flush.interval.messages", Kind::Long, "9223372036854775807", Check::Range(1, i64::MAX),
        "Of no use here: every record is synced before it is acknowledged."),
    kept("flush.ms", "log.flush.interval.ms", Kind::Long, "9223372036854775807", Check::Range(0, i64::MAX),
        "Of no use here: every record is synced before it is acknowledged."),
    kept("follower.replication.throttled.replicas", "", Kind::List, "", Check::Replicas, UNUSED),
    kept("index.interval.bytes", "log.index.interval.bytes", Kind::Int, "4096", Check::Range(0, INT_MAX), UNUSED),
    kept("leader.replication.throttled.replicas", "", Kind::List, "", Check::Replicas, UNUSED),
    kept("local.retention.bytes", "log.local.retention.bytes", Kind::Long, "-2", Check::Range(-2, i64::MAX), UNUSED),
    kept("local.retention.ms", "log.local.retention.ms", Kind::Long, "-2", Check::Range(-2, i64::MAX), UNUSED),
    works("max.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms", Kind::Long, "9223372036854775807",
        Check::Range(1, i64::MAX), "The longest time a record stays out of compaction, in milliseconds, whatever the ratio. Not less than min.compaction.lag.ms."),
    works("max.message.bytes", "message.max.bytes", Kind::Int, "1048588", Check::Range(0, INT_MAX),
        "The largest batch that is taken, in bytes, after compression."),
    works("message.timestamp.after.max.ms", "log.message.timestamp.after.max.ms", Kind::Long, "3600000",
        Check::Range(0, i64::MAX), "How far a record's timestamp may be ahead of the broker's clock, in milliseconds; one further ahead is refused."),
    works("message.timestamp.before.max.ms", "log.message.timestamp.before.max.ms", Kind::Long, "9223372036854775807",
        Check::Range(0, i64::MAX), "How far a record's timestamp may be behind the broker's clock, in milliseconds; one further behind is refused."),
    works("message.timestamp.type", "log.message.timestamp.type", Kind::String, "CreateTime",
        Check::OneOf(&["CreateTime", "LogAppendTime"]),
        "Whether a record carries the time of the client or that of the broker."),
    works("min.cleanable.dirty.ratio", "log.cleaner.min.cleanable.ratio", Kind::Double, "0.5", Check::Ratio,
        "A partition is compacted when more than this share of its bytes has come since the last time. Less than 1 MiB waits up to 10 minutes."),
    works("min.compaction.lag.ms", "log.cleaner.min.compaction.lag.ms", Kind::Long, "0", Check::Range(0, i64::MAX),
        "The shortest time a record stays out of compaction, in milliseconds, by its timestamp. Not more than max.compaction.lag.ms."),
    kept("min.insync.replicas", "min.insync.replicas", Kind::Int, "1", Check::Range(1, INT_MAX),
        "Of no use here: the store is as durable as it is, whatever is set."),
    kept("preallocate", "log.preallocate", Kind::Boolean, "false", Check::Bool, UNUSED),
    kept("remote.copy.disable", "", Kind::Boolean, "false", Check::Bool, UNUSED),
    kept("remote.log.delete.on.disable", "", Kind::Boolean, "false", Check::Bool, UNUSED),
    only("remote.storage.enable", "", Kind::Boolean, "false",
        Check::Only("false", "there is no second tier: choose the store of all records with the broker's setting store"),
        "Kafka's second tier. Here one store holds all records."),
    works("retention.bytes", "log.retention.bytes", Kind::Long, "-1", Check::Range(-1, i64::MAX),
        "How many bytes a partition keeps at least, -1 for all. Above that, the oldest records go."),
    works("retention.ms", "log.retention.ms", Kind::Long, "604800000", Check::Range(-1, i64::MAX),
        "How long records are kept in milliseconds, by their timestamps; -1 for ever."),
    kept("segment.bytes", "log.segment.bytes", Kind::Int, "1073741824", Check::Range(14, INT_MAX), UNUSED),
    kept("segment.index.bytes", "log.index.size.max.bytes", Kind::Int, "10485760", Check::Range(4, INT_MAX), UNUSED),
    kept("segment.jitter.ms", "log.roll.jitter.ms", Kind::Long, "0", Check::Range(0, i64::MAX), UNUSED),
    kept("segment.ms", "log.roll.ms", Kind::Long, "604800000", Check::Range(1, i64::MAX), UNUSED),
    kept("unclean.leader.election.enable", "unclean.leader.election.enable", Kind::Boolean, "false", Check::Bool,
        UNUSED),
];

/// The setting with a name or alias.
pub fn setting(name: &str) -> Option<&'static Setting> {
    TOPIC_CONFIGS.iter().find(|setting| setting.name == name || setting.aliases.contains(&name))
}

/// Checks settings and returns them under their canonical names.
///
/// # Errors
/// The first [`ConfigError`] in the order of names.
pub fn check(configs: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut checked = BTreeMap::new();
    for (name, value) in configs {
        let setting = setting(name).ok_or_else(|| ConfigError::UnknownName(name.clone()))?;
        setting.check(value)?;
        if checked.insert(setting.name.to_owned(), value.clone()).is_some() {
            return Err(ConfigError::Twice(setting.name));
        }
    }
    check_lags(&checked)?;
    Ok(checked)
}

/// A record would never be old enough to be compacted before it has waited for too long.
fn check_lags(configs: &BTreeMap<String, String>) -> Result<(), ConfigError> {
    let (least, most) = (number(configs, "min.compaction.lag.ms"), number(configs, "max.compaction.lag.ms"));
    match configs.get("min.compaction.lag.ms").filter(|_| least > most) {
        Some(value) => Err(ConfigError::InvalidValue {
            name: "min.compaction.lag.ms",
            value: value.clone(),
            reason: format!("it takes at most max.compaction.lag.ms, which is {most}"),
        }),
        // Its default is 0.
        None => Ok(()),
    }
}

impl Setting {
    /// Checks one value.
    ///
    /// # Errors
    /// [`ConfigError::InvalidValue`] with the values that the setting accepts.
    pub fn check(&self, value: &str) -> Result<(), ConfigError> {
        self.reason(value).map_or(Ok(()), |reason| {
            Err(ConfigError::InvalidValue { name: self.name, value: value.to_owned(), reason })
        })
    }

    /// The value in force: the one that is set, or the default.
    pub fn value<'c>(&self, configs: &'c BTreeMap<String, String>) -> &'c str {
        configs.get(self.name).map_or(self.default, String::as_str)
    }

    /// Why a value is refused; `None` if it is accepted.
    fn reason(&self, value: &str) -> Option<String> {
        match self.check {
            Check::Bool if matches!(value, "true" | "false") => None,
            Check::Bool => Some("it takes true or false".to_owned()),
            Check::Range(min, max) => match value.trim().parse::<i64>() {
                Ok(number) if (min..=max).contains(&number) => None,
                _ => Some(format!("it takes a whole number from {min} to {max}, such as {}", self.default)),
            },
            Check::Ratio => match value.trim().parse::<f64>() {
                Ok(number) if (0.0..=1.0).contains(&number) => None,
                _ => Some(format!("it takes a number from 0 to 1, such as {}", self.default)),
            },
            Check::OneOf(values) if values.contains(&value) => None,
            Check::OneOf(values) => Some(format!("it takes one of {}", values.join(", "))),
            Check::ListOf(values) if value.split(',').all(|item| values.contains(&item.trim())) => None,
            Check::ListOf(values) => Some(format!("it takes a list out of {}", values.join(", "))),
            Check::Only(only, _) if value == only => None,
            Check::Only(only, why) => Some(format!("it takes only {only}: {why}")),
            Check::Replicas => {
                let legal = |c: char| c.is_ascii_digit() || matches!(c, ',' | ':' | '*');
                let fits = value.chars().all(legal);
                (!fits).then(|| "it takes a list of partition:broker, or *".to_owned())
            }
        }
    }
}

/// How a topic is also a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableMode {
    /// The topic is not a table.
    Off,
    /// Columns from the fields of JSON records.
    Json,
    /// Key, value and headers as bytes.
    Raw,
}

/// What happens to a record that does not fit the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRecord {
    /// The record goes to the dead-letter topic.
    DeadLetter,
    /// The record is counted and left out.
    Skip,
}

/// How far the timestamps of records may be from the broker's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeBounds {
    /// Milliseconds ahead of it.
    pub after_max_ms: i64,
    /// Milliseconds behind it.
    pub before_max_ms: i64,
}

/// The typed settings of a topic that Floe acts on.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    /// The largest batch in bytes.
    pub max_message_bytes: usize,
    /// Whether the broker's time replaces the records' timestamps.
    pub log_append_time: bool,
    /// How far timestamps may be from the broker's clock.
    pub times: TimeBounds,
    /// Whether the topic is to be compacted by key.
    pub compacted: bool,
    /// Whether old records may be deleted.
    pub deletes: bool,
    /// The share of a partition's bytes that has come since it was compacted, from which on it is again.
    pub min_cleanable_dirty_ratio: f64,
    /// How long records stay out of compaction at least, in milliseconds.
    pub min_compaction_lag_ms: i64,
    /// How long they do at most, in milliseconds.
    pub max_compaction_lag_ms: i64,
    /// How long compaction keeps tombstones, in milliseconds.
    pub delete_retention_ms: i64,
    /// How long records are kept in milliseconds, -1 for ever; none if the broker's default applies.
    pub retention_ms: Option<i64>,
    /// How many bytes a partition keeps at least, -1 for all; none if the broker's default applies.
    pub retention_bytes: Option<i64>,
    /// Whether retention waits for the topic's views.
    pub retention_waits: bool,
    /// How long the topic can come back after its deletion, in milliseconds; none if the broker's default applies.
    pub trash_ms: Option<u64>,
    /// Bytes that may come back of it; none for no limit of its own.
    pub trash_bytes: Option<u64>,
    /// Whether and how the topic is a table.
    pub table: TableMode,
    /// The oldest age in milliseconds at which a record may still be missing from the table.
    pub table_freshness_ms: u64,
    /// Bytes at which a data file of the table closes.
    pub table_file_bytes: u64,
    /// What happens to records that do not fit the table.
    pub table_bad_record: BadRecord,
}

impl TopicConfig {
    /// The typed view of a topic's settings. A stored value that this version cannot read counts as not set.
    pub fn of_configs(configs: &BTreeMap<String, String>) -> TopicConfig {
        TopicConfig {
            max_message_bytes: number(configs, "max.message.bytes") as usize,
            log_append_time: text(configs, "message.timestamp.type") == "LogAppendTime",
            times: TimeBounds {
                after_max_ms: number(configs, "message.timestamp.after.max.ms").cast_signed(),
                before_max_ms: number(configs, "message.timestamp.before.max.ms").cast_signed(),
            },
            compacted: cleans(configs, "compact"),
            deletes: cleans(configs, "delete"),
            min_cleanable_dirty_ratio: ratio(configs, "min.cleanable.dirty.ratio"),
            min_compaction_lag_ms: number(configs, "min.compaction.lag.ms").cast_signed(),
            max_compaction_lag_ms: number(configs, "max.compaction.lag.ms").cast_signed(),
            delete_retention_ms: number(configs, "delete.retention.ms").cast_signed(),
            retention_ms: set(configs, "retention.ms"),
            retention_bytes: set(configs, "retention.bytes"),
            retention_waits: text(configs, "floe.retention.wait.for.views") == "true",
            trash_ms: set(configs, "floe.trash.ms").and_then(|ms| u64::try_from(ms).ok()),
            trash_bytes: set(configs, "floe.trash.bytes").and_then(|bytes| u64::try_from(bytes).ok()),
            table: match text(configs, "floe.table") {
                "json" => TableMode::Json,
                "raw" => TableMode::Raw,
                _ => TableMode::Off,
            },
            table_freshness_ms: number(configs, "floe.table.freshness.ms"),
            table_file_bytes: number(configs, "floe.table.file.bytes"),
            table_bad_record: match text(configs, "floe.table.bad.record") {
                "skip" => BadRecord::Skip,
                _ => BadRecord::DeadLetter,
            },
        }
    }
}

fn cleans(configs: &BTreeMap<String, String>, policy: &str) -> bool {
    text(configs, "cleanup.policy").split(',').any(|item| item.trim() == policy)
}

/// The number that is set on the topic itself.
fn set(configs: &BTreeMap<String, String>, name: &str) -> Option<i64> {
    configs.get(name)?.trim().parse().ok()
}

fn text<'c>(configs: &'c BTreeMap<String, String>, name: &str) -> &'c str {
    setting(name).expect("the table has every setting that is acted on").value(configs)
}

fn number(configs: &BTreeMap<String, String>, name: &str) -> u64 {
    let setting = setting(name).expect("the table has every setting that is acted on");
    let parsed = setting.value(configs).trim().parse().ok();
    parsed.unwrap_or_else(|| setting.default.parse().expect("the table's defaults pass their own checks"))
}

/// A number from 0 to 1.
fn ratio(configs: &BTreeMap<String, String>, name: &str) -> f64 {
    let setting = setting(name).expect("the table has every setting that is acted on");
    let parsed = setting.value(configs).trim().parse().ok();
    parsed.unwrap_or_else(|| setting.default.parse().expect("the table's defaults pass their own checks"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_table_is_sorted_documented_and_its_defaults_pass() {
        for pair in TOPIC_CONFIGS.windows(2) {
            assert!(pair[0].name < pair[1].name, "{} comes after {}", pair[0].name, pair[1].name);
        }
        for setting in TOPIC_CONFIGS {
            assert!(!setting.doc.is_empty(), "{}", setting.name);
            assert_eq!(setting.check(setting.default), Ok(()), "{}", setting.name);
            let fits = match setting.kind {
                Kind::Int => matches!(setting.check, Check::Range(min, max) if min >= INT.0 && max <= INT.1),
                Kind::Long => matches!(setting.check, Check::Range(..)),
                Kind::Boolean => matches!(setting.check, Check::Bool | Check::Only("true" | "false", _)),
                Kind::Double => setting.check == Check::Ratio,
                Kind::String => matches!(setting.check, Check::OneOf(_) | Check::Only(..)),
                Kind::List => matches!(setting.check, Check::ListOf(_) | Check::Replicas),
            };
            assert!(fits, "{}: its check is not one of its type", setting.name);
        }
    }

    #[test]
    fn values_are_checked() {
        for (name, value) in [
            ("retention.ms", "-2"),
            ("retention.ms", "1 day"),
            ("retention.ms", "9223372036854775808"),
            ("max.message.bytes", "2147483648"),
            ("cleanup.policy", "compact,erase"),
            ("cleanup.policy", ""),
            ("compression.type", "brotli"),
            ("compression.type", "zstd"),
            ("remote.storage.enable", "true"),
            ("preallocate", "yes"),
            ("min.cleanable.dirty.ratio", "NaN"),
            ("floe.table", "JSON"),
            ("floe.trash.ms", "-1"),
            ("floe.trash.ms", "1d"),
            ("leader.replication.throttled.replicas", "all"),
        ] {
            let error = check(&configs(&[(name, value)])).unwrap_err();
            assert!(matches!(error, ConfigError::InvalidValue { .. }), "{name}={value}: {error}");
        }
        let told = check(&configs(&[("floe.trash.ms", "1d")])).unwrap_err().to_string();
        let all = "topic setting floe.trash.ms cannot be '1d': it takes a whole number from 0 to \
                   9223372036854775807, such as 86400000";
        assert_eq!(told, all);
        let lags = check(&configs(&[("min.compaction.lag.ms", "5000"), ("max.compaction.lag.ms", "4000")]));
        let told = lags.unwrap_err().to_string();
        let most = "it takes at most max.compaction.lag.ms, which is 4000";
        assert_eq!(told, format!("topic setting min.compaction.lag.ms cannot be '5000': {most}"));
        let ratio = check(&configs(&[("min.cleanable.dirty.ratio", "2")])).unwrap_err().to_string();
        assert!(ratio.ends_with("it takes a number from 0 to 1, such as 0.5"), "{ratio}");
        let unknown = check(&configs(&[("retention", "1")]));
        assert_eq!(unknown, Err(ConfigError::UnknownName("retention".to_owned())));
        let good = configs(&[("cleanup.policy", "compact,delete"), ("retention.ms", "-1")]);
        assert_eq!(check(&good), Ok(good));
    }

    #[test]
    fn the_typed_view_falls_back_to_defaults() {
        let default = TopicConfig::of_configs(&BTreeMap::new());
        assert_eq!(default.max_message_bytes, 1_048_588);
        assert_eq!(default.table, TableMode::Off);
        assert!(!default.log_append_time);
        let set = configs(&[
            ("floe.table", "json"),
            ("floe.table.bad.record", "skip"),
            ("message.timestamp.type", "LogAppendTime"),
            ("max.message.bytes", "damaged"),
            ("cleanup.policy", "compact, delete"),
            ("retention.ms", "-1"),
            ("retention.bytes", "damaged"),
        ]);
        let view = TopicConfig::of_configs(&set);
        assert_eq!((view.table, view.table_bad_record), (TableMode::Json, BadRecord::Skip));
        assert!(view.log_append_time && view.deletes && view.compacted && !default.compacted);
        assert_eq!(view.max_message_bytes, 1_048_588);
        assert_eq!((view.retention_ms, view.retention_bytes), (Some(-1), None));
    }
}
