//! The journal against a real server: the suite, lost answers, a killed server, and servers that lost commits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use floe_env::Env;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::task::block_in_place;
use tokio::time::{sleep, timeout};

use super::planted::Planted;
use super::test_proxy::{Mode, Proxy};
use super::test_server::{TestServer, address};
use super::*;
use crate::command::CommitError;
use crate::conformance::{self, Place};
use crate::counter::CounterKey;
use crate::error::DecodeError;
use crate::journal::{Change, Envelope};
use crate::{Meta, Options, Tx};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note(u64);
crate::postcard_record!(Note, 200, 1, u64);

/// Takes the next number, and notes it.
fn add(tx: &mut Tx<'_>) -> Result<u64, DecodeError> {
    let number = tx.next_counter(&CounterKey::named("note"))?;
    assert!(tx.get::<Note>(&number)?.is_none(), "a counter gives no number twice");
    tx.put(&number, &Note(number));
    Ok(number)
}

fn put(key: &str, value: &str) -> Commit {
    let change = Change { key: key.to_owned().into(), value: Some(value.to_owned().into()) };
    Commit { envelope: Envelope::broker("test"), changes: vec![change] }
}

fn options(address: &str) -> PostgresOptions {
    PostgresOptions::at(address)
}

async fn open(address: &str) -> PostgresJournal {
    PostgresJournal::open(&Env::real(), options(address)).await.unwrap()
}

async fn map_of(journal: &PostgresJournal) -> (Lsn, BTreeMap<Bytes, Bytes>) {
    let loaded = journal.load().await.unwrap();
    let mut map: BTreeMap<Bytes, Bytes> = loaded.image.into_iter().collect();
    let mut lsn = loaded.image_lsn;
    for entry in loaded.entries {
        assert_eq!(entry.lsn, lsn.next());
        lsn = entry.lsn;
        for change in entry.changes {
            match change.value {
                Some(value) => map.insert(change.key, value),
                None => map.remove(&change.key),
            };
        }
    }
    (lsn, map)
}

/// A schema of its own on a server of all.
struct Schema {
    server: Arc<TestServer>,
    name: String,
}

impl Place for Schema {
    /// A call that its caller gave up may still be on its way to the server, so a start waits for the end of what was
    /// there before.
    fn open(&self) -> Arc<dyn Journal> {
        let count = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{}'", self.name);
        let opening = async {
            while self.server.sql(&count) != "0" {
                sleep(Duration::from_millis(5)).await;
            }
            let options = PostgresOptions {
                schema: self.name.clone(),
                image_bytes: 20 << 10,
                look: Duration::from_millis(50),
                ..options(&self.server.address(&self.name))
            };
            PostgresJournal::open(&Env::real(), options).await.unwrap()
        };
        Arc::new(block_in_place(|| Handle::current().block_on(opening)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_passes() {
    let Some(server) = TestServer::start().await.map(Arc::new) else { return };
    let places = AtomicU64::new(0);
    let fresh = || -> Box<dyn Place> {
        let name = format!("suite_{}", places.fetch_add(1, Ordering::SeqCst));
        Box::new(Schema { server: Arc::clone(&server), name })
    };
    conformance::run(&Env::real(), fresh).await;
}

/// Every broker has a handle of its own, some behind a network that loses calls and answers now and then.
async fn race(server: &TestServer, schema: &str, faults: bool) {
    const BROKERS: usize = 5;
    const COMMANDS: usize = 40;
    let env = Env::real();
    let mut brokers = Vec::new();
    for _ in 0..BROKERS {
        let proxy = Proxy::before(server.port).await;
        let options = PostgresOptions { schema: schema.to_owned(), ..options(&address(proxy.port, "race")) };
        let journal = PostgresJournal::open(&env, options).await.unwrap();
        let meta = Meta::open(env.scope(), Arc::new(journal), Options::default()).await.unwrap();
        brokers.push((meta, Arc::new(proxy)));
    }
    let done = Arc::new(AtomicBool::new(false));
    let (proxies, ended, here) = (brokers.clone(), Arc::clone(&done), env.clone());
    let weather = env.spawn("weather", async move {
        while faults && !ended.load(Ordering::SeqCst) {
            let (_, proxy) = &proxies[here.random_u64() as usize % BROKERS];
            proxy.set([Mode::LoseAnswers, Mode::LoseCalls][here.random_u64() as usize % 2]);
            sleep(Duration::from_millis(20)).await;
            proxy.set(Mode::Pass);
            sleep(Duration::from_millis(20)).await;
        }
        proxies.iter().map(|(_, proxy)| proxy.lost()).sum::<u64>()
    });
    let callers: Vec<_> =
        brokers.iter().map(|(meta, _)| env.spawn("caller", call(meta.clone(), COMMANDS))).collect();
    let mut replies = Vec::new();
    for caller in callers {
        replies.extend(caller.await.unwrap());
    }
    done.store(true, Ordering::SeqCst);
    let lost = weather.await.unwrap();
    assert_eq!(lost > 0, faults, "the faults happened");
    replies.sort_unstable();
    assert!(replies.iter().copied().eq(1..=(BROKERS * COMMANDS) as u64), "each number once: {replies:?}");
    for (meta, _) in &brokers {
        let last = Lsn(replies.len() as u64);
        meta.watch().wait_for(|lsn| *lsn == last).await.expect("every broker follows");
        assert!(meta.snapshot().pairs().eq(brokers[0].0.snapshot().pairs()));
    }
}

/// Commits one after another, and again what was certainly not applied.
async fn call(meta: Meta, count: usize) -> Vec<u64> {
    let mut replies = Vec::new();
    while replies.len() < count {
        match meta.commit(Envelope::broker("test"), add).await {
            Ok(done) => replies.push(done.reply),
            Err(CommitError::NotApplied(_)) => sleep(Duration::from_millis(5)).await,
            Err(error) => panic!("{error}"),
        }
    }
    replies
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_with_handles_of_their_own_race() {
    let Some(server) = TestServer::start().await else { return };
    race(&server, "calm", false).await;
    race(&server, "stormy", true).await;
}

/// The answer of a commit is lost. Returns what the call says, and whether the commit is there.
async fn lose_an_answer(journal: &PostgresJournal, proxy: &Proxy, expected: Lsn) -> (JournalError, bool) {
    let group = [put("a", "1"), put("b", "2")];
    let lost = proxy.lost();
    proxy.set(Mode::LoseAnswers);
    let said = journal.commit(expected, 7, &group).await.expect_err("its answer is lost");
    proxy.set(Mode::Pass);
    assert!(proxy.lost() > lost);
    let Ok(Outcome::Conflict(found)) = journal.commit(expected, 7, &group).await else {
        return (said, false);
    };
    assert_eq!(found.len(), 2, "once");
    (said, found.iter().all(|entry| entry.attempt == 7))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_unknown_and_asking_again_tells() {
    let Some(server) = TestServer::start().await else { return };
    let proxy = Proxy::before(server.port).await;
    let journal = open(&address(proxy.port, "lost")).await;
    let (said, applied) = lose_an_answer(&journal, &proxy, Lsn(0)).await;
    assert!(matches!(said, JournalError::Unknown(_)) && applied, "{said}");
    assert_eq!(journal.commit(Lsn(2), 8, &[put("c", "3")]).await, Ok(Outcome::Committed(Lsn(3))));
    // The call is lost as well: unknown, and this time it was not applied.
    proxy.set(Mode::LoseCalls);
    let said = journal.commit(Lsn(3), 9, &[put("d", "4")]).await;
    assert!(matches!(said, Err(JournalError::Unknown(_))), "{said:?}");
    proxy.set(Mode::Pass);
    assert_eq!(journal.commit(Lsn(3), 9, &[put("d", "4")]).await, Ok(Outcome::Committed(Lsn(4))));
    // The planted bug is seen: it says that nothing happened, and the commit is there.
    journal.shared.plant.set(Some(Planted::UnknownIsNotApplied));
    let (said, applied) = lose_an_answer(&journal, &proxy, Lsn(4)).await;
    assert!(matches!(said, JournalError::NotApplied(_)) && applied, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_answer_leaves_the_outcome_unknown_in_time() {
    let Some(server) = TestServer::start().await else { return };
    let proxy = Proxy::before(server.port).await;
    let journal = open(&address(proxy.port, "silent")).await;
    proxy.set(Mode::Silence);
    let group = [put("a", "1")];
    let mut call = journal.commit(Lsn(0), 1, &group);
    assert!(futures::poll!(call.as_mut()).is_pending());
    assert!(journal.stalled().is_some(), "it shows that it waits");
    let said =
        timeout(crate::limits::COMMIT_TIMEOUT, call).await.expect("it ends before its caller's patience");
    assert!(matches!(said, Err(JournalError::Unknown(_))), "{said:?}");
    assert_eq!(journal.stalled(), None);
    proxy.set(Mode::Pass);
    let again = journal.commit(Lsn(0), 1, &group).await;
    assert!(matches!(&again, Ok(Outcome::Conflict(found)) if found[0].attempt == 1), "{again:?}");
}

/// The end of an implicit transaction comes after its rows. A commit that fails there is not a success.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_at_the_end_of_the_transaction_is_no_success() {
    let Some(server) = TestServer::start().await else { return };
    let journal = open(&server.address("late")).await;
    server.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'at the very end'; END $$;
         CREATE CONSTRAINT TRIGGER late AFTER INSERT ON floe.entries DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION refuse()",
    );
    let said = journal.commit(Lsn(0), 1, &[put("a", "1")]).await;
    assert!(matches!(&said, Err(JournalError::NotApplied(why)) if why.contains("very end")), "{said:?}");
    server.sql("DROP TRIGGER late ON floe.entries");
    assert_eq!(journal.commit(Lsn(0), 1, &[put("a", "1")]).await, Ok(Outcome::Committed(Lsn(1))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_loses_nothing_that_was_acknowledged() {
    let Some(server) = TestServer::start().await else { return };
    let env = Env::real();
    let mut brokers = Vec::new();
    for _ in 0..3 {
        let journal = open(&server.address("killed")).await;
        brokers.push(Meta::open(env.scope(), Arc::new(journal), Options::default()).await.unwrap());
    }
    let callers: Vec<_> = brokers.iter().map(|meta| env.spawn("caller", call(meta.clone(), 150))).collect();
    for _ in 0..3 {
        sleep(Duration::from_millis(300)).await;
        server.kill().await;
        sleep(Duration::from_millis(100)).await;
        server.run(&[]).await;
    }
    let mut replies = Vec::new();
    for caller in callers {
        replies.extend(caller.await.unwrap());
    }
    replies.sort_unstable();
    assert!(replies.iter().copied().eq(1..=450), "each number once, and none is lost: {replies:?}");
    drop(brokers);
    let journal = open(&server.address("after")).await;
    let entries = journal.history(Lsn(0), 1_000).await.unwrap();
    assert_eq!(entries.len(), 450, "none is there twice");
}

/// Follows as a committer does: after an error, again.
async fn follow_again(journal: &PostgresJournal, from: Lsn) -> Vec<Entry> {
    let following = async {
        loop {
            match journal.follow(from).await {
                Ok(entries) if !entries.is_empty() => return entries,
                _ => sleep(Duration::from_millis(50)).await,
            }
        }
    };
    timeout(Duration::from_secs(30), following).await.expect("it hears of them")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_hears_nothing_looks_for_itself() {
    let Some(server) = TestServer::start().await else { return };
    let (writer, follower) = (open(&server.address("writer")).await, open(&server.address("follower")).await);
    for round in 0..10 {
        // The second half hears nothing.
        follower.shared.plant.set((round >= 5).then_some(Planted::HearsNothing));
        let committed = writer.commit(Lsn(round), round.into(), &[put("a", "1")]).await;
        assert_eq!(committed, Ok(Outcome::Committed(Lsn(round + 1))));
        assert_eq!(follow_again(&follower, Lsn(round)).await.len(), 1);
    }
}

/// Whether every call refuses, and says why. A follower knows when its ear is open again.
async fn refuses(journal: &PostgresJournal, expected: Lsn, words: &str) -> bool {
    for _ in 0..20 {
        if every_call_refuses(journal, expected, words).await {
            return true;
        }
        sleep(Duration::from_millis(500)).await;
    }
    false
}

async fn every_call_refuses(journal: &PostgresJournal, expected: Lsn, words: &str) -> bool {
    let answers = [
        journal.commit(expected, 99, &[put("x", "x")]).await.map(drop),
        journal.history(expected, 10).await.map(drop),
        journal.load().await.map(drop),
        timeout(Duration::from_secs(1), journal.follow(expected)).await.map_or(Ok(()), |told| told.map(drop)),
    ];
    answers.iter().all(|answer| matches!(answer, Err(JournalError::NotApplied(why)) if why.contains(words)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lost_commits_is_refused_until_the_right_one_is_back() {
    let Some(server) = TestServer::start().await else { return };
    let (journal, follower) = (open(&server.address("one")).await, open(&server.address("two")).await);
    assert_eq!(journal.commit(Lsn(0), 1, &[put("a", "1")]).await, Ok(Outcome::Committed(Lsn(1))));
    server.stop();
    server.copy("data", "older");
    server.run(&[]).await;
    // The first call after the outage finds a connection that has ended.
    let again = settle(&journal, Lsn(1), 2).await;
    assert_eq!(again, Lsn(3));
    assert_eq!(follow_again(&follower, Lsn(1)).await.len(), 2);
    server.stop();
    server.copy("data", "right");
    server.copy("older", "data");
    server.run(&[]).await;
    assert!(refuses(&journal, Lsn(3), "lost commits").await);
    assert!(refuses(&follower, Lsn(3), "lost commits").await);
    assert_eq!(server.sql("SELECT last FROM floe.tail"), "1", "nothing was applied");
    let bugged = open_with_bug(&server, &journal).await;
    assert!(!refuses(&bugged, Lsn(3), "lost commits").await, "the planted bug is seen");
    drop(bugged);
    // Somebody who starts now takes the server as it is. For the others it has another history from then on.
    let stranger = open(&server.address("stranger")).await;
    let group = [put("z", "1"), put("z", "2"), put("z", "3")];
    assert_eq!(stranger.commit(Lsn(1), 5, &group).await, Ok(Outcome::Committed(Lsn(4))));
    assert!(refuses(&journal, Lsn(3), "another history").await);
    assert_eq!(server.sql("SELECT last FROM floe.tail"), "4", "nothing was applied");
    drop(stranger);
    server.stop();
    server.copy("right", "data");
    server.run(&[]).await;
    assert_eq!(settle(&journal, Lsn(3), 6).await, Lsn(5));
    assert_eq!(follow_again(&follower, Lsn(3)).await.len(), 2);
}

/// A handle that has seen what another one has, and takes any server.
async fn open_with_bug(server: &TestServer, other: &PostgresJournal) -> PostgresJournal {
    let bugged = open(&server.address("bugged")).await;
    bugged.shared.plant.set(Some(Planted::TakesOlderServer));
    bugged.shared.note(lock(&other.shared.seen).last());
    bugged
}

/// Commits a group of two until the journal tells what came of it.
async fn settle(journal: &PostgresJournal, expected: Lsn, attempt: u128) -> Lsn {
    for _ in 0..100 {
        match journal.commit(expected, attempt, &[put("a", "2"), put("b", "2")]).await {
            Ok(Outcome::Committed(last)) => return last,
            Ok(Outcome::Conflict(found)) => {
                assert!(found.len() == 2 && found[0].attempt == attempt, "{found:?}");
                return found[1].lsn;
            }
            Err(JournalError::Reload(lsn)) => panic!("{lsn} is gone"),
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
    panic!("the journal does not come back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fail_over_to_a_standby_that_lost_nothing_goes_on() {
    let Some(primary) = TestServer::start().await else { return };
    let Some(standby) = TestServer::bare() else { return };
    let port = primary.port.to_string();
    let copied = ["-D", "data", "-R", "-h", "127.0.0.1", "-p", &port, "-U", "floe", "--checkpoint=fast"];
    standby.make("pg_basebackup", &copied);
    standby.run(&[]).await;
    // From now on a commit is acknowledged when the standby has it.
    primary.sql("ALTER SYSTEM SET synchronous_standby_names = '*'");
    primary.sql("SELECT pg_reload_conf()");
    let both = format!(
        "postgres://floe@127.0.0.1:{},127.0.0.1:{}/postgres?application_name=failover",
        standby.port, primary.port
    );
    let only_standby =
        PostgresJournal::open(&Env::real(), options(&standby.address("standby"))).await.unwrap_err();
    assert!(matches!(only_standby, PostgresOpenError::Unreachable { .. }), "{only_standby}");
    let journal = open(&both).await;
    let mut last = Lsn(0);
    for round in 0..20 {
        last = settle(&journal, last, round).await;
    }
    primary.kill().await;
    standby.sql("SELECT pg_promote()");
    last = settle(&journal, last, 100).await;
    assert_eq!(last, Lsn(42));
    let (lsn, map) = map_of(&journal).await;
    assert_eq!((lsn, map.len()), (Lsn(42), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_right_is_refused_at_the_start() {
    let Some(server) = TestServer::start().await else { return };
    let env = Env::real();
    let address = server.address("refused");
    let journal = open(&address).await;
    let id = journal.id();
    assert_eq!(PostgresJournal::open(&env, options(&address)).await.unwrap().id(), id, "the same for all");
    let other = PostgresOptions { id: Some(id ^ 1), ..options(&address) };
    let refused = PostgresJournal::open(&env, other).await.unwrap_err();
    assert_eq!(refused, PostgresOpenError::OtherJournal { expected: id ^ 1, found: id });
    let elsewhere = PostgresOptions { id: Some(id), schema: "elsewhere".to_owned(), ..options(&address) };
    let refused = PostgresJournal::open(&env, elsewhere).await.unwrap_err();
    assert!(matches!(refused, PostgresOpenError::None { .. }), "none is made: {refused}");
    let looked = inspect_postgres(&env, PostgresOptions { id: Some(id), ..options(&address) }).await.unwrap();
    assert!(looked.journal.is_empty() && looked.last == journal.lsn(), "{looked:?}");
    server.sql("CREATE SCHEMA theirs; CREATE TABLE theirs.books (title text)");
    let theirs = PostgresOptions { schema: "theirs".to_owned(), ..options(&address) };
    let refused = PostgresJournal::open(&env, theirs).await.unwrap_err();
    assert!(matches!(refused, PostgresOpenError::Foreign { tables: 1, .. }), "{refused}");
    server.sql("UPDATE floe.journal SET format = 2");
    let refused = PostgresJournal::open(&env, options(&address)).await.unwrap_err();
    assert_eq!(refused, PostgresOpenError::NewerFormat { found: 2, known: 1 });
    server.sql("UPDATE floe.journal SET format = 1");
    server.stop();
    let refused = PostgresJournal::open(&env, options(&address)).await.unwrap_err();
    assert!(matches!(refused, PostgresOpenError::Unreachable { .. }), "{refused}");
    server.run(&["fsync=off"]).await;
    let refused = PostgresJournal::open(&env, options(&address)).await.unwrap_err();
    assert!(matches!(refused, PostgresOpenError::Unsynced(_)), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sync_is_demanded_whatever_the_server_says() {
    let Some(server) = TestServer::start().await else { return };
    server.sql("ALTER ROLE floe SET synchronous_commit = off");
    server.sql("ALTER ROLE floe SET default_transaction_isolation = 'serializable'");
    let journal = open(&server.address("sync")).await;
    let mut lane = journal.commits.lock().await;
    let ready = lane.borrow().await.unwrap();
    let show = "SELECT current_setting('synchronous_commit'), current_setting('transaction_isolation')";
    let row = ready.client().query_one(show, &[]).await.unwrap();
    assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), ("on", "read committed"));
}

/// The child process of the test below, which has its own roots.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_connects_with_tls() {
    let Ok(address) = std::env::var("FLOE_POSTGRES_TEST_TLS") else { return };
    let journal = open(&address).await;
    let mut lane = journal.commits.lock().await;
    let ready = lane.borrow().await.unwrap();
    let show = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let encrypted: bool = ready.client().query_one(show, &[]).await.unwrap().get(0);
    println!("encrypted: {encrypted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tls_the_server_is_verified() {
    let Some(server) = TestServer::start().await else { return };
    let roots = server.certify();
    server.stop();
    server.run(&["ssl=on", "ssl_cert_file=server.crt", "ssl_key_file=server.key"]).await;
    let child = |address: String, roots: &std::path::Path| {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        let name = "journal::postgres::server_tests::child_that_connects_with_tls";
        command.args([name, "--exact", "--nocapture"]).env("FLOE_POSTGRES_TEST_TLS", address);
        let output = command.env("SSL_CERT_FILE", roots).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    let address = server.address("tls");
    let (good, said) = child(format!("{address}&sslmode=require"), &roots);
    assert!(good && said.contains("encrypted: true"), "{said}");
    let (good, said) = child(address.clone(), &roots);
    assert!(good && said.contains("encrypted: false"), "{said}");
    let stranger = TestServer::bare().unwrap();
    stranger.make("initdb", &["-D", "data", "-U", "floe", "-A", "trust", "--no-sync"]);
    let (good, said) = child(format!("{address}&sslmode=require"), &stranger.certify());
    assert!(!good && said.contains("certificate"), "{said}");
}

/// Images every few commits, and looks often.
fn eager(server: &TestServer) -> PostgresOptions {
    let look = Duration::from_millis(20);
    PostgresOptions { image_bytes: 100_000, look, ..options(&server.address("eager")) }
}

/// Commits groups over few keys until the condition holds.
async fn churn_until(journal: &PostgresJournal, server: &TestServer, condition: &str) {
    for _ in 0..1_000 {
        let last = journal.lsn().0;
        let group: Vec<Commit> = (last..last + 50)
            .map(|i| put(&format!("key {}", i % 97), &"v".repeat((i % 300) as usize)))
            .collect();
        assert_eq!(
            journal.commit(Lsn(last), last.into(), &group).await,
            Ok(Outcome::Committed(Lsn(last + 50)))
        );
        if server.sql(&format!("SELECT {condition}")) == "t" {
            return;
        }
    }
    panic!("never: {condition}");
}

const TWO_IMAGES: &str = "count(*) = 2 FROM floe.images";

#[tokio::test(flavor = "multi_thread")]
async fn the_database_grows_no_more_than_the_history_lets_it() {
    let Some(server) = TestServer::start().await else { return };
    let journal = PostgresJournal::open(&Env::real(), eager(&server)).await.unwrap();
    let other = PostgresJournal::open(&Env::real(), eager(&server)).await.unwrap();
    churn_until(&journal, &server, TWO_IMAGES).await;
    let size = "pg_total_relation_size('floe.entries') + pg_total_relation_size('floe.chunks')";
    let mut sizes = Vec::new();
    for _ in 0..12 {
        let last = journal.lsn();
        journal.forget(last);
        churn_until(&journal, &server, &format!("min(lsn) > {} - 2000 FROM floe.entries", last.0)).await;
        for _ in 0..20 {
            churn_until(&journal, &server, "true").await;
        }
        sizes.push(server.sql(&format!("SELECT {size}")).parse::<u64>().unwrap());
    }
    let (early, late) = (sizes[4], sizes[11]);
    assert!(late < early * 2, "it grows: {sizes:?}");
    assert!(matches!(journal.history(Lsn(0), 1).await, Err(JournalError::Reload(_))));
    let (lsn, map) = map_of(&other).await;
    assert_eq!((lsn, map.len()), (journal.lsn(), 97));
    assert_eq!(map_of(&journal).await, (lsn, map));
}

/// Damages the newest image, and returns whether the journal still loads what it had.
async fn survives_damage(journal: &PostgresJournal, server: &TestServer) -> bool {
    let before = map_of(journal).await;
    server.sql(
        "UPDATE floe.chunks SET pairs = set_byte(pairs, 5, get_byte(pairs, 5) # 1)
         WHERE generation = (SELECT generation FROM floe.images ORDER BY lsn DESC LIMIT 1)",
    );
    match journal.load().await {
        Ok(_) => map_of(journal).await == before,
        Err(_) => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_image_costs_nothing_and_the_next_one_takes_its_place() {
    let Some(server) = TestServer::start().await else { return };
    let journal = PostgresJournal::open(&Env::real(), eager(&server)).await.unwrap();
    churn_until(&journal, &server, TWO_IMAGES).await;
    journal.forget(journal.lsn());
    churn_until(&journal, &server, "min(lsn) > 1 FROM floe.entries").await;
    let quiet = PostgresOptions { image_bytes: 1 << 40, ..eager(&server) };
    drop(journal);
    let journal = PostgresJournal::open(&Env::real(), quiet).await.unwrap();
    assert!(survives_damage(&journal, &server).await);
    let damaged = server.sql("SELECT max(lsn) FROM floe.images");
    drop(journal);
    let journal = PostgresJournal::open(&Env::real(), eager(&server)).await.unwrap();
    churn_until(&journal, &server, &format!("min(lsn) > {damaged} FROM floe.images")).await;
    let (lsn, map) = map_of(&journal).await;
    assert_eq!((lsn, map.len()), (journal.lsn(), 97));
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_go_when_one_image_has_them_are_missed() {
    let Some(server) = TestServer::start().await else { return };
    let options = PostgresOptions { image_bytes: 1 << 20, ..eager(&server) };
    let journal = PostgresJournal::open(&Env::real(), options).await.unwrap();
    churn_until(&journal, &server, "count(*) = 1 FROM floe.images").await;
    journal.forget(journal.lsn());
    sleep(Duration::from_millis(200)).await;
    assert_eq!(server.sql("SELECT min(lsn) FROM floe.entries"), "1");
    journal.shared.plant.set(Some(Planted::ForgetsTooEarly));
    churn_until(&journal, &server, "min(lsn) > 1 FROM floe.entries").await;
    assert!(!survives_damage(&journal, &server).await, "the planted bug is seen");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_damaged_in_the_database_is_found() {
    let Some(server) = TestServer::start().await else { return };
    let journal = open(&server.address("damaged")).await;
    let group = [put("a", "1"), put("b", "2"), put("c", "3")];
    assert_eq!(journal.commit(Lsn(0), 1, &group).await, Ok(Outcome::Committed(Lsn(3))));
    server.sql("UPDATE floe.entries SET changes = set_byte(changes, 3, 9) WHERE lsn = 2");
    let found = journal.history(Lsn(0), 9).await.unwrap_err().to_string();
    assert!(found.contains("commit 2 does not match its checksum"), "{found}");
    assert!(journal.load().await.is_err());
    server.sql("DELETE FROM floe.entries WHERE lsn = 2");
    let found = journal.history(Lsn(0), 9).await.unwrap_err().to_string();
    assert!(found.contains("commit 2 is missing"), "{found}");
}
