//! `floe bench` against the real binary's broker: what it says that it wrote and read is what the broker has. No test
//! looks at a time.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use floe_client::{Client, LATEST};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;

fn floe(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_floe"));
    command.args(arguments).stdin(Stdio::null()).env("NO_COLOR", "1").env_remove("FLOE_BOOTSTRAP");
    command
}

/// A broker on free ports; killed when dropped.
struct Server {
    child: Child,
    kafka: String,
    _data: TempDir,
}

impl Server {
    fn start() -> Server {
        let data = tempfile::tempdir().expect("a temporary folder");
        let mut child = serve(data.path());
        let lines = BufReader::new(child.stdout.take().expect("its output is piped")).lines();
        let ready = lines.map_while(Result::ok).find(|line| line.starts_with("floe is ready"));
        let ready = ready.expect("the server says that it is ready");
        let kafka = ready.split_whitespace().find_map(|word| word.strip_prefix("kafka="));
        Server { kafka: kafka.expect("an address").to_owned(), child, _data: data }
    }

    fn bench(&self, line: &str) -> Command {
        let mut command = floe(&["bench"]);
        command.args(line.split_whitespace()).args(["--json", "--bootstrap", &self.kafka]);
        command
    }

    /// Runs a mode and returns its figures.
    fn figures(&self, line: &str) -> Value {
        let output = self.bench(line).output().expect("it runs");
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        let figures = figures(&output);
        assert_eq!((&figures["ended"], &figures["failure"]), (&"done".into(), &Value::Null), "{line}");
        figures
    }

    async fn client(&self) -> Client<TcpStream> {
        Client::connect(&self.kafka, "test").await.expect("it listens")
    }

    /// The records of a topic, as its offsets say.
    async fn records(&self, topic: &str) -> u64 {
        let mut client = self.client().await;
        let metadata = client.metadata(&[topic]).await.expect("metadata");
        let mut records = 0;
        for partition in &metadata.topics[0].partitions {
            let index = partition.partition_index;
            records += client.list_offsets(topic, index, LATEST).await.expect("an offset").offset;
        }
        u64::try_from(records).expect("offsets are not negative")
    }

    /// Waits until a topic has records.
    async fn wait_for_records(&self, topic: &str) {
        let mut client = self.client().await;
        for _ in 0..3_000 {
            let known = client.metadata(&[topic]).await.expect("metadata").topics;
            if known[0].error_code == 0 && self.records(topic).await > 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("nobody writes to {topic}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // `kill` is SIGKILL. A process that has ended already is no error here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(data: &Path) -> Child {
    floe(&["serve", "--kafka", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"])
        .arg(data)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the output is text")
}

/// The one JSON object that a mode prints, whether it succeeds or not.
fn figures(output: &Output) -> Value {
    let said = text(&output.stdout);
    assert_eq!(said.lines().count(), 1, "one object: {said}{}", text(&output.stderr));
    serde_json::from_str(&said).expect("it is JSON")
}

fn number(figures: &Value, part: &str, name: &str) -> u64 {
    let figure = &figures[part][name];
    figure.as_u64().unwrap_or_else(|| panic!("{part}.{name} is {figure} in {figures}"))
}

/// What a mode says to somebody who did something wrong.
fn refused(mut command: Command) -> String {
    let output = command.output().expect("it runs");
    assert!(!output.status.success() && output.stdout.is_empty(), "{}", text(&output.stdout));
    text(&output.stderr)
}

#[tokio::test]
async fn what_is_written_is_there_and_is_read() {
    let server = Server::start();
    let line = "produce --topic t --partitions 3 --connections 2 --records 12345 --batch-bytes 4KiB";
    let written = server.figures(line);
    assert_eq!(number(&written, "produce", "records"), 12_345);
    assert_eq!(number(&written, "produce", "value_bytes"), 1_234_500);
    assert_eq!(number(&written, "settings", "partitions"), 3);
    let per_batch = number(&written, "settings", "records_per_batch");
    assert_eq!(number(&written, "produce", "requests"), 12_345_u64.div_ceil(per_batch));
    assert_eq!(server.records("t").await, 12_345);

    let mut total = 12_345;
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let more =
            "produce --topic t --idempotent --content json --bytes 100000 --connections 4 --compression";
        let written = server.figures(&format!("{more} {codec}"));
        assert_eq!(number(&written, "produce", "records"), 1_000, "{codec}");
        total += 1_000;
    }
    assert_eq!(server.records("t").await, total);

    for connections in [1, 3] {
        let read = server.figures(&format!("consume --topic t --connections {connections}"));
        assert_eq!(number(&read, "consume", "records"), total);
        assert_eq!(read["consume"]["errors"], Value::Array(Vec::new()));
    }
    let some = server.figures("consume --topic t --records 500 --partition-fetch-bytes 1KiB");
    let some = number(&some, "consume", "records");
    assert!((500..total).contains(&some), "{some}");
}

#[tokio::test]
async fn a_rate_says_which_requests_are_due() {
    let server = Server::start();
    let line = "produce --topic t --batch-bytes 1KiB --warm-up 1 --rate";
    // However slow the machine is: the records that are due in the first second are those of the warm-up.
    let written = server.figures(&format!("{line} 400 --records 100"));
    assert_eq!(number(&written, "settings", "records_per_batch"), 8);
    assert_eq!(number(&written, "produce", "records_warm_up"), 400);
    assert_eq!(number(&written, "produce", "records"), 100);
    assert_eq!(number(&written, "produce", "requests"), 13);
    assert_eq!(number(&written, "produce", "requests_due_unsent"), 0);
    assert!(written["produce"]["send_delay_ms_p50"].is_f64(), "{written}");
    assert_eq!(server.records("t").await, 500);

    let written = server.figures(&format!("{line} 2000 --seconds 1"));
    let [records, warm_up] = ["records", "records_warm_up"].map(|name| number(&written, "produce", name));
    assert_eq!(server.records("t").await, 500 + records + warm_up);
    let [sent, unsent] = ["requests", "requests_due_unsent"].map(|name| number(&written, "produce", name));
    assert_eq!((records, sent + unsent), (sent * 8, 250));
}

#[tokio::test]
async fn each_acknowledged_record_comes_to_a_consumer() {
    let server = Server::start();
    let line = "latency --topic t --partitions 2 --connections 2 --rate 200 --records 150 --record-bytes 40";
    let figures = server.figures(line);
    for part in ["produce", "end_to_end"] {
        assert_eq!(number(&figures, part, "records"), 150, "{part}");
        assert!(figures[part]["latency_ms_p99"].is_f64(), "{figures}");
    }
    assert_eq!(number(&figures, "end_to_end", "records_missing"), 0);
    assert_eq!(server.records("t").await, 150);
    // Records of another run are not taken for those of this one.
    let again = server.figures("latency --topic t --rate 100 --warm-up 1 --records 20");
    assert_eq!(number(&again, "end_to_end", "records"), 20);
    assert_eq!(number(&again, "end_to_end", "records_warm_up"), number(&again, "produce", "records_warm_up"));
}

#[tokio::test]
async fn readers_beside_writers_read_what_was_written_but_for_what_is_left() {
    let server = Server::start();
    server.figures("produce --topic t --partitions 4 --records 5000");
    let figures = server.figures("mixed --topic t --connections 2 --readers 2 --records 20000");
    assert_eq!(number(&figures, "produce", "records"), 20_000);
    let [read, behind] = ["records", "records_behind"].map(|name| number(&figures, "consume", name));
    assert_eq!(read + behind, 25_000, "{figures}");
    assert_eq!(server.records("t").await, 25_000);
}

#[tokio::test]
async fn refused_requests_are_told_by_their_code() {
    let server = Server::start();
    let output = server
        .bench("produce --topic t --config max.message.bytes=1000 --seconds 60")
        .output()
        .expect("it runs");
    assert!(!output.status.success());
    let figures = figures(&output);
    assert_eq!(figures["ended"], "failed");
    let error = &figures["produce"]["errors"][0];
    assert_eq!((&error["code"], &error["name"]), (&10.into(), &"MessageTooLarge".into()), "{figures}");
    assert_eq!(error["requests"], figures["produce"]["requests"]);
    assert_eq!(number(&figures, "produce", "records"), 0);
    assert_eq!(server.records("t").await, 0);
    assert!(text(&output.stderr).contains("MessageTooLarge"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn a_run_that_is_stopped_gives_the_figures_of_what_was_done() {
    let server = Server::start();
    let child = server
        .bench("produce --topic t --partitions 2 --seconds 600")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    server.wait_for_records("t").await;
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().expect("kill runs").success());
    let output = child.wait_with_output().expect("it ends");
    let figures = figures(&output);
    assert!(!output.status.success() && figures["ended"] == "interrupted", "{figures}");
    assert_eq!(number(&figures, "produce", "records"), server.records("t").await);
    assert_eq!(number(&figures, "produce", "requests_unknown"), 0);
}

#[tokio::test]
async fn requests_of_a_killed_broker_have_an_unknown_outcome() {
    let mut server = Server::start();
    let child = server
        .bench("produce --topic t --seconds 600")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    server.wait_for_records("t").await;
    server.child.kill().expect("it is there");
    let output = child.wait_with_output().expect("it ends");
    let figures = figures(&output);
    assert!(!output.status.success() && figures["ended"] == "failed", "{figures}");
    assert!(number(&figures, "produce", "requests_unknown") > 0, "{figures}");
    assert!(number(&figures, "produce", "records") > 0, "{figures}");
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let said = refused(floe(&["bench", "produce", "--bootstrap", "127.0.0.1:1"]));
    assert!(said.contains("no broker answers at 127.0.0.1:1: start one with `floe serve`"), "{said}");
    let server = Server::start();
    let said = refused(server.bench("consume --topic none"));
    assert!(said.contains("there is no topic none: `floe bench produce --topic none` makes"), "{said}");
    server.figures("produce --topic t --partitions 2 --records 1");
    let said = refused(server.bench("produce --topic t --partitions 3"));
    assert!(said.contains("the topic t has 2 partitions, not 3: choose another --topic"), "{said}");
    let said = refused(server.bench("consume --topic t --connections 3"));
    assert!(said.contains("each read by one connection: take at most 2, not 3"), "{said}");
    let said = refused(server.bench("produce --record-bytes 17MiB"));
    assert!(said.contains("--record-bytes is 17825792: it must be 1 to 16777216"), "{said}");
}

#[tokio::test]
async fn people_get_tables() {
    let server = Server::start();
    let mut command = floe(&["bench", "produce", "--records", "100", "--bootstrap", &server.kafka]);
    let output = command.output().expect("it runs");
    let said = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["throughput", "requests", "records", "seconds", "records/s", "MiB/s"]);
    assert_eq!(lines[1][..3], ["produce", "1", "100"], "{said}");
    assert_eq!(lines[3][3..], ["count", "mean", "p50", "p90", "p99", "p99.9", "max"]);
    assert_eq!(lines[4][..2], ["produce", "1"], "{said}");
    assert_eq!(text(&output.stderr), "", "no bar without a terminal");
}
