//! A journal in the store: the machine and its data directory are lost, and nothing that was acknowledged is. And what
//! does not belong together is refused with what to do. The store is a directory, beside the data directory.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use bytes::Bytes;
use floe_client::{Client, Wait};
use floe_log::codec::Compression;
use floe_log::records::Builder;
use floe_wire::group_offsets::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic, OffsetFetchRequest,
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;

/// A store that outlives the data directories of its brokers.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Place {
        Place { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn store_url(&self) -> String {
        format!("file://{}", self.store().display())
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// `floe serve` on the store, with an empty data directory or what is there.
    fn command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_floe"));
        command.args(["serve", "--kafka", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
        command.args(["--retention-ms", "9223372036854775807", "--store", &self.store_url(), "--data"]);
        command.arg(self.data()).args(more).stdin(Stdio::null()).env("NO_COLOR", "1");
        command
    }

    fn start(&self, more: &[&str]) -> Server {
        Server::of(self.command(more))
    }

    /// What a start says that is refused.
    fn refused(&self, more: &[&str]) -> String {
        let output = self.command(more).output().expect("it runs");
        assert!(!output.status.success(), "{}", said(&output));
        said(&output)
    }

    fn check(&self, more: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_floe"));
        command.arg("check").arg(self.store_url()).arg("--data").arg(self.data()).args(more);
        command.stdin(Stdio::null()).env("NO_COLOR", "1").output().expect("it runs")
    }

    fn whole(&self) {
        let judged = self.check(&[]);
        assert!(judged.status.success(), "{}", said(&judged));
    }

    /// The machine is gone.
    fn lose_data(&self) {
        fs::remove_dir_all(self.data()).expect("the data directory is removed");
    }

    fn entries(&self) -> Vec<PathBuf> {
        let names = fs::read_dir(self.store().join("journal/entries")).expect("readable");
        let mut names: Vec<PathBuf> = names.map(|name| name.expect("a name").path()).collect();
        names.sort();
        names
    }
}

struct Server {
    child: Child,
    kafka: String,
    http: String,
}

impl Server {
    fn of(mut command: Command) -> Server {
        let log = command.stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = log.spawn().expect("the binary starts");
        let lines = BufReader::new(child.stdout.take().expect("its output is piped")).lines();
        let ready = lines.map_while(Result::ok).find(|line| line.starts_with("floe is ready"));
        let ready = ready.expect("the server says that it is ready");
        let word = |name: &str| {
            let found = ready.split_whitespace().find_map(|word| word.strip_prefix(name));
            found.unwrap_or_else(|| panic!("`{ready}` names {name}")).to_owned()
        };
        Server { child, kafka: word("kafka="), http: word("http=") }
    }

    async fn client(&self) -> Client<TcpStream> {
        Client::connect(&self.kafka, "test").await.expect("it listens")
    }

    fn sql(&self, statement: &str) -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_floe"))
            .args(["sql", "--json", "--server", &format!("http://{}", self.http), statement])
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{}", said(&output));
        serde_json::from_slice(&output.stdout).expect("one row")
    }

    async fn stop(mut self) {
        // It listens for signals a moment after it says that it is ready.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().expect("kill runs").success());
        assert!(self.child.wait().expect("it ends").success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // `kill` is SIGKILL. A process that has ended already is no error here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("the output is text");
    text(&output.stdout) + &text(&output.stderr)
}

fn batch(text: &str) -> Bytes {
    let mut builder = Builder::new(Compression::None);
    builder.push(1_767_225_600_000, None, Some(text.as_bytes()), &[]);
    builder.build()
}

/// Appends records with these numbers, each acknowledged.
async fn produce(server: &Server, numbers: std::ops::Range<i64>) {
    let mut client = server.client().await;
    for number in numbers {
        let done = client.produce("t", 0, batch(&format!("{{\"id\": {number}}}")), -1).await;
        assert_eq!(done.expect("acknowledged").base_offset, number);
    }
}

async fn create(server: &Server) {
    let configs = [("floe.table", "json"), ("floe.table.freshness.ms", "200")];
    server.client().await.create_topic("t", 1, &configs).await.expect("the topic is new");
}

/// The values of the topic, in the order of their offsets.
async fn consumed(server: &Server) -> Vec<String> {
    let mut client = server.client().await;
    let mut values: Vec<String> = Vec::new();
    loop {
        let from = i64::try_from(values.len()).expect("few records");
        let fetched = client.fetch("t", 0, from, Wait::NOT).await.expect("an answer");
        for record in fetched.records(1 << 20).expect("whole records") {
            let value = record.value.expect("a value");
            values.push(String::from_utf8(value.to_vec()).expect("text"));
        }
        if i64::try_from(values.len()).expect("few records") >= fetched.high_watermark {
            return values;
        }
    }
}

async fn commit_offset(server: &Server, committed_offset: i64) {
    let partition = OffsetCommitRequestPartition { committed_offset, ..Default::default() };
    let topic = OffsetCommitRequestTopic { name: "t".to_owned(), partitions: vec![partition] };
    let request = OffsetCommitRequest {
        group_id: "g".to_owned(),
        generation_id_or_member_epoch: -1,
        topics: vec![topic],
        ..Default::default()
    };
    let answer = server.client().await.call(&request).await.expect("an answer");
    assert_eq!(answer.topics[0].partitions[0].error_code, 0);
}

fn fetch_offset() -> OffsetFetchRequest {
    let topic = OffsetFetchRequestTopics { name: "t".to_owned(), partition_indexes: vec![0] };
    let topics = Some(vec![topic]);
    let group = OffsetFetchRequestGroup { group_id: "g".to_owned(), topics, ..Default::default() };
    OffsetFetchRequest { groups: vec![group], ..Default::default() }
}

fn writers(place: &Place) -> usize {
    fs::read_dir(place.store().join("floe/writers")).expect("readable").count()
}

fn expected(count: i64) -> Vec<String> {
    (0..count).map(|number| format!("{{\"id\": {number}}}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_is_lost_with_its_data_directory_loses_nothing_that_was_acknowledged() {
    let place = Place::new();
    let mut server = place.start(&["--journal", "bucket"]);
    create(&server).await;
    let mut count = 0;
    for lost in 1..=3 {
        produce(&server, count..count + 100).await;
        count += 100;
        commit_offset(&server, count - 7).await;
        drop(server);
        assert!(!place.data().join("journal").exists(), "the data directory has no journal");
        place.lose_data();
        place.whole();
        // The claim says where the journal is.
        server = place.start(&[]);
        assert_eq!(consumed(&server).await, expected(count));
        let row = server.sql("SELECT count(*) AS n, sum(id) AS s FROM t");
        assert_eq!((row["n"].as_i64(), row["s"].as_i64()), (Some(count), Some(count * (count - 1) / 2)));
        let group = server.client().await.call(&fetch_offset()).await.expect("an answer");
        let committed = group.groups[0].topics[0].partitions[0].committed_offset;
        assert_eq!(committed, count - 7);
        assert_eq!(writers(&place), lost + 1, "each start has a number of its own");
    }
    // The table's files have them too, after a while.
    let mut looks = 0;
    let lake = place.store().join("lake");
    while !fs::read_dir(&lake).is_ok_and(|mut tables| tables.next().is_some()) {
        looks += 1;
        assert!(looks < 200, "the table has files");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    server.stop().await;
    place.whole();
}

/// A crash between the journal and the claim leaves a journal that the next start goes on with, whatever it is told but
/// another kind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_start_that_was_cut_short_is_gone_on_with() {
    let place = Place::new();
    drop(place.start(&["--journal", "bucket"]));
    let claim = place.store().join("floe/cluster");
    let first = fs::read(&claim).expect("it claimed the store");
    fs::remove_file(&claim).expect("removed");
    place.lose_data();
    let refused = place.refused(&["--journal", "local"]);
    assert!(refused.contains("is a journal in the store"), "{refused}");
    let server = place.start(&[]);
    assert_eq!(fs::read(&claim).expect("it claimed the store"), first, "the same cluster, the same journal");
    create(&server).await;
    produce(&server, 0..3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_journal_than_that_of_the_cluster_is_refused_with_what_to_do() {
    let (place, other) = (Place::new(), Place::new());
    create(&place.start(&["--journal", "bucket"])).await;
    let refused = place.refused(&["--journal", "local"]);
    assert!(
        refused.contains("start with --journal bucket") && refused.contains("cannot be moved"),
        "{refused}"
    );
    let refused = place.refused(&["--journal", "postgres://ann:secret@127.0.0.1:1/meta"]);
    assert!(refused.contains("start with --journal bucket") && !refused.contains("secret"), "{refused}");

    // A directory with a journal of its own keeps it.
    create(&other.start(&[])).await;
    assert!(other.data().join("journal").exists());
    let refused = other.refused(&["--journal", "bucket"]);
    assert!(refused.contains("leave --journal out"), "{refused}");
    drop(other.start(&["--journal", "local"]));

    // It is not that of the first store.
    let (mine, theirs) = (place.data(), other.data());
    fs::remove_dir_all(&mine).expect("removed");
    fs::rename(&theirs, &mine).expect("moved");
    let refused = place.refused(&[]);
    assert!(refused.contains("another data directory"), "{refused}");
    // And the other store does not go without it.
    let refused = other.refused(&[]);
    assert!(refused.contains("there is no metadata in"), "{refused}");

    // The journal of another cluster in the place of that of the claim.
    let third = Place::new();
    drop(third.start(&["--journal", "bucket"]));
    let journal = place.store().join("journal");
    fs::rename(&journal, place.folder.path().join("aside")).expect("moved");
    fs::rename(third.store().join("journal"), &journal).expect("moved");
    place.lose_data();
    let refused = place.refused(&[]);
    assert!(refused.contains("of another cluster"), "{refused}");
    fs::remove_dir_all(&journal).expect("removed");
    let refused = place.refused(&[]);
    assert!(refused.contains("there is no journal in"), "none is made: {refused}");
    fs::rename(place.folder.path().join("aside"), &journal).expect("moved back");
    drop(place.start(&[]));
}

/// On a server that `interop/postgres` starts.
#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_journal_in_postgresql_a_lost_machine_loses_nothing_either() {
    let Ok(address) = std::env::var("FLOE_POSTGRES_ADDRESS") else {
        println!("left out: FLOE_POSTGRES_ADDRESS does not say where a server is (interop/postgres sets it)");
        return;
    };
    let (place, other, journal) = (Place::new(), Place::new(), ["--journal", &address]);
    let server = place.start(&journal);
    create(&server).await;
    produce(&server, 0..100).await;
    commit_offset(&server, 93).await;
    drop(server);
    place.lose_data();
    let refused = place.refused(&[]);
    assert!(refused.contains("say where, with --journal postgres://"), "{refused}");
    let elsewhere = format!("{}/template1", address.rsplit_once('/').expect("it names a database").0);
    let refused = place.refused(&["--journal", &elsewhere]);
    assert!(refused.contains("there is no journal of Floe in schema"), "none is made: {refused}");
    let refused = other.refused(&journal);
    assert!(refused.contains("has its records in another store"), "{refused}");

    let server = place.start(&journal);
    assert_eq!(consumed(&server).await, expected(100));
    let group = server.client().await.call(&fetch_offset()).await.expect("an answer");
    assert_eq!(group.groups[0].topics[0].partitions[0].committed_offset, 93);
    produce(&server, 100..150).await;
    assert_eq!(server.sql("SELECT count(*) AS n FROM t")["n"].as_i64(), Some(150));
    assert_eq!(writers(&place), 2);
    server.stop().await;
    let judged = place.check(&journal);
    assert!(judged.status.success(), "{}", said(&judged));
    assert!(!place.check(&[]).status.success(), "without an address nothing can be said of the metadata");
}

#[cfg(not(feature = "postgres"))]
#[test]
fn a_build_without_postgresql_names_the_feature() {
    let refused = Place::new().refused(&["--journal", "postgres://ann@127.0.0.1:1/meta"]);
    assert!(refused.contains("--features postgres"), "{refused}");
}

/// Of a broker that was stopped in order, the high water in the store shows every commit that is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_and_a_start_name_what_is_missing_in_the_journal() {
    let place = Place::new();
    let server = place.start(&["--journal", "bucket"]);
    create(&server).await;
    produce(&server, 0..50).await;
    let refused = said(&place.check(&[]));
    assert!(refused.contains("in use"), "{refused}");
    server.stop().await;
    place.whole();
    let judged = place.check(&["--json", "--journal", "bucket"]);
    let found: Value = serde_json::from_slice(&judged.stdout).expect("it is JSON");
    assert!(judged.status.success() && found["metadata"]["commits"].as_u64() > Some(50), "{found}");
    assert!(found["note"].to_string().contains("nothing marks the last entry"), "{found}");

    let entries = place.entries();
    let (middle, last) = (&entries[entries.len() / 2], entries.last().expect("there are entries"));
    for (entry, reason) in [(middle, "it is missing"), (last, "this metadata ends at commit")] {
        let aside = place.folder.path().join("entry");
        fs::rename(entry, &aside).expect("moved");
        let judged = place.check(&[]);
        assert!(!judged.status.success() && said(&judged).contains(reason), "{}", said(&judged));
        let refused = place.refused(&[]);
        assert!(refused.contains(if entry == last { "older than its store" } else { reason }), "{refused}");
        fs::rename(&aside, entry).expect("moved back");
    }

    // Bytes that ride with a commit: the commit stands, and the records are named.
    let riding = entries.iter().rev().find(|entry| fs::metadata(entry).expect("there").len() > 16 << 10);
    let riding = riding.expect("records ride with commits");
    let mut bytes = fs::read(riding).expect("readable");
    *bytes.last_mut().expect("bytes") ^= 1;
    fs::write(riding, &bytes).expect("written");
    let judged = place.check(&[]);
    assert!(!judged.status.success() && said(&judged).contains("topic t, partition 0"), "{}", said(&judged));
}

/// With a journal in the data directory nothing has changed: the claim names none.
#[test]
fn a_cluster_with_a_local_journal_has_the_claim_that_it_always_had() {
    let place = Place::new();
    drop(place.start(&[]));
    let claim = fs::read_to_string(place.store().join("floe/cluster")).expect("it claimed the store");
    assert!(claim.starts_with("floe cluster 1 ") && claim.len() == 38, "{claim}");
    assert!(place.data().join("journal/ring").exists() && !place.store().join("journal").exists());
}
