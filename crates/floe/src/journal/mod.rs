//! The journal of a broker: chosen (`choice.rs`), opened, and looked at without opening it.

pub(crate) mod choice;

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use floe_env::Env;
use floe_log::JournalId;
use floe_meta::{
    BucketFound, BucketJournal, BucketOptions, Inspected, Journal, JournalOptions, RingOptions,
    has_bucket_journal, has_journal, inspect_bucket, open_journal,
};
use floe_store::{Measured, Store, check_conditional};
use tracing::{info, warn};

use crate::journal::choice::{Choice, Found, Kind, choose};
use crate::settings::{Config, JournalPlace, Secret};

/// Where the claim of a store is, for messages.
const CLAIM_KEY: &str = "floe/cluster";

/// A journal that is open, and which one it is.
pub(crate) struct Opened {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) id: JournalId,
}

/// The folder of the data directory that has a local journal.
pub(crate) fn directory(data: &Path) -> std::path::PathBuf {
    data.join("journal")
}

/// Opens the journal of a broker, or makes that of a new cluster.
///
/// # Errors
/// The store does not keep to the condition of a PUT, or has another journal than what is here or was asked for, or the
/// journal cannot be opened; the message says what to do.
pub(crate) async fn open(env: &Env, config: &Config, store: &Arc<dyn Store>) -> Result<Opened> {
    if store.remote() {
        check_conditional(&**store, || env.random_u128()).await?;
    }
    let found = look(config, store).await?;
    let choice = choose(asked(config), &found)?;
    match choice.kind {
        Kind::Local => open_local(env, config, store.remote()),
        Kind::Bucket => open_bucket(env, store, choice).await,
        Kind::Postgres => postgres::open(env, address(config)?, choice).await,
    }
}

/// Reads the journal of a cluster whose claim names one that other machines can open, and changes nothing.
///
/// # Errors
/// It is not the one that was asked for, or cannot be read.
pub(crate) async fn inspect(env: &Env, config: &Config, store: &Arc<dyn Store>) -> Result<Inspected> {
    let choice = choose(asked(config), &look(config, store).await?)?;
    match choice.kind {
        Kind::Local => floe_meta::inspect(&directory(&config.data)).map_err(Into::into),
        Kind::Bucket => {
            let options = BucketOptions { expected: choice.expected, ..BucketOptions::default() };
            inspect_bucket(env, Arc::clone(store), options).await.map_err(Into::into)
        }
        Kind::Postgres => postgres::inspect(env, address(config)?, choice).await,
    }
}

/// The kind of journal that the settings ask for.
pub(crate) fn asked(config: &Config) -> Option<Kind> {
    Some(match config.journal.as_ref()? {
        JournalPlace::Local => Kind::Local,
        JournalPlace::Bucket => Kind::Bucket,
        JournalPlace::Postgres(_) => Kind::Postgres,
    })
}

fn address(config: &Config) -> Result<&str> {
    match &config.journal {
        Some(JournalPlace::Postgres(Secret(address))) => Ok(address),
        _ => anyhow::bail!("no address of a PostgreSQL server was given"),
    }
}

/// Looks at what is there.
pub(crate) async fn look(config: &Config, store: &Arc<dyn Store>) -> Result<Found> {
    let directory = directory(&config.data);
    let folder = BucketOptions::default().folder;
    Ok(Found {
        claim: floe_log::read_claim(&**store).await?,
        claim_url: store.url(CLAIM_KEY),
        in_directory: has_journal(&directory)?,
        directory,
        in_store: has_bucket_journal(store, &folder).await?.is_some(),
        store_url: store.url(&folder),
        is_remote: store.remote(),
    })
}

fn open_local(env: &Env, config: &Config, is_remote: bool) -> Result<Opened> {
    let options = JournalOptions {
        reserve_bytes: config.disk_reserve_bytes,
        // What a client was told to be in the bucket is in the bucket, not on this machine.
        carries: !is_remote,
        ring: RingOptions { bytes_max: config.journal_bytes, ..RingOptions::default() },
    };
    let directory = directory(&config.data);
    let journal = open_journal(env, &directory, options)?;
    if is_remote {
        warn!(
            journal = %directory.display(),
            "the journal of this cluster is on this machine, and not in the bucket: without this directory nobody \
             finds the records. Back it up; a new cluster with a bucket has its journal there"
        );
    }
    Ok(Opened { journal: Arc::new(journal), id: JournalId::Local })
}

async fn open_bucket(env: &Env, store: &Arc<dyn Store>, choice: Choice) -> Result<Opened> {
    let options = BucketOptions { expected: choice.expected, ..BucketOptions::default() };
    let measured: Arc<dyn Store> = Arc::new(Measured::new(env.clone(), Arc::clone(store)));
    let journal = BucketJournal::open(env, measured, options).await?;
    let found = match journal.found() {
        BucketFound::Made => "made a journal in the store",
        BucketFound::There => "the journal is in the store",
    };
    info!(id = %format!("{:032x}", journal.id()), url = store.url("journal"), "{found}");
    let id = JournalId::Bucket(journal.id());
    Ok(Opened { journal: Arc::new(journal), id })
}

#[cfg(feature = "postgres")]
mod postgres {
    use anyhow::Context as _;
    use floe_meta::{PostgresJournal, PostgresOptions, inspect_postgres};

    use super::*;

    fn options(address: &str, choice: Choice) -> PostgresOptions {
        PostgresOptions { id: choice.expected, ..PostgresOptions::at(address) }
    }

    pub(super) async fn open(env: &Env, address: &str, choice: Choice) -> Result<Opened> {
        let journal = PostgresJournal::open(env, options(address, choice)).await;
        let journal = journal.context("cannot open the journal")?;
        info!(id = %format!("{:032x}", journal.id()), "the journal is in a PostgreSQL server");
        let id = JournalId::Postgres(journal.id());
        Ok(Opened { journal: Arc::new(journal), id })
    }

    pub(super) async fn inspect(env: &Env, address: &str, choice: Choice) -> Result<Inspected> {
        inspect_postgres(env, options(address, choice)).await.context("cannot read the journal")
    }
}

#[cfg(not(feature = "postgres"))]
mod postgres {
    use super::*;

    const MISSING: &str = "this build has no journal in PostgreSQL: build Floe with it, `cargo build --release -p floe \
                           --features postgres`";

    pub(super) async fn open(_: &Env, _: &str, _: Choice) -> Result<Opened> {
        Err(anyhow::anyhow!(MISSING))
    }

    pub(super) async fn inspect(_: &Env, _: &str, _: Choice) -> Result<Inspected> {
        Err(anyhow::anyhow!(MISSING))
    }
}
