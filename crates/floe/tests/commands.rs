//! The commands as people and scripts run them: what they print, how they end, what they leave behind.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tokio::time::timeout;

fn floe(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_floe"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// The demo on free ports, with its data in `temporary`, and with a proxy for everything that does not answer.
fn demo(temporary: &Path, seconds: &str) -> Command {
    let ports = ["--kafka", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    let mut command = floe(&["demo", "--seconds", seconds]);
    command.args(ports).env("TMPDIR", temporary).env_remove("NO_PROXY").env_remove("no_proxy");
    for proxy in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env(proxy, "http://127.0.0.1:9");
    }
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the output is text")
}

fn ended_well(output: &Output) -> String {
    assert!(output.status.success(), "{}: {}", output.status, text(&output.stderr));
    text(&output.stdout)
}

/// Asks a process to stop, as Ctrl-C and service managers do.
fn stop(child: &Child) {
    let id = child.id().to_string();
    let sent = Command::new("kill").args(["-TERM", &id]).status().expect("kill runs");
    assert!(sent.success(), "the process is there");
}

#[test]
fn the_demo_answers_right_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let said = ended_well(&demo(temporary.path(), "0").output().expect("the demo runs"));
    for part in [
        "SQL saw 27004 flights right after the last acknowledgement",
        "Iceberg holds all 27004 flights",
        "   27004 |       521",
        "United Air Lines Inc.",
        "2013-01-31",
        // The broker is gone: what can be pasted is for the next one, which listens where it was asked to.
        "kcat -C -b 127.0.0.1:0 -t flights",
    ] {
        assert!(said.contains(part), "`{part}` in {said}");
    }
    let left: Vec<_> = temporary.path().read_dir().expect("it can be read").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_demo_that_is_stopped_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let mut child = demo(temporary.path(), "600")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the demo starts");
    let mut lines = BufReader::new(child.stdout.take().expect("its output is piped")).lines();
    let begun = lines.any(|line| line.expect("it is text").contains("topic       airlines"));
    assert!(begun, "it tells of its topics");
    stop(&child);
    assert!(!child.wait().expect("it ends").success(), "it did not come to its end");
    let left: Vec<_> = temporary.path().read_dir().expect("it can be read").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_broker_stops_in_order_from_its_first_moment_on() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let place = data.path().to_str().expect("a path of text");
    for _ in 0..5 {
        let mut child = floe(&["serve", "--data", place, "--kafka", "127.0.0.1:0", "--http", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the broker starts");
        let mut first = String::new();
        let mut lines = BufReader::new(child.stdout.take().expect("its output is piped"));
        lines.read_line(&mut first).expect("it is text");
        stop(&child);
        let output = child.wait_with_output().expect("it ends");
        assert!(first.starts_with("floe is ready"), "{first}");
        ended_well(&output);
    }
}

#[test]
fn output_that_cannot_be_written_is_a_failure_unless_nobody_wants_it() {
    let full = File::options().write(true).open("/dev/full").expect("the full device is there");
    let output = floe(&["serve", "--print-config"]).stdout(full).output().expect("it runs");
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains("cannot write to standard output"), "{said}");

    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = floe(&["serve", "--print-config"]).stdout(writer).output().expect("it runs");
    assert_eq!(ended_well(&output) + &text(&output.stderr), "");
}

#[test]
fn a_broker_serves_although_its_ready_line_cannot_be_written() {
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let full = File::options().write(true).open("/dev/full").expect("the full device is there");
    let mut child = floe(&["serve", "--kafka", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"])
        .arg(temporary.path())
        .env("NO_COLOR", "1")
        .stdout(full)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the broker starts");
    let mut lines = BufReader::new(child.stderr.take().expect("its log is piped")).lines();
    let mut line = |part: &str| {
        let found = lines.by_ref().map(|line| line.expect("it is text")).find(|line| line.contains(part));
        found.unwrap_or_else(|| panic!("the log says `{part}`"))
    };
    let serving = line("http=");
    let address = serving.split_whitespace().find_map(|word| word.strip_prefix("http=")).expect("an address");
    line("was not written");
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.write_all(b"GET /ready HTTP/1.0\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    stop(&child);
    assert!(child.wait().expect("it ends").success());
}

/// Idle clients of both fronts, more of each than the process may open files.
#[test]
fn idle_clients_leave_descriptors_for_health_and_files() {
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let mut child = Command::new("sh")
        .args([
            "-c",
            "ulimit -n 300 && exec \"$0\" serve --kafka 127.0.0.1:0 --http 127.0.0.1:0 --data \"$1\"",
        ])
        .arg(env!("CARGO_BIN_EXE_floe"))
        .arg(temporary.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the broker starts");
    let mut ready = String::new();
    let mut output = BufReader::new(child.stdout.take().expect("its output is piped"));
    output.read_line(&mut ready).expect("it is text");
    let address =
        |name| ready.split_whitespace().find_map(|word| word.strip_prefix(name)).expect("an address");
    let (kafka, http) = (address("kafka="), address("http="));
    let ask = |request: &str| {
        let mut stream = TcpStream::connect(http).expect("it listens");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
        answer
    };
    let mut idle = Vec::new();
    for _ in 0..350 {
        idle.push(TcpStream::connect(kafka).expect("it listens"));
        idle.push(TcpStream::connect(http).expect("it listens"));
    }
    ask("GET /health HTTP/1.0\r\n\r\n");
    let metrics = ask("GET /metrics HTTP/1.0\r\nhost: 127.0.0.1\r\n\r\n");
    let connections = metrics.lines().find_map(|line| line.strip_prefix("floe_kafka_connections "));
    assert!(connections.expect("the metric").parse::<u32>().expect("a number") <= 169, "{metrics}");
    stop(&child);
    assert!(child.wait().expect("it ends").success());
}

/// A broker on free ports that is ready: its process, its addresses for Kafka and for HTTP.
fn serve(data: &Path) -> (Child, String, String) {
    let mut child = floe(&["serve", "--kafka", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"])
        .arg(data)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the broker starts");
    let mut ready = String::new();
    let mut output = BufReader::new(child.stdout.take().expect("its output is piped"));
    output.read_line(&mut ready).expect("it is text");
    let address = |name| ready.split_whitespace().find_map(|word| word.strip_prefix(name)).map(str::to_owned);
    (child, address("kafka=").expect("an address"), address("http=").expect("an address"))
}

#[test]
fn an_address_of_the_other_protocol_is_told_apart_from_a_broker_that_is_not_there() {
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let (mut child, kafka, http) = serve(temporary.path());
    let failed = |arguments: &[&str]| {
        let output = floe(arguments).env("NO_COLOR", "1").output().expect("it runs");
        assert!(!output.status.success(), "{arguments:?}");
        text(&output.stderr)
    };
    for arguments in [["topic", "list"], ["bench", "consume"]] {
        let said = failed(&[&arguments[..], &["--bootstrap", &http]].concat());
        let words = format!("an HTTP server answers at {http}, and no Kafka broker");
        assert!(said.contains(&words) && said.contains("does not speak the Kafka protocol"), "{said}");
    }
    let said = failed(&["sql", "SELECT 1", "--server", &format!("http://{kafka}")]);
    assert!(said.contains("may be the broker's port for Kafka"), "{said}");
    stop(&child);
    assert!(child.wait().expect("it ends").success());
    let said = failed(&["topic", "list", "--bootstrap", &kafka]);
    assert!(said.contains(&format!("no broker answers at {kafka}")), "{said}");
}

/// Somebody else takes room on the disk, and nobody writes to the broker.
#[tokio::test]
async fn the_free_room_in_the_metrics_is_not_that_of_the_last_write() {
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let (mut child, _, http) = serve(temporary.path());
    let free = || {
        let mut stream = TcpStream::connect(&http).expect("it listens");
        stream.write_all(b"GET /metrics HTTP/1.0\r\nhost: 127.0.0.1\r\n\r\n").expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        ["floe_store_disk_free_bytes ", "floe_meta_disk_free_bytes "]
            .map(|name| answer.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned))
    };
    let until = async |what: &str, met: &dyn Fn() -> bool| {
        let met = async {
            while !met() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(Duration::from_secs(60), met).await.expect(what);
    };
    until("both metrics are there", &|| free().iter().all(Option::is_some)).await;
    let before = free();
    std::fs::write(temporary.path().join("of-others"), vec![1; 8 << 20]).expect("written");
    until("both metrics move", &|| free().iter().zip(&before).all(|(now, before)| now != before)).await;
    stop(&child);
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn what_would_be_used_is_printed_if_it_can_be() {
    let said = ended_well(&floe(&["serve", "--print-config", "--uploads", "3"]).output().expect("it runs"));
    for part in ["uploads = 3", "kafka = \"127.0.0.1:9092\"", "linger_ms = 0", "sql_memory_bytes = 536870912"]
    {
        assert!(said.contains(part), "`{part}` in {said}");
    }
    let output = floe(&["serve", "--print-config", "--uploads", "0"]).output().expect("it runs");
    assert!(!output.status.success() && output.stdout.is_empty(), "{}", text(&output.stdout));
}
