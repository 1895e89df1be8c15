//! A cluster whose journal is in the store or in a PostgreSQL server: its data directory has nothing to look at.

use std::sync::Arc;

use anyhow::Result;
use floe_env::{DataDir, Env};
use floe_store::local::OpenError;
use floe_store::{Store, StoreError};

use crate::check::objects::Place;
use crate::check::report::Report;
use crate::check::stored::{DATA_ENTRIES, Looked, listed, open_bucket, unknown};
use crate::journal::choice::Kind;
use crate::journal::{self, asked};
use crate::settings::{Config, StorePlace};

/// Whether the journal of a cluster is not in a data directory, as its store or the operator says.
///
/// # Errors
/// The bucket cannot be used, or its claim cannot be read.
pub(super) async fn journal_is_elsewhere(config: &Config) -> Result<bool> {
    if let Some(asked) = asked(config) {
        return Ok(asked != Kind::Local);
    }
    // The look at a journal that is here says that the bucket does not answer, and what else is wrong.
    let unless_local = |error: anyhow::Error| match floe_meta::has_journal(&journal::directory(&config.data))
    {
        Ok(true) => Ok(false),
        _ => Err(error.context("the bucket cannot be read")),
    };
    match config.store.directory(&config.data) {
        // Without the lock of the store: who looks at it takes that.
        Some(directory) => {
            let claim = std::fs::read(directory.join("floe/cluster")).unwrap_or_default();
            let made = directory.join("journal/id").exists();
            Ok(claim.starts_with(b"floe cluster 2 ") || (claim.is_empty() && made))
        }
        None => {
            let StorePlace::S3 { bucket, prefix } = &config.store else { return Ok(false) };
            let store = open_bucket(config, bucket, prefix)?;
            match floe_log::read_claim(&*store).await {
                Ok(Some(claim)) => Ok(claim.journal.is_shared()),
                Ok(None) => match store.size("journal/id").await {
                    Ok(_) => Ok(true),
                    Err(StoreError::NotFound(_)) => Ok(false),
                    Err(error) => unless_local(error.into()),
                },
                Err(error) => unless_local(error.into()),
            }
        }
    }
}

/// Looks at the store, and at the journal that its claim names.
///
/// # Errors
/// A process uses a local store: nothing can be said of it.
pub(super) async fn look(config: &Config, report: &mut Report) -> Result<Looked> {
    data_directory(config, report)?;
    let Some((store, place)) = open(config, report)? else { return Ok((None, None)) };
    let inspected = match journal::inspect(&Env::real(), config, &store).await {
        Ok(inspected) => {
            report.take_metadata(&inspected)?;
            // There is nothing to set aside: a broker writes the next one.
            report.notes.extend(inspected.image.iter().cloned());
            Some(inspected)
        }
        Err(error) => {
            report.refused.push(format!("the metadata cannot be read: {error:#}"));
            None
        }
    };
    if let Place::Local(found) = &place {
        report.take_findings(found, inspected.as_ref());
    }
    match listed(&store).await {
        Ok((objects, small)) => Ok((inspected, Some((objects, small, place)))),
        Err(error) => {
            report.refused.push(format!("{error:#}"));
            Ok((inspected, None))
        }
    }
}

/// Names what others put into the data directory, if there is one. Nothing in it is needed.
fn data_directory(config: &Config, report: &mut Report) -> Result<()> {
    if DataDir::check(&config.data).is_ok() {
        report.notes.extend(unknown(&config.data, |name| DATA_ENTRIES.contains(&name))?);
    }
    Ok(())
}

fn open(config: &Config, report: &mut Report) -> Result<Option<(Arc<dyn Store>, Place)>> {
    if let StorePlace::S3 { bucket, prefix } = &config.store {
        let store = open_bucket(config, bucket, prefix)?;
        return Ok(Some((Arc::clone(&store), Place::Remote(store))));
    }
    let Some(directory) = config.store.directory(&config.data) else { return Ok(None) };
    match floe_store::local::inspect(&directory) {
        Ok(found) => {
            let found = Arc::new(found);
            let store: Arc<dyn Store> = found.clone();
            Ok(Some((store, Place::Local(found))))
        }
        Err(error @ OpenError::InUse(_)) => Err(error.into()),
        Err(error) => {
            report.refused.push(format!("the store cannot be read: {error}"));
            Ok(None)
        }
    }
}
