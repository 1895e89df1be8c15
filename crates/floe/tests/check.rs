//! `floe check` on data directories of the real binary: of a stopped broker, of a copy of a running one, of a killed
//! one, and of damaged ones.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use floe_client::Client;
use floe_env::{DataDir, Env};
use floe_log::codec::Compression;
use floe_log::records::Builder;
use floe_log::topic::NewTopic;
use floe_log::{Log, MergeSizes};
use floe_meta::{Meta, SqliteJournal};
use floe_store::local::LocalStore;
use tokio::net::TcpStream;

fn floe(arguments: &[&str], directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_floe"));
    command.args(arguments).arg(directory).stdin(Stdio::null()).env("NO_COLOR", "1");
    command
}

struct Server {
    child: Child,
    kafka: String,
}

impl Server {
    fn start(data: &Path) -> Server {
        let addresses = ["--kafka", "127.0.0.1:0", "--http", "127.0.0.1:0"];
        // The records of these tests are old.
        let for_ever = ["--retention-ms", "9223372036854775807"];
        let arguments = [&["serve"][..], &addresses, &for_ever, &["--data"]].concat();
        let mut child = floe(&arguments, data)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let lines = BufReader::new(child.stdout.take().expect("its output is piped")).lines();
        let ready = lines.map_while(Result::ok).find(|line| line.starts_with("floe is ready"));
        let ready = ready.expect("the server says that it is ready");
        let kafka = ready.split_whitespace().find_map(|word| word.strip_prefix("kafka="));
        Server { kafka: kafka.expect("an address").to_owned(), child }
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([name, &id]).status().expect("kill runs");
        assert!(sent.success(), "the process is there");
    }

    async fn stop(mut self) {
        // It listens for signals a moment after it says that it is ready.
        tokio::time::sleep(Duration::from_millis(300)).await;
        self.signal("-TERM");
        assert!(self.child.wait().expect("it ends").success());
    }

    async fn client(&self) -> Client<TcpStream> {
        Client::connect(&self.kafka, "test").await.expect("it listens")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // `kill` is SIGKILL. A process that has ended already is no error here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn batch(text: &str) -> Bytes {
    let mut builder = Builder::new(Compression::None);
    builder.push(1_767_225_600_000, None, Some(text.as_bytes()), &[]);
    builder.build()
}

fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().expect("a temporary folder");
    let copied = Command::new("cp").arg("-a").arg(from).arg(to.path().join("data")).status();
    assert!(copied.expect("cp runs").success());
    to
}

fn check(directory: &Path, more: &[&str]) -> Output {
    floe(&[&["check"], more].concat(), directory).output().expect("it runs")
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("the output is text");
    text(&output.stdout) + &text(&output.stderr)
}

/// The pack that holds objects.
fn pack(data: &Path) -> PathBuf {
    let packs =
        fs::read_dir(data.join("store/packs")).expect("readable").map(|entry| entry.expect("one").path());
    let used = |path: &PathBuf| fs::read(path).expect("readable").starts_with(b"FLOEPACK");
    packs.into_iter().find(used).expect("a pack is in use")
}

/// A broker with some records in a topic, and its data directory.
async fn broker(data: &Path) -> Server {
    let server = Server::start(data);
    server.client().await.create_topic("t", 1, &[]).await.expect("created");
    produce(&server, 20).await;
    server
}

async fn produce(server: &Server, records: usize) {
    let mut client = server.client().await;
    for _ in 0..records {
        client.produce("t", 0, batch("value"), -1).await.expect("acknowledged");
    }
}

/// What was said about a directory with a fault.
fn faulty(directory: &Path) -> String {
    let judged = check(directory, &[]);
    assert!(!judged.status.success(), "{}", said(&judged));
    said(&judged)
}

fn whole(directory: &Path) {
    let judged = check(directory, &[]);
    assert!(judged.status.success(), "{}", said(&judged));
}

/// A client writes all the time. The copy of a process that stands still is a backup.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_broker_that_stands_still_is_a_backup() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let server = broker(&data).await;
    let (done, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (until, count) = (Arc::clone(&done), Arc::clone(&acknowledged));
    let mut client = server.client().await;
    let writing = Env::real().spawn("client", async move {
        while !until.load(Ordering::SeqCst) {
            client.produce("t", 0, batch("value"), -1).await.expect("acknowledged");
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.signal("-STOP");
        let before = acknowledged.load(Ordering::SeqCst);
        let backup = copy(&data);
        server.signal("-CONT");
        whole(&backup.path().join("data"));
        let restored = Server::start(&backup.path().join("data"));
        let end = restored.client().await.list_offsets("t", 0, floe_client::LATEST).await.expect("an offset");
        assert!(end.offset >= before as i64, "{} records of {before}", end.offset);
        restored.stop().await;
    }
    assert!(faulty(&data).contains("in use"));
    done.store(true, Ordering::SeqCst);
    writing.await.expect("every record was acknowledged");
}

/// Killed, started and stopped: everything is in the files. A journal from a backup beside the newer store is named by
/// `check` and refused by `serve`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_journal_beside_a_newer_store_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let server = broker(&data).await;
    server.signal("-STOP");
    let older = copy(&data);
    server.signal("-CONT");
    produce(&server, 600).await;
    drop(server);
    whole(&data);
    Server::start(&data).stop().await;
    let stopped = check(&data, &["--json"]);
    assert!(stopped.status.success() && said(&stopped).contains("\"refused\":[]"), "{}", said(&stopped));

    let journal = data.join("journal");
    fs::remove_dir_all(&journal).expect("removed");
    let restored = Command::new("cp").arg("-a").arg(older.path().join("data/journal")).arg(&journal).status();
    assert!(restored.expect("cp runs").success());
    assert!(faulty(&data).contains("this metadata ends at commit"));
    let arguments = ["serve", "--kafka", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"];
    let refused = floe(&arguments, &data).output().expect("it runs");
    assert!(
        !refused.status.success() && said(&refused).contains("older than its store"),
        "{}",
        said(&refused)
    );
}

/// A start beside a store that is in use makes no new journal: its files would be in the way of those of a backup.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_that_is_missing_is_not_made_anew() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    broker(&data).await.stop().await;
    let (journal, aside) = (data.join("journal"), folder.path().join("aside"));
    fs::rename(&journal, &aside).expect("moved");
    let arguments = ["serve", "--kafka", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"];
    let refused = floe(&arguments, &data).output().expect("it runs");
    assert!(
        !refused.status.success() && said(&refused).contains("there is no metadata in"),
        "{}",
        said(&refused)
    );
    assert!(!journal.exists(), "nothing is in the way of a backup");
    fs::rename(&aside, &journal).expect("moved back");
    whole(&data);
}

/// A pack that was moved away is named. Put back, everything is whole again. A rotten image is repaired.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_named_and_what_can_be_is_mended() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    broker(&data).await.stop().await;
    let path = pack(&data);
    let aside = path.with_extension("aside");
    fs::rename(&path, &aside).expect("moved");
    let named = faulty(&data);
    assert!(named.contains("is missing") && named.contains(".aside"), "{named}");
    Server::start(&data).stop().await;
    fs::rename(&aside, path.with_file_name("pack-00000099")).expect("moved back");
    whole(&data);

    let images = fs::read_dir(data.join("journal/image")).expect("readable");
    let image = images.map(|entry| entry.expect("one").path()).max().expect("there is an image");
    let mut bytes = fs::read(&image).expect("readable");
    // An image of few keys has zeros at its end, which mean nothing.
    let last = bytes.iter().rposition(|byte| *byte != 0).expect("an image has a header");
    bytes[last] ^= 1;
    fs::write(&image, &bytes).expect("written");
    assert!(faulty(&data).contains("repairable"));
    let repaired = check(&data, &["--repair"]);
    assert!(repaired.status.success(), "{}", said(&repaired));
    Server::start(&data).stop().await;
    whole(&data);

    // What a start refuses is named, and the line that mends it.
    let format = data.join("FORMAT");
    let text = fs::read(&format).expect("readable");
    fs::write(&format, [&[text[0] ^ 1], &text[1..]].concat()).expect("written");
    let named = faulty(&data);
    assert!(named.contains("refused") && named.contains("one line \"floe 1\""), "{named}");
    fs::write(&format, text).expect("written");
    whole(&data);

    // A store that is gone is named beside the other fault, and what to do about each.
    let (store, moved) = (data.join("store"), folder.path().join("store"));
    fs::write(&format, "gloe 1\n").expect("written");
    fs::rename(&store, &moved).expect("moved");
    let named = faulty(&data);
    for part in ["one line \"floe 1\"", "store is missing", "--store s3://", "found 2 faults"] {
        assert!(named.contains(part), "`{part}` in {named}");
    }
    fs::remove_file(&format).expect("removed");
    let named = faulty(&data);
    assert!(named.contains("FORMAT is missing") && named.contains("found 2 faults"), "{named}");
    fs::write(&format, "floe 1\n").expect("written");
    fs::rename(data.join("journal/image"), data.join("journal/images")).expect("moved");
    let named = faulty(&data);
    assert!(named.contains("the metadata cannot be read") && named.contains("store is missing"), "{named}");
}

/// A data directory whose log has one segment, merged of many objects, and objects in a pack. Returns the segment.
async fn merged(data: &Path) -> PathBuf {
    let env = Env::real();
    let directory = DataDir::open(data).expect("it is new");
    let journal = SqliteJournal::open_with(&env, &data.join("journal"), 0).expect("it opens");
    let meta =
        Meta::open(env.clone(), Arc::new(journal), floe_meta::Options::default()).await.expect("it opens");
    let options =
        floe_store::local::Options { disk_reserve_bytes: 0, ..floe_store::local::Options::default() };
    let store = LocalStore::open(env.clone(), data.join("store"), options).await.expect("it opens");
    let merge = MergeSizes { small_objects: 8, ..MergeSizes::default() };
    let never = Duration::from_secs(100_000);
    let config = floe_log::Config {
        sole: true,
        merge,
        times: floe_log::Times { merge_pause: never, ..floe_log::Config::default().times },
        ..floe_log::Config::default()
    };
    let log = Log::open(env.clone(), meta, Arc::new(store), config).await.expect("it opens");
    let writer = floe_log::Writer::new("User:test", "test");
    let new = NewTopic { name: "t".to_owned(), partitions: 2, ..NewTopic::default() };
    let topic = log.create_topic(&writer, new, false).await.expect("it is new");
    for number in 0..24 {
        let partition = floe_log::PartitionId::new(topic.id, number % 2);
        let batches = vec![(partition, batch(&"value".repeat(300)))];
        let appended = log.append(floe_log::Append { writer: writer.clone(), batches }).await;
        assert!(appended.iter().all(Result::is_ok));
        if number == 17 {
            // What a broker does by itself, after a while.
            while log.merge().await.expect("it merges").more {}
        }
    }
    log.close().await;
    env.abort_all();
    env.drained().await;
    drop(directory);
    let folder = data.join("store/segment/1");
    let mut segments = fs::read_dir(folder).expect("there are some").map(|entry| entry.expect("one").path());
    segments.next().expect("one was written")
}

/// Bytes all over a segment, and one in a pack: each is found, with its topic, partition and offsets, and put back all
/// is whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_changed_byte_of_the_log_is_found() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let segment = merged(&data).await;
    whole(&data);
    let bytes = fs::read(&segment).expect("readable");
    for at in (0..bytes.len()).step_by(bytes.len() / 24) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        fs::write(&segment, &flipped).expect("written");
        let named = faulty(&data);
        assert!(named.contains("segment/1/"), "byte {at}: {named}");
        let quick = check(&data, &["--quick"]);
        assert!(quick.status.success(), "it does not read it: {}", said(&quick));
    }
    let mut flipped = bytes.clone();
    flipped[16 + 100] ^= 1;
    fs::write(&segment, &flipped).expect("written");
    let named = faulty(&data);
    assert!(named.contains("topic t, partition 0, offsets 0 to 0"), "{named}");
    let json: serde_json::Value = serde_json::from_slice(&check(&data, &["--json"]).stdout).expect("JSON");
    let one = &json["damaged_records"][0];
    assert_eq!((&one["topic"], &one["partition"], &one["next_offset"]), (&"t".into(), &0.into(), &1.into()));
    assert!(one["object"].as_str().is_some_and(|key| key.starts_with("segment/1/")), "{json}");
    fs::write(&segment, &bytes).expect("written");

    let pack = pack(&data);
    let packed = fs::read(&pack).expect("readable");
    let at = packed.windows(10).rposition(|window| window == b"valuevalue").expect("a value");
    let mut flipped = packed.clone();
    flipped[at] ^= 1;
    fs::write(&pack, &flipped).expect("written");
    let named = faulty(&data);
    assert!(named.contains("topic t, partition 1, offsets 11 to 11"), "{named}");
    fs::write(&pack, &packed).expect("written");
    whole(&data);
}

/// Everything else is as it was: nothing is written into a directory that is not Floe's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_none_of_floes_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (data, typo) = (folder.path().join("data"), folder.path().join("dato"));
    let named = faulty(&typo);
    assert!(named.contains("No such file") && !typo.exists(), "{named}");
    fs::create_dir(&typo).expect("created");
    let named = faulty(&typo);
    assert!(named.contains("is empty") && named.contains("floe serve --data"), "{named}");
    fs::write(typo.join("thesis.txt"), "x").expect("written");
    let named = faulty(&typo);
    assert!(named.contains("is not a data directory of Floe") && named.contains("./floe-data"), "{named}");
    assert_eq!(fs::read_dir(&typo).expect("readable").count(), 1);

    broker(&data).await.stop().await;
    for place in ["notes.txt", "journal/notes.txt", "store/notes.txt", "store/packs/notes.txt"] {
        let file = data.join(place);
        fs::write(&file, "x").expect("written");
        let judged = check(&data, &[]);
        let line = format!("{}: this name is none of", file.display());
        assert!(judged.status.success() && said(&judged).contains(&line), "{}", said(&judged));
    }
    assert_eq!(said(&check(&data, &[])).matches("this name is none of").count(), 4);
}

/// Records that are still in the journal, because nothing has merged them: a changed byte of one is named with its
/// topic, partition and offset, and all else is whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_records_in_the_journal_are_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    broker(&data).await.stop().await;
    let judged = said(&check(&data, &[]));
    assert!(judged.contains("is still in the journal was compared"), "{judged}");
    let ring =
        fs::read_dir(data.join("journal/ring")).expect("readable").map(|file| file.expect("one").path());
    let value = |file: &PathBuf| {
        let bytes = fs::read(file).expect("readable");
        bytes.windows(5).rposition(|window| window == b"value")
    };
    let mut found = ring.filter_map(|file| value(&file).map(|at| (file, at)));
    let (file, at) = found.next().expect("the records are there");
    let mut bytes = fs::read(&file).expect("readable");
    bytes[at] ^= 1;
    fs::write(&file, &bytes).expect("written");
    let named = faulty(&data);
    assert!(
        named.contains("topic t, partition 0, offsets 19 to 19") && named.contains("found 1 fault"),
        "{named}"
    );
    let named = said(&check(&data, &["--json"]));
    assert!(named.contains("\"commit\":") && named.contains("\"first_offset\":19"), "{named}");
}
