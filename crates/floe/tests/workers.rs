//! SQL statements in processes of their own, with the real program: what they take is measured, and whatever they do,
//! the broker lives, other statements are answered, and nothing is left.

#![allow(clippy::print_stdout, reason = "a failed test shows its figures and the broker's log")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use floe_env::Env;

/// What all statements may take here.
const MEMORY: u64 = 256 << 20;
/// Beside it: what the broker sees too late.
const OVERSHOOT: u64 = MEMORY / 5;
/// What a worker has at its start, and a little more.
const WORKER_BASE: u64 = 24 << 20;
/// What the broker holds for all workers: their frames, what it reads for them, and the answers to HTTP clients.
const BROKER: u64 = 96 << 20;
/// Bytes of an answer that are kept.
const ANSWER_BYTES: usize = 1 << 20;
/// The deadline of statements.
const SECONDS: u64 = 8;

/// A running broker; killed when dropped.
struct Broker {
    child: Child,
    http: String,
    folder: tempfile::TempDir,
}

impl Broker {
    fn start(settings: &[&str]) -> Broker {
        Broker::with(SECONDS, settings)
    }

    fn with(seconds: u64, settings: &[&str]) -> Broker {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = File::create(folder.path().join("log")).expect("the log file opens");
        let mut child = Command::new(env!("CARGO_BIN_EXE_floe"))
            .args(["serve", "--kafka", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"])
            .arg(folder.path().join("data"))
            .args(["--sql-timeout-ms", &(seconds * 1_000).to_string()])
            .args(settings)
            .env("FLOE_SQL_MEMORY_BYTES", MEMORY.to_string())
            .env("FLOE_SQL_FAULTS", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        let mut ready = String::new();
        let mut output = BufReader::new(child.stdout.take().expect("its output is piped"));
        output.read_line(&mut ready).expect("it is text");
        let http = ready.split_whitespace().find_map(|word| word.strip_prefix("http="));
        let http = http.unwrap_or_else(|| panic!("`{ready}` has an address")).to_owned();
        Broker { child, http, folder }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).expect("the log is there")
    }

    /// The status of an answer, and its body, as far as it came.
    fn ask(&self, statement: &str, accept: &str) -> (u16, String) {
        ask(&self.http, statement, accept)
    }

    fn number(&self, statement: &str) -> String {
        let (status, body) = self.ask(statement, "text/csv");
        assert_eq!(status, 200, "{statement}: {body}");
        body.lines().nth(1).unwrap_or_default().to_owned()
    }

    /// The processes of its workers.
    fn workers(&self) -> BTreeSet<u32> {
        children(self.child.id())
    }

    /// Files that statements have spilled.
    fn spilled(&self) -> usize {
        files(&self.folder.path().join("data/spill"))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("{}", self.log());
        }
    }
}

/// The status of an answer, and its body, as far as it came.
fn ask(http: &str, statement: &str, accept: &str) -> (u16, String) {
    let (status, body, _) = ask_all(http, statement, accept);
    (status, body)
}

/// The status of an answer, the first part of its body, and how many bytes the body had.
fn ask_all(http: &str, statement: &str, accept: &str) -> (u16, String, usize) {
    let body = serde_json::json!({ "query": statement }).to_string();
    let mut stream = TcpStream::connect(http).expect("it listens");
    let head = format!(
        "POST /api/v1/sql HTTP/1.0\r\nhost: localhost\r\ncontent-type: application/json\r\naccept: {accept}\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).expect("it reads");
    let (mut answer, mut bytes) = (Vec::new(), 0);
    let mut part = vec![0; 1 << 16];
    // The end of an answer that failed in the middle is an error of the connection.
    while let Ok(length) = stream.read(&mut part) {
        if length == 0 {
            break;
        }
        let room = ANSWER_BYTES.saturating_sub(answer.len()).min(length);
        answer.extend_from_slice(&part[..room]);
        bytes += length;
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no status in `{head}`"));
    (status, body.to_owned(), bytes - head.len() - "\r\n\r\n".len())
}

fn children(of: u32) -> BTreeSet<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{of}/task")) else { return BTreeSet::new() };
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

fn files(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let entries = entries.map_while(Result::ok).map(|entry| entry.path());
    entries.map(|path| if path.is_dir() { files(&path) } else { 1 }).sum()
}

/// Bytes of a process that it shares with no other; none if it has ended.
fn private(pid: u32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: Vec<u64> = statm.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    Some(pages.get(1)?.saturating_sub(*pages.get(2)?) * 4_096)
}

/// Looks at the memory all the time until it is dropped.
struct Meter {
    goes_on: Arc<AtomicBool>,
    workers: Arc<AtomicU64>,
    broker: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Meter {
    fn start(env: &Env, broker: &Broker) -> Meter {
        let pid = broker.child.id();
        let goes_on = Arc::new(AtomicBool::new(true));
        let (workers, of_broker) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (on, all, own) = (goes_on.clone(), workers.clone(), of_broker.clone());
        let before = private(pid).expect("it runs");
        let measure = move || {
            while on.load(SeqCst) {
                let taken = children(pid).into_iter().filter_map(private);
                all.fetch_max(taken.map(|bytes| bytes.saturating_sub(WORKER_BASE)).sum(), SeqCst);
                own.fetch_max(private(pid).unwrap_or(0).saturating_sub(before), SeqCst);
                std::thread::park_timeout(Duration::from_millis(2));
            }
        };
        let thread = env.thread("meter", measure).expect("a thread");
        Meter { goes_on, workers, broker: of_broker, thread: Some(thread) }
    }

    /// The most that the workers had beyond their base, and that the broker had beyond its own, since the last call.
    fn take(&self) -> (u64, u64) {
        (self.workers.swap(0, SeqCst), self.broker.swap(0, SeqCst))
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.goes_on.store(false, SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listed(count: usize, part: impl Fn(usize) -> String) -> String {
    (0..count).map(part).collect::<Vec<_>>().join(",")
}

/// Statements that ask for much memory or time. Those with `true` cannot be answered within the limit.
fn greedy() -> Vec<(String, bool)> {
    let long = "(select repeat('x', 60000000) s) q";
    let texts = "(select repeat('x', 20000 + cast(value as bigint)) s from generate_series(1, 8192)) q";
    let text = |text: &str| text.to_owned();
    let refused = [
        format!("select length({}s) from {long}", "s||".repeat(80)),
        text("select length(array_to_string(range(0,1000000), repeat('x',100000)))"),
        format!("select {} from {long}", listed(200, |n| format!("s s{n}"))),
        format!("select named_struct({}) v from {long}", listed(100, |n| format!("'f{n}',s"))),
        format!("select make_array({}) v from {long}", listed(100, |_| text("s"))),
        format!("select {} from {long}", listed(40, |n| format!("upper(s) u{n}"))),
        // Time.
        text("select count(*) from generate_series(1, 1000000) a, generate_series(1, 1000000) b"),
        // Room that is allocated before there is a row.
        format!("select {}", percentile("approx_percentile_cont(0.5, 9000000000000000000)")),
        format!("select {}", percentile("approx_percentile_cont_with_weight(1, 0.5, 20000000000000)")),
    ];
    let upper = listed(5, |n| format!("sum(length(upper(s)||'{n}')) u{n}"));
    let joined = listed(5, |n| format!("s||'{n}' u{n}"));
    let constants = listed(400, |n| format!("'{}' c{n}", "x".repeat(500)));
    let any = [
        format!("select {upper} from {texts}"),
        format!("select max(length(encode(arrow_cast(s, 'Binary'), 'hex'))) from {texts}"),
        format!("select max(array_length(string_to_array(s, 'x'))) from {texts}"),
        format!("select max(length(regexp_replace(s, 'x', 'yz', 'g'))) from {texts}"),
        format!("select max(length(s)) from (select s, {joined} from {texts})"),
        format!("select {constants} from generate_series(1, 1000000)"),
        text(
            "select sum(levenshtein(repeat('a', 20000), repeat('b', 20000) || value)) from generate_series(1, 1000)",
        ),
    ];
    let marked = |all: Vec<String>, is_refused| all.into_iter().map(move |statement| (statement, is_refused));
    marked(refused.to_vec(), true)
        .chain(marked(any.to_vec(), false))
        .chain(marked(copying(), false))
        .collect()
}

fn percentile(call: &str) -> String {
    format!("{call} within group (order by value) v from generate_series(1,3)")
}

/// Statements whose operators copy rows of any width, 8,192 at a time.
fn copying() -> Vec<String> {
    let wide =
        "(select repeat('x', 3000 + cast(value % 9 as bigint)) s, value v from generate_series(1, 8192)) q";
    let (left, right) = (wide.replace(") q", ") a"), wide.replace(") q", ") b"));
    vec![
        format!("select max(length(s || u)) from (select s, unnest(range(0, 300)) u from {wide})"),
        format!(
            "select max(length(s)) from (select s from {wide}, generate_series(1, 60) order by s desc, v)"
        ),
        format!("select array_length(array_agg(s)) from {wide}, generate_series(1, 60)"),
        format!("select length(string_agg(s, ',')) from {wide}, generate_series(1, 60)"),
        format!(
            "select max(length(p)) from (select lag(s, 5000) over (order by v) p from {wide}, generate_series(1, 20))"
        ),
        format!(
            "select count(*) from (select s, v, w, count(*) from {wide}, generate_series(1, 60) r(w) group by s, v, w)"
        ),
        format!("select max(length(a.s) + length(b.s)) from {left} full join {right} on a.v % 40 = b.v % 40"),
        format!(
            "select max(length(a.s || b.s)) from {left} join {right} on a.v % 40 = b.v % 40 and a.s || b.s > ''"
        ),
        format!("select distinct on (v % 9) s, v from {wide}, generate_series(1, 60) order by v % 9, s, v"),
    ]
}

#[test]
fn statements_take_no_more_than_their_memory_and_their_time() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let _inside = runtime.enter();
    let env = Env::real();
    let broker = Broker::start(&["--sql-spill-bytes", "1073741824"]);
    assert_eq!(broker.number("select 1"), "1");
    let meter = Meter::start(&env, &broker);
    // Others ask meanwhile, and are answered.
    let asks = Arc::new(AtomicBool::new(true));
    let (goes_on, http) = (asks.clone(), broker.http.clone());
    let (tell, told) = std::sync::mpsc::channel();
    let others = move || {
        let mut answers = Vec::new();
        while goes_on.load(SeqCst) {
            answers.push(ask(&http, "select count(*) from generate_series(1, 1000)", "text/csv"));
            std::thread::park_timeout(Duration::from_millis(50));
        }
        let _ = tell.send(answers);
    };
    env.thread("others", others).expect("a thread");
    for (number, (statement, is_refused)) in greedy().into_iter().enumerate() {
        let formats = ["application/json", "text/csv", "application/vnd.apache.arrow.stream"];
        // The large rows matter in each format.
        for accept in if is_refused { &formats[..] } else { &formats[number % 3..][..1] } {
            let started = env.monotonic();
            let (status, body) = broker.ask(&statement, accept);
            let took = env.monotonic() - started;
            let (workers, of_broker) = meter.take();
            println!("{} MiB, {} MiB, {took:.1?}, {status}: {statement:.90}", workers >> 20, of_broker >> 20);
            assert!(workers <= MEMORY + OVERSHOOT, "{} MiB: {statement:.200}", workers >> 20);
            assert!(of_broker <= BROKER, "the broker took {} MiB: {statement:.200}", of_broker >> 20);
            assert!(took < Duration::from_secs(SECONDS + 2), "{took:?}: {statement:.200}");
            assert!(status == 422 || status == 200, "{status} {body:.500}: {statement:.200}");
            assert!(status == 422 || !is_refused || accept.contains("arrow"), "{status}: {statement:.200}");
        }
    }
    asks.store(false, SeqCst);
    let answers = told.recv_timeout(Duration::from_secs(30)).expect("it ends");
    let wrong: Vec<_> = answers.iter().filter(|(status, _)| *status != 200).collect();
    assert!(answers.len() > 20 && wrong.is_empty(), "{} of {}: {wrong:?}", wrong.len(), answers.len());
    assert_eq!((broker.number("select 1").as_str(), broker.spilled()), ("1", 0));
}

/// Several statements that want all the memory at once, one that wants little, and one that wants some. The last two do
/// not end for the memory of the others, nor for that of others that are ending.
#[test]
fn all_statements_together_have_one_limit() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let _inside = runtime.enter();
    let env = Env::real();
    // Time is not the matter here.
    let broker = Broker::with(60, &[]);
    let meter = Meter::start(&env, &broker);
    for _ in 0..3 {
        let (tell, told) = std::sync::mpsc::channel();
        for _ in 0..4 {
            let (http, tell) = (broker.http.clone(), tell.clone());
            let eat = move || drop(tell.send(ask(&http, "floe-fault eat", "text/csv")));
            env.thread("eats", eat).expect("a thread");
        }
        drop(tell);
        let http = broker.http.clone();
        let (tell_some, told_some) = std::sync::mpsc::channel();
        let some = "select count(*) from (select m, count(*) from (select md5(cast(value as text)) m from \
                    generate_series(1, 200000)) group by m)";
        env.thread("wants some", move || drop(tell_some.send(ask(&http, some, "text/csv"))))
            .expect("a thread");
        let modest = "select count(*) from generate_series(1, 3000000) where value % 7 = 3";
        assert_eq!(broker.number(modest), "428572");
        let (status, body) = told_some.recv().expect("it is answered");
        assert!(status == 200 && body.ends_with("\n200000\n"), "{status} {body}");
        for (status, body) in told {
            assert!(status == 422 && body.contains("sql_memory_bytes"), "{status} {body}");
        }
        let (workers, _) = meter.take();
        println!("{} MiB", workers >> 20);
        assert!(workers > MEMORY / 2 && workers <= MEMORY + OVERSHOOT, "{} MiB", workers >> 20);
    }
    assert_eq!(broker.number("select 1"), "1");
}

/// Waits until something holds.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if holds() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    panic!("not within 10 s: {what}");
}

#[test]
fn a_worker_that_misbehaves_ends_its_statement_alone() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let _inside = runtime.enter();
    let env = Env::real();
    let broker = Broker::with(10, &[]);
    for _ in 0..2 {
        let (status, body) = broker.ask("floe-fault abort", "text/csv");
        assert!(status == 500 && body.contains("see "), "{status} {body}");
        let (status, body) = broker.ask("floe-fault overflow", "text/csv");
        assert!(status == 500 && body.contains("see "), "{status} {body}");
        let (status, body) = broker.ask("floe-fault allocate", "text/csv");
        assert!(status == 422 && body.contains("sql_memory_bytes"), "{status} {body}");
        let meter = Meter::start(&env, &broker);
        let (status, body) = broker.ask("floe-fault eat", "text/csv");
        let (workers, _) = meter.take();
        assert!(status == 422 && body.contains("sql_memory_bytes"), "{status} {body}");
        assert!(workers > MEMORY / 2 && workers <= MEMORY + OVERSHOOT, "{} MiB", workers >> 20);
        let started = env.monotonic();
        let (status, body) = broker.ask("floe-fault spin", "text/csv");
        assert!(status == 422 && body.contains("longer than 10 s"), "{status} {body}");
        assert!(env.monotonic() - started < Duration::from_secs(13));
        assert_eq!(broker.number("select 1"), "1");
    }
    let log = broker.log();
    for part in ["planted fault", "has overflowed its stack", "memory allocation of"] {
        assert!(log.contains(part), "`{part}` in {log}");
    }
    // A worker that somebody else ends.
    let workers = broker.workers();
    assert!(!workers.is_empty(), "one is ready");
    for worker in &workers {
        let killed = Command::new("kill").args(["-KILL", &worker.to_string()]).status().expect("kill runs");
        assert!(killed.success());
    }
    until("they are gone", || broker.workers().is_disjoint(&workers));
    // One of them may have been starting. Then the broker waits a moment before it tries again, and says so.
    until("statements are answered", || broker.ask("select 1", "text/csv").0 == 200);
}

#[test]
fn workers_have_nothing_of_their_broker_and_end_with_it() {
    let mut broker = Broker::start(&[]);
    assert_eq!(broker.number("select 1"), "1");
    until("the statement's worker and the one ahead of need", || broker.workers().len() == 2);
    let files_of = |pid: u32| -> BTreeSet<String> {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("its files are listed");
        let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        links.map(|link| link.display().to_string()).collect()
    };
    let of_broker = files_of(broker.child.id());
    for worker in broker.workers() {
        // Between its start and its first words it is not itself yet.
        let score = || fs::read_to_string(format!("/proc/{worker}/oom_score_adj")).unwrap_or_default();
        until("it is the first that ends without memory", || score().trim() == "1000");
        for file in files_of(worker) {
            let common = of_broker.contains(&file) && !file.starts_with("anon_inode:") && file != "/dev/null";
            // Both ends of a pipe have one name: this is its standard error.
            assert!(!common || file.starts_with("pipe:"), "a worker has {file}");
            assert!(!file.contains("/data/") || file.contains("/spill/"), "a worker has {file}");
        }
        let environment = fs::read(format!("/proc/{worker}/environ")).expect("it is there");
        assert_eq!(environment, b"MIMALLOC_PURGE_DELAY=0\0", "secrets are in the environment");
        // Signals that a terminal or a service manager sends to all are not for workers.
        for signal in ["-INT", "-TERM", "-HUP"] {
            let sent = Command::new("kill").args([signal, &worker.to_string()]).status().expect("kill runs");
            assert!(sent.success());
        }
    }
    let workers = broker.workers();
    assert_eq!(broker.number("select 1"), "1");
    assert_eq!(broker.workers(), workers);
    // One is busy, as well.
    let http = broker.http.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let _inside = runtime.enter();
    let busy = move || {
        let mut stream = TcpStream::connect(&http).expect("it listens");
        let body = r#"{"query":"floe-fault spin"}"#;
        let head = format!(
            "POST /api/v1/sql HTTP/1.0\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("it reads");
        let _ = stream.read(&mut [0; 1]);
    };
    Env::real().thread("busy", busy).expect("a thread");
    until("it runs", || broker.workers().len() >= 2 && is_spinning(&broker.workers()));
    let workers = broker.workers();
    // The broker itself stops them for moments.
    for worker in &workers {
        let stopped = Command::new("kill").args(["-STOP", &worker.to_string()]).status().expect("kill runs");
        assert!(stopped.success());
    }
    broker.child.kill().expect("it runs");
    broker.child.wait().expect("it was killed");
    until("no worker is left", || workers.iter().all(|worker| has_ended(*worker)));
}

/// Whether one of the processes uses the processor.
fn is_spinning(workers: &BTreeSet<u32>) -> bool {
    let ticks = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        fields.get(11).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(0)
    };
    let before: u64 = workers.iter().map(ticks).sum();
    // On a busy machine it gets a small part of a processor.
    std::thread::park_timeout(Duration::from_millis(300));
    workers.iter().map(ticks).sum::<u64>() > before + 2
}

/// Whether a process has ended. One that nobody has waited for is a zombie.
fn has_ended(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_none_or(|rest| rest.trim().is_empty() || rest.trim().starts_with('Z'))
}

/// The engine counts a buffer once for each batch that shares it: such a sort was refused with most of the memory free.
/// Its merge read all that was spilled at once, and was ended for that.
#[test]
fn wide_rows_are_sorted_in_the_memory_that_there_is() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let _inside = runtime.enter();
    let env = Env::real();
    let broker = Broker::with(120, &["--sql-spill-bytes", "4294967296"]);
    assert_eq!(broker.number("select 1"), "1");
    let meter = Meter::start(&env, &broker);
    for (rows, times) in [(100_000, 40), (20_000, 150), (30_000, 300)] {
        let wide = format!(
            "select m, repeat(m, {times}) p from (select md5(cast(value as text)) m from generate_series(1, {rows}))"
        );
        let sorted = format!("select m, p from ({wide}) order by m");
        let (status, body, bytes) = ask_all(&broker.http, &sorted, "text/csv");
        let (workers, _) = meter.take();
        println!("{} MiB", workers >> 20);
        assert_eq!(status, 200, "{body:.500}");
        // A statement that ends in the middle of its answer has a status, too.
        assert_eq!(bytes, "m,p\n".len() + rows * (32 + ",".len() + 32 * times + "\n".len()));
        let keys: Vec<&str> =
            body.lines().skip(1).filter_map(|line| line.split_once(',')).map(|(m, _)| m).collect();
        assert!(keys.len() > 100 && keys.is_sorted(), "{} rows", keys.len());
        assert!(workers <= MEMORY + OVERSHOOT, "{} MiB", workers >> 20);
    }
    // A text that no message to a worker could hold is refused before it takes a turn.
    let (status, body) = broker.ask(&format!("select '{}'", "x".repeat(1_100_000)), "text/csv");
    assert!(status == 422 && body.contains("at most 262144 are read"), "{status} {body:.500}");
}

/// A broker that is killed before it has read what its workers said resets their sockets.
#[test]
fn a_worker_ends_with_a_broker_that_has_not_read_its_last_words() {
    for parked in [0, 10, 20, 40] {
        let mut broker = Broker::start(&[]);
        until("a worker starts", || !broker.workers().is_empty());
        std::thread::park_timeout(Duration::from_millis(parked));
        let id = broker.child.id().to_string();
        assert!(Command::new("kill").args(["-STOP", &id]).status().expect("kill runs").success());
        // Time for the worker to say that it is ready.
        std::thread::park_timeout(Duration::from_millis(600));
        let workers = broker.workers();
        broker.child.kill().expect("it is there");
        broker.child.wait().expect("it was killed");
        until("no worker is left", || workers.iter().all(|worker| has_ended(*worker)));
    }
}

/// Nothing stops a function within its row. A worker that may still have one at work is not for the next statement.
#[test]
fn a_worker_whose_statement_was_late_is_not_used_again() {
    let broker = Broker::with(1, &[]);
    assert_eq!(broker.number("select 1"), "1");
    until("the statement's worker and the one ahead of need", || broker.workers().len() == 2);
    let workers = broker.workers();
    let slow = "select sum(levenshtein(repeat('a', 30000), repeat('b', 30000) || value)) from generate_series(1, 60)";
    let (status, body) = broker.ask(slow, "text/csv");
    assert!(status == 422 && body.contains("longer than 1 s"), "{status} {body}");
    until("its worker is gone", || workers.iter().any(|worker| has_ended(*worker)));
}

#[test]
fn a_broker_that_is_stopped_leaves_no_worker() {
    let mut broker = Broker::start(&[]);
    assert_eq!(broker.number("select 1"), "1");
    let workers = broker.workers();
    let id = broker.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().expect("kill runs").success());
    assert!(broker.child.wait().expect("it ends").success());
    until("no worker is left", || workers.iter().all(|worker| has_ended(*worker)));
    assert_eq!(broker.spilled(), 0);
}

/// Service managers wait about ten seconds before they kill.
#[test]
fn a_broker_that_is_stopped_does_not_wait_for_a_long_statement() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let _inside = runtime.enter();
    let env = Env::real();
    let mut broker = Broker::with(60, &[]);
    let http = broker.http.clone();
    let (tell, told) = std::sync::mpsc::channel();
    let long = move || {
        let long = "select count(*) from generate_series(1, 1000000) a, generate_series(1, 1000000) b";
        let _ = tell.send(ask(&http, long, "text/csv"));
    };
    env.thread("asks", long).expect("a thread");
    until("it runs", || is_spinning(&broker.workers()));
    let workers = broker.workers();
    let (id, asked) = (broker.child.id().to_string(), env.monotonic());
    assert!(Command::new("kill").args(["-TERM", &id]).status().expect("kill runs").success());
    assert!(broker.child.wait().expect("it ends").success());
    let took = env.monotonic() - asked;
    assert!(took < Duration::from_secs(9), "{took:?}");
    until("no worker is left", || workers.iter().all(|worker| has_ended(*worker)));
    let (status, body) = told.recv_timeout(Duration::from_secs(5)).expect("it is answered");
    assert!(status == 503 && body.contains("the broker is stopping"), "{status} {body}");
}

#[test]
fn statements_run_in_the_broker_if_it_is_told_so() {
    let broker = Broker::start(&["--sql-in-process", "true"]);
    assert_eq!(broker.number("select 1"), "1");
    assert!(broker.workers().is_empty());
}
