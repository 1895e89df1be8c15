//! What can be typed: commands and their flags.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use floe_http::limits as http;
use floe_kafka::limits as kafka;

use crate::bench::args::BenchArgs;
use crate::settings::{Typed, TypedForCheck, TypedForDemo};

/// Records in through the Kafka protocol, stored once, read as topics, Iceberg tables and SQL.
#[derive(Debug, Parser)]
#[command(name = "floe", version, propagate_version = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a broker.
    #[command(after_help = "\
Examples:
  floe serve              data in ./floe-data, Kafka on port 9092, HTTP on 8080
  floe serve --data /var/lib/floe --table-default json
  floe serve --kafka 0.0.0.0:9092 --advertised broker1.example:9092
  floe serve --store s3://bucket/prefix       records and journal in the bucket: the machine may be lost
  floe serve --store s3://bucket/prefix --s3-endpoint http://127.0.0.1:9000
  floe serve --store s3://bucket/prefix --journal local    the journal in --data, which then must be backed up
  floe serve --config floe.toml --print-config    what would be used, and stop

Each setting is also a key of the file: --linger-ms 5 is linger_ms = 5 there.
Flags win over the environment, the environment wins over the file.")]
    Serve(Box<ServeArgs>),
    /// Stream a month of flights through an embedded broker and query them.
    #[command(after_help = "\
Examples:
  floe demo                     in a temporary directory, which is removed at the end
  floe demo --keep              leave the broker up, to try kcat, PyIceberg and SQL on it
  floe demo --data ./flights    keep the data")]
    Demo(DemoArgs),
    /// Run SQL on a running broker; without a statement, a prompt.
    #[command(after_help = "\
Examples:
  floe sql \"SHOW TABLES\"
  floe sql \"SELECT carrier, count(*) FROM flights GROUP BY carrier\" --format csv
  echo \"SELECT 1\" | floe sql
  floe sql                      a prompt; \\q or Ctrl-D ends it")]
    Sql(SqlArgs),
    /// List, create, describe, mend, delete and undelete topics on a running broker.
    #[command(after_help = "\
Examples:
  floe topic create orders --partitions 4 --config floe.table=json
  floe topic list --json
  floe topic describe orders
  floe topic drop-columns orders 'user-*'
  floe topic delete orders
  floe topic list --deleted
  floe topic undelete orders
  floe topic purge orders")]
    Topic(TopicArgs),
    /// Mend the table of a topic on a running broker.
    #[command(after_help = "\
Examples:
  floe table rebuild orders           make a damaged table anew from the log
  floe table rebuild orders --lose    even if rows that the log does not have any more are damaged")]
    Table(TableArgs),
    /// Say whether a data directory and its store are whole and belong together, without starting.
    #[command(after_help = "\
Examples:
  floe check ./floe-data            of a broker that is stopped, or of a copy
  floe check ./floe-data --repair   mend what can be mended without losing anything
  floe check ./floe-data --store s3://bucket/prefix
  floe check s3://bucket/prefix     if the journal is in the bucket, too

Ends with an error if a fault is found. docs/reliability.md says what each fault means.")]
    Check(Box<CheckArgs>),
    /// Measure a broker that speaks Kafka's protocol: write to it, read from it, or both.
    #[command(after_help = "\
Examples:
  floe bench produce --seconds 30                 as fast as it goes
  floe bench produce --rate 10MiB --warm-up 5     at a rate, with honest latencies
  floe bench consume                              read it all back
  floe bench latency --rate 200                   from one client to another
  floe bench mixed --bootstrap kafka.example:9092 --json

It writes to a topic of its own, floe-bench, unless --topic says another. docs/bench.md says how it counts.")]
    Bench(Box<BenchArgs>),
    /// Run the SQL statements of a broker, which starts this command itself.
    #[command(hide = true)]
    SqlWorker,
}

/// `floe check`.
#[derive(Debug, Args)]
#[command(next_line_help = true)]
pub(crate) struct CheckArgs {
    /// The data directory, or `s3://bucket/prefix` for a bucket. If the journal is not in the bucket, `--data` says
    /// where it is.
    pub(crate) place: Option<String>,
    /// Mend what can be mended without losing anything.
    #[arg(long)]
    pub(crate) repair: bool,
    /// Do not read the bytes of segments, nor compare batches one by one.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Read settings from this TOML file.
    #[arg(long, env = "FLOE_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) settings: TypedForCheck,
}

/// `floe serve`.
#[derive(Debug, Args)]
#[command(next_line_help = true)]
pub(crate) struct ServeArgs {
    /// Read settings from this TOML file.
    #[arg(long, env = "FLOE_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print the settings that would be used, as TOML, and stop.
    #[arg(long)]
    pub(crate) print_config: bool,
    #[command(flatten)]
    pub(crate) settings: Typed,
}

/// `floe demo`.
#[derive(Debug, Args)]
#[command(next_line_help = true)]
pub(crate) struct DemoArgs {
    #[command(flatten)]
    pub(crate) settings: TypedForDemo,
    /// Leave the broker up at the end, until Ctrl-C.
    #[arg(long)]
    pub(crate) keep: bool,
    /// How long the streaming shall take; 0 is as fast as it goes.
    #[arg(long, value_name = "SECONDS", default_value_t = 6)]
    pub(crate) seconds: u64,
}

/// How a result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ResultFormat {
    /// Aligned columns, for people.
    Table,
    /// Comma-separated values with a header.
    Csv,
    /// One JSON object a line.
    Json,
}

/// `floe sql`.
#[derive(Debug, Args)]
pub(crate) struct SqlArgs {
    /// The statement; without it, standard input is read, or a prompt opens on a terminal.
    pub(crate) statement: Option<String>,
    /// How to print the result [default: table]
    #[arg(long, value_enum)]
    pub(crate) format: Option<ResultFormat>,
    /// The same as --format json.
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
    /// The broker's HTTP address.
    #[arg(long, env = "FLOE_SERVER", value_name = "URL", default_value_t = format!("http://{}", http::LISTEN_ADDRESS))]
    pub(crate) server: String,
}

/// `floe topic`.
#[derive(Debug, Args)]
pub(crate) struct TopicArgs {
    /// The broker's Kafka address.
    #[arg(
        long,
        env = "FLOE_BOOTSTRAP",
        value_name = "HOST:PORT",
        default_value = kafka::LISTEN_ADDRESS,
        global = true
    )]
    pub(crate) bootstrap: String,
    /// Print JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) action: TopicAction,
}

/// Where a broker answers what the Kafka protocol has no words for: deleted topics, tables, damage.
#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    #[arg(
        long = "server",
        env = "FLOE_SERVER",
        value_name = "URL",
        help = format!(
            "The broker's HTTP address [default: http://{}, unless --bootstrap names another broker]",
            http::LISTEN_ADDRESS
        )
    )]
    given: Option<String>,
}

impl ServerArgs {
    /// The broker that is meant. A Kafka address that was given does not tell the HTTP address of the same broker, and
    /// the broker at the default address may be another one.
    ///
    /// # Errors
    /// Only the Kafka address was given, and it is not the default.
    pub(crate) fn url(&self, bootstrap: &str) -> anyhow::Result<String> {
        match &self.given {
            Some(given) => Ok(given.clone()),
            None if bootstrap == kafka::LISTEN_ADDRESS => Ok(format!("http://{}", http::LISTEN_ADDRESS)),
            None => anyhow::bail!(
                "this asks the broker over HTTP, and --bootstrap {bootstrap} does not tell where it answers that: add \
                 --server URL, for example --server http://{}",
                http::LISTEN_ADDRESS
            ),
        }
    }
}

/// What to do with topics.
#[derive(Debug, Subcommand)]
pub(crate) enum TopicAction {
    /// List the topics.
    List {
        /// List instead what can come back, with ids: deleted topics, and records that DeleteRecords or retention took.
        #[arg(long)]
        deleted: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Create a topic.
    Create {
        /// Its name.
        name: String,
        /// How many partitions.
        #[arg(long, default_value_t = 1)]
        partitions: u32,
        /// A setting of the topic, for example floe.table=json; may be repeated.
        #[arg(long = "config", value_name = "KEY=VALUE")]
        configs: Vec<String>,
    },
    /// Show a topic's partitions and settings, and how its table is doing.
    Describe {
        /// Its name.
        name: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Drop columns of a topic's table, for keys that were values and used its columns up.
    ///
    /// The table loses the columns of these top-level keys; the records keep them. A key that comes again gets a new
    /// column.
    DropColumns {
        /// The topic.
        name: String,
        /// Keys; `*` stands for any text.
        #[arg(required = true)]
        keys: Vec<String>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Delete a topic and its table.
    ///
    /// It can come back for a while, with everything that it had: `floe topic undelete`. How long that is says its
    /// setting floe.trash.ms, or trash_ms of the broker: one day, unless it is changed.
    Delete {
        /// Its name.
        name: String,
    },
    /// Bring a deleted topic back.
    ///
    /// It comes back as it was: records and offsets, settings, id, committed offsets of its groups, and its table. Of
    /// several deleted topics with the name, that is the one that was deleted last.
    ///
    /// Records that DeleteRecords or retention took of a topic that sets floe.trash.ms come back as another topic, with
    /// their offsets: --as gives its name, and --id says which, if there is more than one part of them or if a topic of
    /// the name was deleted as well. Retention does not take them again.
    #[command(after_help = "\
Examples:
  floe topic list --deleted               what can come back, and until when
  floe topic undelete orders
  floe topic undelete orders --as orders-2    if the name is taken by now
  floe topic undelete orders --id 3fa8…       an earlier one of that name
  floe topic undelete orders --as removed --id 5c01…    records that DeleteRecords or retention took")]
    Undelete {
        /// The name that it had.
        name: String,
        /// The name that it is to have, if another.
        #[arg(long = "as", value_name = "OTHER")]
        new_name: Option<String>,
        /// Its id, to choose among several with the name.
        #[arg(long)]
        id: Option<String>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Let deleted topics and removed records go for good now, to free their room.
    ///
    /// Their objects leave the store some ten minutes later, when no reader needs them any more.
    #[command(after_help = "\
Examples:
  floe topic purge orders          all deleted topics of that name, and all that was removed from one
  floe topic purge orders --id 3fa8…
  floe topic purge --all           empties the trash, for example when the disk is full")]
    Purge {
        /// The name that they had.
        #[arg(required_unless_present = "all")]
        name: Option<String>,
        /// All deleted topics and removed records.
        #[arg(long, conflicts_with_all = ["name", "id"])]
        all: bool,
        /// The id of one of them.
        #[arg(long, requires = "name")]
        id: Option<String>,
        #[command(flatten)]
        server: ServerArgs,
    },
}

/// `floe table`.
#[derive(Debug, Args)]
pub(crate) struct TableArgs {
    /// The broker's HTTP address.
    #[arg(
        long,
        env = "FLOE_SERVER",
        value_name = "URL",
        default_value_t = format!("http://{}", http::LISTEN_ADDRESS),
        global = true
    )]
    pub(crate) server: String,
    /// Print JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) action: TableAction,
}

/// What to do with a table.
#[derive(Debug, Subcommand)]
pub(crate) enum TableAction {
    /// Make a table anew from the log, and wait until it is done.
    ///
    /// The table goes on meanwhile, as far as it can. The new one takes its place when it has read as far. Rows that
    /// the log does not have any more are kept if their files verify; otherwise nothing is done, unless --lose allows
    /// it.
    Rebuild {
        /// The topic.
        name: String,
        /// Do it although rows are lost.
        #[arg(long)]
        lose: bool,
        /// Do not wait until it is done.
        #[arg(long)]
        no_wait: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kafka_address_alone_does_not_tell_the_broker_over_http() {
        let given = |given: Option<&str>| ServerArgs { given: given.map(str::to_owned) };
        let preset = format!("http://{}", http::LISTEN_ADDRESS);
        assert_eq!(given(None).url(kafka::LISTEN_ADDRESS).expect("the default broker"), preset);
        let refused = given(None).url("127.0.0.1:9999").expect_err("it may be another broker").to_string();
        assert!(refused.contains("127.0.0.1:9999") && refused.contains("--server"), "{refused}");
        assert_eq!(given(Some("http://b:1")).url("b:9092").expect("it is named"), "http://b:1");
    }

    #[test]
    fn a_purge_names_a_topic_or_says_that_it_is_of_all() {
        let purge = |more: &[&str]| Cli::try_parse_from([&["floe", "topic", "purge"], more].concat()).is_ok();
        assert!(purge(&["orders"]) && purge(&["orders", "--id", "3fa8"]) && purge(&["--all"]));
        assert!(!purge(&[]) && !purge(&["orders", "--all"]) && !purge(&["--all", "--id", "3fa8"]));
    }
}
