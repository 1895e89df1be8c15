//! The real binary under `kill -9` at random moments, also while it recovers, and while clients write with acks=all:
//! after the last restart every acknowledged record is there, once and in order, in the topic and, cell by cell, in
//! the table. The clients and the checkers are those of the simulation.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use floe_client::{Client, ClientError, Wait};
use floe_env::Env;
use floe_testkit::check;
use floe_testkit::client::{Consumer, Harness, KafkaFront, Place, Producer};
use floe_testkit::dice::Dice;
use floe_testkit::history::{Event, Phase};
use floe_testkit::recorder::Recorder;
use floe_testkit::rows::{self, Row};
use floe_testkit::trace::Trace;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

const TOPIC: &str = "orders";
const PARTITIONS: u32 = 3;
const KILLS: u32 = 12;
/// After every so many kills the next process is killed before it is ready.
const STILLBORN_EVERY: u32 = 3;
/// Once the killing has ended, everybody must be done in this time.
const HEALING_MAX: Duration = Duration::from_secs(20);

/// A server process; killed when dropped.
struct Server {
    child: Child,
    kafka: String,
    http: String,
}

/// Starts the binary over a data directory.
fn spawn(data: &Path, log: &Path) -> Child {
    let log = File::options().create(true).append(true).open(log).expect("the log file opens");
    Command::new(env!("CARGO_BIN_EXE_floe"))
        .args(["serve", "--kafka", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"])
        .arg(data)
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .expect("the binary starts")
}

impl Server {
    /// Starts the binary and waits until it says that it is ready.
    fn start(data: &Path, log: &Path) -> Server {
        let mut child = spawn(data, log);
        let lines = BufReader::new(child.stdout.take().expect("its output is piped")).lines();
        let ready = lines.map_while(Result::ok).find(|line| line.starts_with("floe is ready"));
        let ready = ready.expect("the server says that it is ready");
        let word = |name: &str| {
            let found = ready.split_whitespace().find_map(|word| word.strip_prefix(name));
            found.unwrap_or_else(|| panic!("`{ready}` names {name}")).to_owned()
        };
        Server { child, kafka: word("kafka="), http: word("http=") }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // `kill` is SIGKILL: the process has no chance to finish anything.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process that serves now: its number and its address; none between two.
type Serving = Option<(u32, String)>;

struct World {
    env: Env,
    recorder: Recorder,
    serving: watch::Sender<Serving>,
    healed: AtomicBool,
}

#[async_trait]
impl Harness for World {
    fn env(&self) -> &Env {
        &self.env
    }

    fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    async fn dial(&self, process: u32) -> KafkaFront {
        loop {
            let mut serving = self.serving.subscribe();
            let serving =
                serving.wait_for(Option::is_some).await.expect("the world holds the sender").clone();
            if let Some((number, address)) = serving
                && let Ok(stream) = TcpStream::connect(&address).await
                && stream.set_nodelay(true).is_ok()
            {
                return KafkaFront::new(Box::new(stream), number, process);
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn healed(&self) -> bool {
        self.healed.load(Ordering::SeqCst)
    }

    fn pause_max(&self) -> Duration {
        Duration::from_millis(20)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (data, log) = (folder.path().join("data"), folder.path().join("server.log"));
    let env = Env::real();
    let trace = Trace::new(&env, false);
    let world = Arc::new(World {
        env: env.clone(),
        recorder: Recorder::new(&trace),
        serving: watch::Sender::new(None),
        healed: AtomicBool::new(false),
    });
    let place = |index| Place { topic: TOPIC, table: true, index, incarnation: None };
    let places: Vec<Place> = (0..PARTITIONS).map(place).collect();

    let mut server = start(&world, &data, &log, 1).await;
    create_topic(&server.kafka).await;
    let clients = start_clients(&world, &places);
    let dice = Dice::new(&env);
    let mut number = 1;
    for kill in 1..=KILLS {
        sleep(dice.between(Duration::from_millis(100), Duration::from_millis(1_200))).await;
        world.serving.send_replace(None);
        drop(server);
        world.recorder.note(number, Event::Crashed);
        if kill.is_multiple_of(STILLBORN_EVERY) {
            number += 1;
            stillborn(&world, &data, &log, number).await;
        }
        number += 1;
        server = start(&world, &data, &log, number).await;
    }
    world.healed.store(true, Ordering::SeqCst);
    for (name, client) in clients {
        timeout(HEALING_MAX, client)
            .await
            .unwrap_or_else(|_| panic!("{name} did not finish"))
            .expect("it ended well");
    }
    read_all(&world, &places).await;
    read_table(&world, &server).await;
    judge(&world, &log);
}

/// Starts the next process and lets the clients know.
async fn start(world: &World, data: &Path, log: &Path, number: u32) -> Server {
    world.recorder.note(number, Event::Started);
    let (data, log): (PathBuf, PathBuf) = (data.to_owned(), log.to_owned());
    let server = world.env.blocking(move || Server::start(&data, &log)).await;
    world.serving.send_replace(Some((number, server.kafka.clone())));
    server
}

/// Starts a process and kills it somewhere in its recovery.
async fn stillborn(world: &World, data: &Path, log: &Path, number: u32) {
    world.recorder.note(number, Event::Started);
    let mut child = spawn(data, log);
    sleep(Dice::new(&world.env).between(Duration::ZERO, Duration::from_millis(200))).await;
    child.kill().expect("it has not ended by itself");
    child.wait().expect("it was killed");
    world.recorder.note(number, Event::Crashed);
}

async fn create_topic(address: &str) {
    let mut client = Client::connect(address, "kill9").await.expect("connects");
    let configs = [("floe.table", "json"), ("floe.table.freshness.ms", "200")];
    client.create_topic(TOPIC, PARTITIONS.cast_signed(), &configs).await.expect("the topic is created");
}

fn start_clients(world: &Arc<World>, places: &[Place]) -> Vec<(String, floe_env::Task<()>)> {
    let mut clients = Vec::new();
    for process in 1..=4 {
        let producer = Producer::new(world.clone(), process, places.to_vec(), process <= 3);
        clients.push((format!("producer {process}"), world.env.spawn("producer", producer.run())));
    }
    for (process, place) in (100..).zip(places) {
        let consumer = Consumer::new(world.clone(), process, *place, true);
        clients.push((format!("consumer {process}"), world.env.spawn("consumer", consumer.run())));
    }
    clients
}

/// Reads every partition from its start to its end.
async fn read_all(world: &World, places: &[Place]) {
    for place in places {
        let mut front = world.connect(200).await;
        let (mut records, mut next) = (Vec::new(), 0);
        let (log_start, high_watermark) = loop {
            let fetched = front.fetch(*place, next).await.expect("a healthy server answers");
            next = fetched.records.last().map_or(next, |(offset, _)| offset + 1);
            records.extend(fetched.records);
            if next >= fetched.high_watermark {
                break (fetched.log_start, fetched.high_watermark);
            }
        };
        let partition = place.name();
        let broker = front.broker();
        world.recorder.note(broker, Event::Final { partition, log_start, high_watermark, records });
    }
}

/// Reads the table by SQL and the dead letters by Kafka: together they are the log.
async fn read_table(world: &World, server: &Server) {
    let history = world.recorder.history();
    let ends: BTreeMap<u32, i64> = history
        .finals()
        .into_iter()
        .map(|(name, read)| {
            let index = name.rsplit('/').next().and_then(|index| index.parse().ok());
            (index.expect("a partition's index"), read.high_watermark)
        })
        .collect();
    // A query reads the log's tail as well, where nothing has to become a file or a dead letter: it must be empty.
    let progress = timeout(HEALING_MAX, caught_up(server, &ends)).await.expect("the view catches up");
    let dead = dead_letters(&server.kafka).await.unwrap_or_default();
    let body = format!("{{\"query\":\"SELECT * FROM {TOPIC}\"}}");
    let rows = http(&server.http, "POST", "/api/v1/sql", &body).await;
    let rows = rows.as_array().expect("a list of rows").iter();
    let rows: Vec<Row> = rows.map(|row| rows::of_json(row).expect("the system columns")).collect();
    assert!(dead.len() > 10, "only {} records were not JSON", dead.len());
    world.recorder.note(0, Event::Rows { topic: TOPIC.to_owned(), rows, dead, progress });
}

/// The progress that the Iceberg table itself tells, once it is the end of the log.
async fn caught_up(server: &Server, ends: &BTreeMap<u32, i64>) -> BTreeMap<u32, i64> {
    loop {
        let path = format!("/iceberg/v1/namespaces/default/tables/{TOPIC}");
        let table = http(&server.http, "GET", &path, "").await;
        let offsets = table["metadata"]["properties"]["floe.committed-offsets"].as_str().unwrap_or("{}");
        let progress: BTreeMap<u32, i64> = serde_json::from_str(offsets).expect("offsets by partition");
        if progress == *ends {
            return progress;
        }
        sleep(Duration::from_millis(200)).await;
    }
}

async fn dead_letters(address: &str) -> Result<Vec<(u32, i64)>, ClientError> {
    let topic = floe_view::dead_letter::topic_of(TOPIC).expect("the topic has dead letters");
    let mut client = Client::connect(address, "kill9").await?;
    let mut found = Vec::new();
    loop {
        let from = i64::try_from(found.len()).expect("few letters");
        let fetched = client.fetch(&topic, 0, from, Wait::NOT).await?;
        for record in fetched.records(1 << 20)? {
            let number = |name: &str| {
                let header = record.headers.iter().find(|(key, _)| key == name.as_bytes());
                let text = header.and_then(|(_, value)| value.as_deref()).expect("it says where it is from");
                std::str::from_utf8(text).expect("a number").parse::<i64>().expect("a number")
            };
            found
                .push((u32::try_from(number("floe.partition")).expect("a partition"), number("floe.offset")));
        }
        if i64::try_from(found.len()).expect("few letters") >= fetched.high_watermark {
            return Ok(found);
        }
    }
}

/// Sends a request and returns the JSON that comes back.
async fn http(address: &str, method: &str, path: &str, body: &str) -> Value {
    let mut stream = TcpStream::connect(address).await.expect("HTTP connects");
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nAccept: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.expect("the request is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("the answer is text");
    let (head, text) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.0 200") || head.starts_with("HTTP/1.1 200"), "{answer}");
    serde_json::from_str(text).expect("the answer is JSON")
}

fn judge(world: &World, log: &Path) {
    let history = world.recorder.history();
    let findings: Vec<_> = check::all(&history).iter().map(ToString::to_string).collect();
    let server = std::fs::read_to_string(log).unwrap_or_default();
    assert!(findings.is_empty(), "{}\nthe server said:\n{server}", findings.join("\n"));
    let acknowledged = history
        .lines
        .iter()
        .filter(|line| line.phase == Phase::Ok && matches!(line.event, Event::Produce { .. }));
    let count = acknowledged.count();
    assert!(count > 200, "only {count} batches were acknowledged");
}
