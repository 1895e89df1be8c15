//! What a start does before the first write of a client: it finds out which cluster this is, claims the store, compares
//! journal and store, takes a writer number and notes it.
//!
//! ```text
//! cluster ──▶ claim ──▶ compare ──▶ take a number ──▶ note it ──▶ end the leases of the former process
//!                          the store keeps it: floe/writers    the journal has it
//! ```
//! A journal that is shared may have a former process that still lives, perhaps asleep. The note is the moment at which
//! this process takes its place (`taken.rs`): in the order of the journal, everything of the former process is before
//! it, and nothing behind it.

use std::sync::Arc;

use floe_env::Env;
use floe_meta::{Envelope, Meta, Tx};
use floe_store::{Measured, Store};

use crate::claim::claim;
use crate::config::Config;
use crate::error::OpenError;
use crate::limits::COMPARISONS_MAX;
use crate::map::cluster::{self, Cluster};
use crate::map::format_level;
use crate::map::writer_number::{self, WriterNumber};
use crate::read::damage::Damages;
use crate::start::former::Former;
use crate::start::newest;
use crate::start::session;
use crate::start::taken::{self, Fenced};
use crate::start::writers::{OwnWater, Writers};
use crate::write::leases::end_former_leases;

/// A start that may write.
pub(crate) struct Begun {
    pub(crate) cluster: Cluster,
    /// The store, with metrics.
    pub(crate) store: Arc<dyn Store>,
    pub(crate) water: OwnWater,
    pub(crate) former: Former,
    pub(crate) fenced: Fenced,
}

/// Finds out which cluster this is, and that the store is its own, and begins.
///
/// # Errors
/// See [`OpenError`].
pub(crate) async fn join(
    env: &Env,
    meta: &Meta,
    store: Arc<dyn Store>,
    damages: &Damages,
    config: &Config,
) -> Result<Begun, OpenError> {
    let cluster = open_cluster(env, meta).await?;
    let store: Arc<dyn Store> = Arc::new(Measured::new(env.clone(), store));
    claim(&*store, &cluster, config.journal, &meta.snapshot()).await?;
    check_level(meta, config)?;
    let fenced = Fenced::default();
    let (water, former) = begin(env, meta, &store, damages, &fenced, config).await?;
    Ok(Begun { cluster, store, water, former, fenced })
}

/// What a start does between the claim of the store and the first write.
async fn begin(
    env: &Env,
    meta: &Meta,
    store: &Arc<dyn Store>,
    damages: &Damages,
    fenced: &Fenced,
    config: &Config,
) -> Result<(OwnWater, Former), OpenError> {
    let (sole, level) = (config.sole, config.format_level);
    let is_shared = config.journal.is_shared();
    let last = meta.snapshot().lsn();
    let writers = Writers { env, store };
    let (known, highest) = match sole {
        true => compare(&writers, meta, damages, is_shared).await?,
        false => {
            let known = writer_number::known(&meta.snapshot())?;
            (known, writers.highest(known).await?)
        }
    };
    let water = writers.begin(highest).await?;
    let number = water.number;
    if sole && is_shared {
        // Before the note, so that no newer one is missed that is noted meanwhile.
        taken::watch(meta, number, fenced)?;
    }
    // On a full disk a broker must start, so that topics can be deleted there.
    let note = move |tx: &mut Tx<'_>| {
        writer_number::note(tx, number)?;
        session::begin(tx, number, level, sole)
    };
    let noted = meta.commit_deletion(Envelope::broker("open"), note).await;
    noted.map_err(|error| OpenError::Metadata(error.to_string()))?;
    if sole {
        let ended = end_former_leases(meta).await.map_err(|error| OpenError::Metadata(error.to_string()))?;
        tracing::info!(leases = ended, "ended the leases of the former process");
    }
    // Where a journal is shared, the others may live on, and what they did is in it. So trash keeps its grace.
    let former = if sole && !is_shared { known } else { WriterNumber(0) };
    let former = Former::new(env.clone(), Arc::clone(store), former, last);
    Ok((water, former))
}

/// Refuses a journal that is older than its store. Returns the highest writer number that the journal knows, and that
/// of the store.
async fn compare(
    writers: &Writers<'_>,
    meta: &Meta,
    damages: &Damages,
    is_shared: bool,
) -> Result<(WriterNumber, WriterNumber), OpenError> {
    let mut rounds = 1;
    loop {
        let snapshot = meta.snapshot();
        let known = writer_number::known(&snapshot)?;
        let compared = async {
            newest::check(writers, &snapshot, damages).await?;
            let highest = writers.highest(known).await?;
            writers.compare(&snapshot, known, highest).await?;
            Ok(highest)
        };
        match compared.await {
            Ok(highest) => return Ok((known, highest)),
            // A former process that still writes has gone on while the store was looked at.
            Err(OpenError::Older { url, reason }) if is_shared && rounds < COMPARISONS_MAX => {
                rounds += 1;
                meta.catch_up().await.map_err(|error| OpenError::Metadata(error.to_string()))?;
                if meta.snapshot().lsn() == snapshot.lsn() {
                    return Err(OpenError::Older { url, reason });
                }
                tracing::info!(reason, "another broker still writes to this journal, comparing again");
            }
            Err(error) => return Err(error),
        }
    }
}

fn check_level(meta: &Meta, config: &Config) -> Result<(), OpenError> {
    let found = format_level::get(&meta.snapshot())?;
    let known = config.format_level;
    if found > known { Err(OpenError::Newer { found: found.0, known: known.0 }) } else { Ok(()) }
}

async fn open_cluster(env: &Env, meta: &Meta) -> Result<Cluster, OpenError> {
    if let Some(cluster) = cluster::get(&meta.snapshot())? {
        return Ok(cluster);
    }
    let random = env.random_u128();
    let opened = meta.commit(Envelope::broker("open"), move |tx| cluster::open(tx, random)).await;
    opened.map(|committed| committed.reply).map_err(|error| OpenError::Metadata(error.to_string()))
}
