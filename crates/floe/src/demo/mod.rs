//! `floe demo`: a stream in, a table out, on real data.
//!
//! It starts an embedded broker and streams the flights of January 2013 and the airlines through the Kafka protocol, as
//! any client would. Meanwhile it shows how many flights SQL counts and how many Iceberg snapshots there are. It ends
//! with three queries and checks their answers, which are known for this sample.

mod data;
mod stream;

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use floe_env::Env;
use indicatif::{ProgressBar, ProgressStyle};
use tempfile::TempDir;

use crate::cli::DemoArgs;
use crate::client::{HttpClient, Rows};
use crate::demo::stream::Streamer;
use crate::serve::{StopSignal, log_to_stderr, stop};
use crate::server::Server;
use crate::settings::{Checked, Config, HostPort, LogFilter, LogFormat};
use crate::term::{paint, say, things};

/// The last acknowledged record must be in the Iceberg table after this time.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
/// How often the progress line looks at the table.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// The client that is tested (`interop/`).
const PYICEBERG: &str = "pyiceberg[pyarrow]==0.12.0";

/// A question, and the first row that the sample must give.
struct Question {
    shows: &'static str,
    statement: &'static str,
    first_row: &'static [&'static str],
}

const QUESTIONS: [Question; 3] = [
    Question {
        shows: "How many flights left New York in January 2013, and how many were cancelled?",
        statement: "SELECT count(*) AS flights, count(*) - count(dep_time) AS cancelled\nFROM flights",
        first_row: &["27004", "521"],
    },
    Question {
        shows: "Which airlines flew most, and how late did they arrive? (a join of two topics)",
        statement: "SELECT a.name, count(*) AS flights, round(avg(f.arr_delay), 1) AS minutes_late\n\
                    FROM flights f JOIN airlines a ON f.carrier = a.carrier\n\
                    GROUP BY a.name ORDER BY flights DESC LIMIT 5",
        first_row: &["United Air Lines Inc.", "4637", "3.2"],
    },
    Question {
        shows: "On which day were departures latest? (time_hour became a timestamp by itself)",
        statement: "SELECT CAST(time_hour - INTERVAL '5 hours' AS DATE) AS day, count(*) AS flights,\n       \
                    round(avg(dep_delay), 1) AS minutes_late\n\
                    FROM flights GROUP BY 1 ORDER BY minutes_late DESC LIMIT 3",
        first_row: &["2013-01-31", "928", "28.7"],
    },
];

/// Runs the command.
pub(crate) async fn run(args: DemoArgs) -> Result<()> {
    log_to_stderr(&LogFilter("warn".to_owned()), LogFormat::Text)?;
    let asked = Checked::new(&args.settings.0)?.config();
    let (config, kept) = choose(&args, &asked)?;
    say(&format!("{}\n", paint("Floe demo: a stream in, a table out", "1")))?;
    let mut asked_to_stop = StopSignal::listen()?;
    let server = Server::start(config).await?;
    // A signal ends the story and not the process, because the temporary directory must be removed.
    let told = tokio::select! {
        biased;
        told = told(&args, &asked, &server) => told,
        () = asked_to_stop.received() => Err(anyhow!("stopped before the demo was over")),
    };
    let told = match told {
        Ok(()) if args.keep => {
            asked_to_stop.received().await;
            Ok(())
        }
        told => told,
    };
    let stopped = stop(server, &mut asked_to_stop).await;
    let removed = match kept {
        Some(kept) => kept.close().context("cannot remove the temporary data directory"),
        None => Ok(()),
    };
    told.and(stopped).and(removed)
}

/// Everything up to the broker's end.
async fn told(args: &DemoArgs, asked: &Config, server: &Server) -> Result<()> {
    say(&format!(
        "  broker      Kafka {} · HTTP {} · data {}",
        server.kafka,
        server.http,
        server.data.display()
    ))?;
    story(args, server).await?;
    next_steps(args, asked, server)?;
    if args.keep {
        say("The broker stays up; Ctrl-C ends it.")?;
    }
    Ok(())
}

/// Chooses a temporary directory if none was asked for, and free ports if the usual ones are taken. The directory is
/// removed when the guard is dropped.
fn choose(args: &DemoArgs, asked: &Config) -> Result<(Config, Option<TempDir>)> {
    let is_open = |name| args.settings.0.get(name).is_none();
    let mut config = asked.clone();
    for (name, address) in [("kafka", &mut config.kafka), ("http", &mut config.http)] {
        if is_open(name) && std::net::TcpListener::bind((address.host.as_str(), address.port)).is_err() {
            *address = HostPort { host: address.host.clone(), port: 0 };
        }
    }
    if !is_open("data") {
        return Ok((config, None));
    }
    let temporary = tempfile::Builder::new().prefix("floe-demo-").tempdir();
    let temporary = temporary.context("cannot make a directory")?;
    temporary.path().clone_into(&mut config.data);
    Ok((config, Some(temporary)))
}

async fn story(args: &DemoArgs, server: &Server) -> Result<()> {
    let client = HttpClient::new(&format!("http://{}", server.http))?;
    let mut streamer = Streamer::connect(server.env(), server.kafka).await?;
    for (topic, partitions) in [("flights", 4), ("airlines", 1)] {
        streamer.create_table_topic(topic, partitions).await?;
        say(&format!("  topic       {topic}: {}, floe.table=json", things(partitions, "partition")))?;
    }
    streamer.send("airlines", data::airlines()?, Duration::ZERO, |_| {}).await?;
    stream_flights(args, server, &client, &mut streamer).await?;
    settle(server).await?;
    for (number, question) in QUESTIONS.iter().enumerate() {
        ask(&client, number + 1, question).await?;
    }
    Ok(())
}

/// Streams the flights under a progress bar that shows what SQL counts meanwhile.
async fn stream_flights(
    args: &DemoArgs,
    server: &Server,
    client: &HttpClient,
    streamer: &mut Streamer,
) -> Result<()> {
    let flights = data::flights()?;
    let style =
        ProgressStyle::with_template("  streaming   {bar:28} {human_pos:>6}/{human_len} records  {msg}")?;
    let bar = ProgressBar::new(flights.len() as u64).with_style(style.progress_chars("━━╌"));
    let watched = async {
        loop {
            let counted = count(client, "flights").await;
            let snapshots = server.snapshots("flights");
            bar.set_message(match counted {
                Ok(counted) => watched_line(counted, snapshots),
                Err(error) => format!("SQL: {error}"),
            });
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let sent =
        streamer.send("flights", flights, Duration::from_secs(args.seconds), |sent| bar.set_position(sent));
    tokio::select! {
        biased;
        sent = sent => sent?,
        never = watched => never,
    }
    let counted = count(client, "flights").await?;
    bar.set_message(watched_line(counted, server.snapshots("flights")));
    bar.finish();
    say(&format!("  counted     SQL saw {counted} flights right after the last acknowledgement"))?;
    ensure!(counted == data::FLIGHTS as i64, "{} flights were acknowledged", data::FLIGHTS);
    Ok(())
}

fn watched_line(counted: i64, snapshots: u64) -> String {
    format!("SQL counts {counted:>6} · Iceberg snapshots {snapshots}")
}

async fn count(client: &HttpClient, table: &str) -> Result<i64> {
    let rows = client.query(&format!("SELECT count(*) FROM {table}")).await?;
    rows.first_integer().context("count(*) gave no number")
}

/// Waits until the Iceberg table holds every flight.
async fn settle(server: &Server) -> Result<()> {
    let settled = async {
        while server.rows_in_lake("flights") < data::FLIGHTS as u64 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    if tokio::time::timeout(SETTLED_WITHIN, settled).await.is_err() {
        bail!(
            "the Iceberg table holds only {} flights after {SETTLED_WITHIN:?}",
            server.rows_in_lake("flights")
        );
    }
    say(&format!(
        "  table       Iceberg holds all {} flights in {}\n",
        server.rows_in_lake("flights"),
        things(server.snapshots("flights"), "snapshot")
    ))?;
    Ok(())
}

async fn ask(client: &HttpClient, number: usize, question: &Question) -> Result<()> {
    say(&paint(&format!("{number}. {}", question.shows), "1"))?;
    for line in question.statement.lines() {
        say(&paint(&format!("   {line}"), "2"))?;
    }
    let started = Env::real().monotonic();
    let rows = client.query(question.statement).await?;
    let text = floe_sql::text_table(&rows.schema, &rows.batches, started.elapsed())?;
    say(&format!("{}\n", text.trim_end()))?;
    check(question, &rows)
}

/// The first row must start with the known answer.
fn check(question: &Question, rows: &Rows) -> Result<()> {
    let batch = rows.batches.iter().find(|b| b.num_rows() > 0).context("no rows")?;
    for (column, expected) in batch.columns().iter().zip(question.first_row) {
        let got = arrow::util::display::array_value_to_string(column, 0)?;
        ensure!(got == *expected, "the answer is wrong: expected {expected}, got {got}");
    }
    Ok(())
}

/// Lines that work when pasted while the broker is up.
fn next_steps(args: &DemoArgs, asked: &Config, server: &Server) -> Result<()> {
    say(&paint("Try next", "1"))?;
    let (mut kafka, mut http) = (server.kafka.to_string(), server.http.to_string());
    if !args.keep {
        say("  cargo run --release -- demo --keep     leaves the broker up; then, in a second terminal:")?;
        let is_taken = |asked: &HostPort, got: u16| asked.port != 0 && asked.port != got;
        if is_taken(&asked.kafka, server.kafka.port()) || is_taken(&asked.http, server.http.port()) {
            // With the usual ports, the lines would go to the program that has them.
            say("  the lines that it prints: the usual ports are taken, so it takes others")?;
            return Ok(());
        }
        // This broker is about to end: the lines are for the next one.
        kafka = asked.kafka.to_string();
        http = asked.http.to_string();
    }
    say(&format!(
        "  cargo run --release -- sql --server http://{http} \"SELECT origin, count(*) FROM flights GROUP BY origin\"
  kcat -C -b {kafka} -t flights -c 3
  echo '{{\"carrier\": \"ZZ\", \"name\": \"My Airline\"}}' | kcat -P -b {kafka} -t airlines
  cargo run --release -- sql --server http://{http} \"SELECT * FROM airlines WHERE carrier = 'ZZ'\"
  python3 -m venv venv && venv/bin/pip install -q '{PYICEBERG}' pandas
  venv/bin/python -c \"from pyiceberg.catalog import load_catalog; \
print(load_catalog('floe', type='rest', uri='http://{http}/iceberg').load_table('default.flights')\
.scan(row_filter='dep_delay > 600').to_arrow().to_pandas())\"
  curl -s http://{http}/metrics | grep floe_lake"
    ))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::PYICEBERG;

    #[test]
    fn the_readme_installs_the_same_pyiceberg() {
        assert!(
            include_str!("../../../../README.md").contains(&format!("pip install -q '{PYICEBERG}' pandas"))
        );
    }
}
