//! The session of this process (`map/session.rs`): begun at the start, renewed in commits that happen anyway.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use floe_env::Env;
use floe_meta::{CommitError, DecodeError, Envelope, Lsn, Meta, Tx};
use tokio::time::Instant;

use crate::config::Config;
use crate::map::format_level::FormatLevel;
use crate::map::session::{self, Session};
use crate::map::writer_number::WriterNumber;
use crate::read::pins::Pins;

/// A session is renewed so many times in its time to live.
const RENEWALS: u32 = 4;

/// The session of this process. Clones share it.
#[derive(Clone)]
pub(crate) struct OwnSession {
    env: Env,
    meta: Meta,
    /// The snapshots in use.
    pub(crate) pins: Pins,
    number: WriterNumber,
    level: FormatLevel,
    ttl: Duration,
    told: Arc<Mutex<Told>>,
}

struct Told {
    epoch: u64,
    /// When a renewal was last given to a commit.
    at: Instant,
}

/// A renewal that rides on a commit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Renewal {
    number: WriterNumber,
    epoch: u64,
    oldest: Lsn,
}

impl Renewal {
    /// Part of any command. A session that was ended stays so: its broker begins it anew.
    ///
    /// # Errors
    /// The record of the session cannot be read.
    pub(crate) fn apply(&self, tx: &mut Tx<'_>) -> Result<(), DecodeError> {
        session::renew(tx, self.number, self.epoch, self.oldest).map(drop)
    }
}

/// Part of the command that notes the number of a start: begins its session.
pub(crate) fn begin(
    tx: &mut Tx<'_>,
    number: WriterNumber,
    level: FormatLevel,
    sole: bool,
) -> Result<(), DecodeError> {
    if sole {
        session::end_all(tx)?;
    }
    // Its readers begin after this commit.
    let oldest = Lsn(tx.lsn().0 - 1);
    session::begin(tx, number, 1, oldest, level)
}

impl OwnSession {
    pub(crate) fn new(env: Env, meta: Meta, number: WriterNumber, config: &Config) -> OwnSession {
        let pins = Pins::new(env.clone(), meta.clone());
        let told = Arc::new(Mutex::new(Told { epoch: 1, at: env.monotonic() }));
        let (level, ttl) = (config.format_level, config.times.session_ttl);
        OwnSession { env, meta, pins, number, level, ttl, told }
    }

    /// What no session of the map uses any more, as far as this process knows.
    pub(crate) fn oldest_of_all(&self) -> Result<Lsn, DecodeError> {
        let told = session::oldest(&self.meta.snapshot())?;
        let own = self.pins.oldest();
        Ok(told.map_or(own, |told| told.min(own)))
    }

    /// Whether the session of this number is that of this process.
    pub(crate) fn is_own(&self, number: WriterNumber) -> bool {
        number == self.number
    }

    /// A renewal for a commit that happens anyway; none if the last one is young.
    pub(crate) fn due(&self) -> Option<Renewal> {
        let is_due = floe_env::lock(&self.told).at + self.ttl / RENEWALS <= self.env.monotonic();
        is_due.then(|| self.renewal())
    }

    /// A renewal for a commit that needs it.
    pub(crate) fn renewal(&self) -> Renewal {
        let mut told = floe_env::lock(&self.told);
        told.at = self.env.monotonic();
        Renewal { number: self.number, epoch: told.epoch, oldest: self.pins.oldest() }
    }

    /// Keeps the session while others watch it, until the task is dropped.
    pub(crate) async fn run(self) {
        loop {
            tokio::time::sleep(self.ttl / RENEWALS).await;
            if let Err(error) = self.keep().await {
                tracing::warn!(%error, "the session of this broker was not renewed, trying again");
            }
        }
    }

    async fn keep(&self) -> Result<(), CommitError<DecodeError>> {
        let sessions = session::all(&self.meta.snapshot()).map_err(CommitError::Refused)?;
        let own = sessions.iter().any(|(number, _)| self.is_own(*number));
        if !own {
            return self.begin_anew().await;
        }
        let watched = sessions.len() > 1;
        let Some(renewal) = watched.then(|| self.due()).flatten() else { return Ok(()) };
        self.meta.commit_deletion(Envelope::broker("session"), move |tx| renewal.apply(tx)).await.map(drop)
    }

    /// Somebody has ended the session, because this process slept for longer than its time to live.
    async fn begin_anew(&self) -> Result<(), CommitError<DecodeError>> {
        let (number, level, oldest) = (self.number, self.level, self.pins.oldest());
        let epoch = floe_env::lock(&self.told).epoch + 1;
        tracing::warn!(writer = number.0, epoch, "the session of this broker was ended, it begins again");
        let work = move |tx: &mut Tx<'_>| session::begin(tx, number, epoch, oldest, level);
        self.meta.commit_deletion(Envelope::broker("session"), work).await?;
        let mut told = floe_env::lock(&self.told);
        (told.epoch, told.at) = (epoch, self.env.monotonic());
        Ok(())
    }

    /// Ends the session, so that nobody waits for it.
    pub(crate) async fn close(&self) {
        let number = self.number;
        let work = move |tx: &mut Tx<'_>| -> Result<(), DecodeError> {
            match tx.get::<Session>(&number)? {
                Some(session) => session::end(tx, number, session),
                None => Ok(()),
            }
        };
        if let Err(error) = self.meta.commit_deletion(Envelope::broker("session"), work).await {
            tracing::warn!(%error, "the session of this broker was not ended; it will expire");
        }
    }
}
