//! What the handle and its tasks share, and a connection that is ready for statements.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use floe_env::{Backoff, Env, lock, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use crate::journal::{JournalError, Lsn};
use crate::limits::{
    ENTRIES_BYTES_MAX, ENTRIES_MAX, POSTGRES_CONNECT_TIMEOUT, POSTGRES_PAUSE_MAX, POSTGRES_PAUSE_MIN,
};

use super::error::PostgresOpenError;
use super::planted::{Plant, Planted};
use super::rows::{self, Page, Row};
use super::schema::identity;
use super::seen::{Mark, Seen};
use super::server::{PostgresOptions, Server};
use super::session::{Ear, Role, Session};

/// What the listener has heard.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard {
    /// The last commit that this process knows of.
    pub(super) last: Lsn,
    /// Why the server cannot be followed, if it must not be.
    pub(super) trouble: Option<String>,
}

pub(super) struct Shared {
    pub(super) env: Env,
    pub(super) server: Server,
    pub(super) options: PostgresOptions,
    pub(super) id: u128,
    pub(super) heard: watch::Sender<Heard>,
    pub(super) seen: Mutex<Seen>,
    /// The commits up to this one are kept elsewhere.
    pub(super) told: AtomicU64,
    /// When the present call of a commit began.
    pub(super) under_way: Mutex<Option<Instant>>,
    pub(super) plant: Plant,
}

/// The end of the journal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tail {
    pub(super) mark: Mark,
    /// Bytes of all entries that there ever were.
    pub(super) bytes: u64,
}

impl Shared {
    /// What the parts of one journal share. Nothing is known of its end yet.
    pub(super) fn new(env: &Env, server: Server, options: PostgresOptions, id: u128) -> Arc<Shared> {
        Arc::new(Shared {
            env: env.clone(),
            server,
            options,
            id,
            heard: watch::Sender::new(Heard::default()),
            seen: Mutex::new(Seen::default()),
            told: AtomicU64::new(0),
            under_way: Mutex::new(None),
            plant: Plant::default(),
        })
    }

    /// The channel on which commits are told. One database has one name space of channels.
    pub(super) fn channel(&self) -> String {
        channel(self.id)
    }

    /// Tells those who wait that there are commits up to `last`.
    pub(super) fn hear(&self, last: Lsn) {
        if last > self.heard.borrow().last {
            self.heard.send_modify(|heard| heard.last = heard.last.max(last));
        }
    }

    /// Remembers what was seen durable, and tells those who wait.
    pub(super) fn note(&self, end: Mark) {
        lock(&self.seen).note(end);
        self.hear(end.lsn);
    }

    /// The link of a commit, if this process remembers it.
    pub(super) fn link_of(&self, lsn: Lsn) -> Option<u32> {
        lock(&self.seen).link_of(lsn)
    }

    /// A connection that can be used: the server is the primary, has this journal, and has everything that this process
    /// has seen durable.
    pub(super) async fn ready(&self, role: Role, ear: Option<Ear>) -> Result<Ready, PostgresOpenError> {
        let opening = async {
            let session = Session::connect(&self.env, &self.server, role, ear).await?;
            let statements = Statements::prepare(&session.client, &self.channel()).await?;
            let ready = Ready { session, statements, dropped: 0 };
            self.compare(&ready).await?;
            Ok(ready)
        };
        timeout(POSTGRES_CONNECT_TIMEOUT, opening).await.unwrap_or_else(|_| {
            let reason = format!("no answer within {} s", POSTGRES_CONNECT_TIMEOUT.as_secs());
            Err(PostgresOpenError::Unreachable { server: self.server.shown(), reason })
        })
    }

    async fn compare(&self, ready: &Ready) -> Result<(), PostgresOpenError> {
        let seen = lock(&self.seen).last();
        let row = ready.client().query_opt(&ready.statements.state, &[&signed(seen.lsn)]).await?;
        let row = row.ok_or_else(no_tail)?;
        let found = identity(row.try_get(0)?, row.try_get(1)?)?;
        if found != self.id {
            return Err(PostgresOpenError::OtherJournal { expected: self.id, found });
        }
        let tail = Mark { lsn: unsigned(row.try_get(2)?), link: link_of(row.try_get(3)?)? };
        let here = row.try_get::<_, Option<i64>>(4)?.map(link_of).transpose()?;
        if !self.plant.has(Planted::TakesOlderServer) {
            seen.judge(tail, here)?;
        }
        self.note(tail);
        Ok(())
    }

    /// Compares rows that follow `from` with what this process has seen, and remembers their end.
    pub(super) fn take(
        &self,
        from: Lsn,
        before: Option<u32>,
        rows: &[tokio_postgres::Row],
    ) -> Result<Page, JournalError> {
        let found = rows.iter().map(row_of).collect::<Result<Vec<Row<'_>>, _>>().map_err(refused)?;
        let page = rows::read(from, before, found.into_iter())?;
        if let Some(end) = page.end {
            if self.link_of(end.lsn).is_some_and(|link| link != end.link) {
                return Err(rows::BadRows::Astray(super::seen::Astray::Differs(end.lsn)).into());
            }
            self.note(end);
        }
        Ok(page)
    }
}

/// The channel of a journal.
fn channel(id: u128) -> String {
    format!("floe_{id:032x}")
}

/// A read that the server refused has no effect.
pub(super) fn refused(error: tokio_postgres::Error) -> JournalError {
    PostgresOpenError::from(error).into()
}

/// A number of a commit, as the database has it. No journal has more than 63 bits of commits.
pub(super) fn signed(lsn: Lsn) -> i64 {
    i64::try_from(lsn.0).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(lsn: i64) -> Lsn {
    Lsn(u64::try_from(lsn).unwrap_or(0))
}

pub(super) fn link_of(link: i64) -> Result<u32, PostgresOpenError> {
    u32::try_from(link).map_err(|_| PostgresOpenError::Damaged(format!("{link} is not a link")))
}

fn no_tail() -> PostgresOpenError {
    PostgresOpenError::Damaged("the row of table tail is missing".to_owned())
}

fn row_of(row: &tokio_postgres::Row) -> Result<Row<'_>, tokio_postgres::Error> {
    Ok(Row {
        lsn: row.try_get(0)?,
        attempt: row.try_get(1)?,
        envelope: row.try_get(2)?,
        changes: row.try_get(3)?,
        crc: row.try_get(4)?,
        link: row.try_get(5)?,
    })
}

/// A connection with its statements.
pub(super) struct Ready {
    pub(super) session: Session,
    pub(super) statements: Statements,
    /// Reads whose callers went away since the last one that was answered.
    pub(super) dropped: u32,
}

impl Ready {
    pub(super) fn client(&self) -> &Client {
        &self.session.client
    }

    /// The end of the journal.
    pub(super) async fn tail(&self) -> Result<Tail, PostgresOpenError> {
        let row = self.client().query_opt(&self.statements.tail, &[]).await?;
        let row = row.ok_or_else(no_tail)?;
        let mark = Mark { lsn: unsigned(row.try_get(0)?), link: link_of(row.try_get(1)?)? };
        Ok(Tail { mark, bytes: unsigned(row.try_get(2)?).0 })
    }

    /// The rows of the entries after `from`, at most `count` of them and about [`ENTRIES_BYTES_MAX`] bytes.
    pub(super) async fn page(
        &self,
        from: Lsn,
        count: usize,
    ) -> Result<Vec<tokio_postgres::Row>, tokio_postgres::Error> {
        let (from, count) = (signed(from), count.min(ENTRIES_MAX) as i64);
        let bytes = ENTRIES_BYTES_MAX as i64;
        let parameters: [&(dyn ToSql + Sync); 3] = [&from, &count, &bytes];
        self.client().query(&self.statements.page, &parameters).await
    }
}

/// The statements of a connection, which the server has parsed.
pub(super) struct Statements {
    /// Applies a group. See the module's head.
    pub(super) commit: Statement,
    /// What a group missed, without a wait for its outcome.
    pub(super) missed: Statement,
    pub(super) page: Statement,
    pub(super) tail: Statement,
    pub(super) state: Statement,
    /// The link of an entry.
    pub(super) link: Statement,
}

/// The race: only one transaction changes the tail from what it expects, and the entries, the tail and the notification
/// become durable with one sync. A group that finds another tail changes nothing.
fn commit_statement(channel: &str) -> String {
    format!(
        "WITH moved AS (
             UPDATE tail SET last = last + $3, link = $4, attempt = $5, bytes = bytes + $6
             WHERE last = $1 AND link = $2 RETURNING last),
         added AS (
             INSERT INTO entries (lsn, attempt, envelope, changes, crc, link)
             SELECT $1 + given.place, $5, given.envelope, given.changes, given.crc, given.link
             FROM moved, unnest($7::bytea[], $8::bytea[], $9::bigint[], $10::bigint[])
                 WITH ORDINALITY AS given (envelope, changes, crc, link, place))
         SELECT last, pg_notify('{channel}', last::text) FROM moved"
    )
}

const COLUMNS: &str = "lsn, attempt, envelope, changes, crc, link";

/// Entries in order, up to a count and a number of bytes, and at least one. Lengths are known without reading the
/// values.
fn page_statement(condition: &str, count: &str, bytes: &str) -> String {
    format!(
        "SELECT {COLUMNS} FROM (
             SELECT found.*, sum(octet_length(envelope) + octet_length(changes)) OVER (ORDER BY lsn)
                 - octet_length(envelope) - octet_length(changes) AS bytes_before
             FROM (SELECT {COLUMNS} FROM entries WHERE {condition} ORDER BY lsn LIMIT {count}) AS found) AS page
         WHERE bytes_before <= {bytes} ORDER BY lsn"
    )
}

impl Statements {
    /// Parses the statements in one round trip or two.
    async fn prepare(client: &Client, channel: &str) -> Result<Statements, PostgresOpenError> {
        let commit = commit_statement(channel);
        let missed = page_statement("lsn > $1 AND (SELECT attempt FROM tail) <> $2", "$3", "$4");
        let page = page_statement("lsn > $1", "$2", "$3");
        let (commit, missed, page, tail, state, link) = futures::try_join!(
            client.prepare(&commit),
            client.prepare(&missed),
            client.prepare(&page),
            client.prepare("SELECT last, link, bytes FROM tail"),
            client.prepare(
                "SELECT format, id, last, tail.link, (SELECT e.link FROM entries e WHERE e.lsn = $1) FROM journal, tail"
            ),
            client.prepare("SELECT link FROM entries WHERE lsn = $1"),
        )?;
        Ok(Statements { commit, missed, page, tail, state, link })
    }
}

/// A connection that is kept from one call to the next, and opened when it is needed. Tries that fail are apart.
pub(super) struct Lane {
    shared: Arc<Shared>,
    role: Role,
    ready: Option<Ready>,
    backoff: Backoff,
    not_before: Option<Instant>,
}

impl Lane {
    pub(super) fn new(shared: &Arc<Shared>, role: Role, ready: Option<Ready>) -> Lane {
        let backoff = Backoff::new(&shared.env, POSTGRES_PAUSE_MIN, POSTGRES_PAUSE_MAX);
        Lane { shared: Arc::clone(shared), role, ready, backoff, not_before: None }
    }

    /// The connection, opened if there is none.
    pub(super) async fn borrow(&mut self) -> Result<&mut Ready, PostgresOpenError> {
        let ready = self.take().await?;
        Ok(self.ready.insert(ready))
    }

    /// Takes the connection out of the lane. It comes back by [`Lane::put`], or else is closed.
    pub(super) async fn take(&mut self) -> Result<Ready, PostgresOpenError> {
        if let Some(ready) = self.ready.take().filter(|ready| !ready.session.is_closed()) {
            return Ok(ready);
        }
        if let Some(due) = self.not_before {
            sleep_until(due).await;
        }
        // Whoever drops this call meanwhile leaves the pause behind for the next one.
        self.not_before = Some(self.shared.env.monotonic() + self.backoff.next_pause());
        let ready = self.shared.ready(self.role, None).await?;
        self.not_before = None;
        self.backoff.reset();
        Ok(ready)
    }

    pub(super) fn put(&mut self, ready: Ready) {
        self.ready = Some(ready);
    }

    /// Closes the connection.
    pub(super) fn close(&mut self) {
        self.ready = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_commits_fit_the_database() {
        assert_eq!(signed(Lsn(7)), 7);
        assert_eq!(signed(Lsn(u64::MAX)), i64::MAX);
        assert_eq!((unsigned(7), unsigned(-1)), (Lsn(7), Lsn(0)));
        assert!(link_of(-1).is_err() && link_of(1 << 32).is_err());
        assert_eq!(link_of(0xffff_ffff), Ok(u32::MAX));
    }

    /// Names of channels are cut at 63 bytes, and two that are cut alike would be one.
    #[test]
    fn the_name_of_a_channel_is_whole() {
        assert_eq!(channel(1).len(), 37);
        assert!(channel(u128::MAX).len() <= 63);
    }
}
