//! `floe check`: says whether a data directory and its store are whole and belong together, without a start.
//!
//! One part that cannot be read does not keep the others from being looked at, so all faults are named at once. All
//! bytes of the log are read (`objects.rs`), unless `--quick` says otherwise. A journal that is in the store or in a
//! server is read from there (`shared.rs`). `stored.rs` lists what there is, `report.rs` says what was found.

mod objects;
mod report;
mod shared;
mod stored;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use floe_env::{DATA_DIR_FORMAT, DataDir, DataDirError};
use floe_log::judge::judge;
use floe_meta::{Inspected, JournalOpenError, Lsn};
use floe_store::CLUSTER_FOLDER;
use floe_store::local::OpenError;

use crate::check::objects::Place;
use crate::check::report::Report;
use crate::check::stored::{DATA_ENTRIES, Looked, Objects, listed, open_bucket, unknown};
use crate::cli::CheckArgs;
use crate::journal;
use crate::settings::{Checked, Config, StorePlace, Typed};
use crate::term::{say, things};

/// How the names of the files of a journal begin.
const JOURNAL_ENTRIES: &[&str] =
    &["base.sqlite", "history", "image", "journal.lock", "journal.sqlite", "probe", "reserve", "ring"];

/// Runs the command.
pub(crate) async fn run(args: CheckArgs) -> Result<()> {
    let file = args.config.as_deref().map(Typed::read).transpose()?.unwrap_or_default();
    let typed = args.settings.0.at(args.place.as_deref())?.over(file);
    let config = Checked::new(&typed)?.config();
    let mut report = Report::default();
    let (inspected, objects) = match shared::journal_is_elsewhere(&config).await? {
        true => shared::look(&config, &mut report).await?,
        false => of_directory(&config, args.repair, &mut report).await?,
    };
    if let Some((objects, _, _)) = &objects {
        report.whole.push(format!("the store has {}", things(objects.len(), "object")));
    }
    if let (Some(inspected), Some((objects, small, place))) = (&inspected, &objects) {
        let kept: Vec<Lsn> = inspected.attachments.keys().copied().collect();
        let judgement = judge(&inspected.snapshot, &kept, objects, small);
        report.take(judgement.context("a record of the metadata is damaged")?);
        let damage = floe_history::map::damage(&inspected.snapshot, |key| objects.get(key).copied());
        report.damage.extend(damage.context("a record of the history is damaged")?);
        if !args.quick {
            match objects::check(place, &inspected.snapshot, !args.json).await {
                Ok(checked) => report.take_checked(checked),
                Err(error) => {
                    report.refused.push(format!("the bytes of the log were not compared: {error:#}"));
                }
            }
        }
    }
    say(&if args.json { report.json() } else { report.text() })?;
    match report.refused.len() + report.repairable.len() + report.damage.len() {
        0 => Ok(()),
        count => bail!("found {}", things(count, "fault")),
    }
}

/// Looks at a journal in the data directory, and at the store.
async fn of_directory(config: &Config, repair: bool, report: &mut Report) -> Result<Looked> {
    directory(&config.data, report)?;
    let inspected = metadata(&journal::directory(&config.data), repair, report)?;
    let objects = match (&config.store, config.store.directory(&config.data)) {
        (StorePlace::S3 { bucket, prefix }, _) => {
            let found = remote(config, bucket, prefix).await;
            found.map_err(|error| report.refused.push(format!("{error:#}"))).ok()
        }
        (_, Some(directory)) => local(&directory, inspected.as_ref(), report)?,
        (_, None) => None,
    };
    Ok((inspected, objects))
}

/// Looks at the directory itself, and names what others put there.
///
/// # Errors
/// It cannot be read, or is none of Floe's: there is nothing to check.
fn directory(path: &Path, report: &mut Report) -> Result<()> {
    match DataDir::check(path) {
        Ok(()) => {}
        Err(DataDirError::Foreign { .. }) if is_used(path) => report.refused.push(format!(
            "{} is missing: if the directory is Floe's, write one line \"floe {DATA_DIR_FORMAT}\" there",
            path.join("FORMAT").display()
        )),
        Err(DataDirError::Foreign { .. }) => bail!(
            "{} is not a data directory of Floe: name the one that `floe serve --data` has, ./floe-data by default",
            path.display()
        ),
        Err(error @ (DataDirError::Io { .. } | DataDirError::Empty { .. })) => return Err(error.into()),
        Err(error) => report.refused.push(error.to_string()),
    }
    let is_data = |name: &str| DATA_ENTRIES.contains(&name);
    let is_journal = |name: &str| JOURNAL_ENTRIES.iter().any(|begin| name.starts_with(begin));
    report.notes.extend(unknown(path, is_data)?);
    report.notes.extend(unknown(&path.join("journal"), is_journal)?);
    Ok(())
}

/// Whether a directory without a `FORMAT` has a broker's files all the same.
fn is_used(path: &Path) -> bool {
    ["journal/journal.sqlite", "journal/image", "journal/ring", "store/format"]
        .iter()
        .any(|file| path.join(file).exists())
}

/// Reads the journal and its image, and repairs the image if that is asked for and safe. None if they cannot be read.
fn metadata(directory: &Path, repair: bool, report: &mut Report) -> Result<Option<Inspected>> {
    let inspected = match floe_meta::inspect(directory) {
        Ok(inspected) => inspected,
        // Nothing can be said of files that somebody writes to.
        Err(error @ JournalOpenError::InUse { .. }) => return Err(error.into()),
        Err(error) => {
            report.refused.push(format!("the metadata cannot be read: {error}"));
            return Ok(None);
        }
    };
    let whole = report.take_metadata(&inspected)?;
    match inspected.image.is_empty() {
        true => {}
        // Without a whole journal, the image may be the only copy of what the journal lost.
        false if !whole => report.refused.extend(inspected.image.iter().cloned()),
        false if repair => {
            let aside = floe_meta::set_image_aside(directory).context("the image was not set aside")?;
            let line =
                format!("repaired: the image is now {}; the next start makes a new one", aside.display());
            report.notes.push(line);
        }
        false => report.repairable.extend(inspected.image.iter().cloned()),
    }
    Ok(Some(inspected))
}

/// The objects of a local store, of whose packs every byte is read. None if it cannot be read.
fn local(directory: &Path, metadata: Option<&Inspected>, report: &mut Report) -> Result<Option<Objects>> {
    let found = match floe_store::local::inspect(directory) {
        Ok(found) => found,
        Err(error @ OpenError::InUse(_)) => return Err(error.into()),
        Err(_) if !directory.exists() => {
            report.no_store(directory, metadata);
            return Ok(None);
        }
        Err(error) => {
            report.refused.push(format!("the store cannot be read: {error}"));
            return Ok(None);
        }
    };
    report.take_findings(&found, metadata);
    let mut small = BTreeMap::new();
    for key in found.objects.keys().filter(|key| key.starts_with(CLUSTER_FOLDER)) {
        let bytes = std::fs::read(directory.join(key)).with_context(|| format!("cannot read {key}"))?;
        small.insert(key.clone(), bytes.into());
    }
    Ok(Some((found.objects.clone(), small, Place::Local(Arc::new(found)))))
}

/// The objects of a bucket, as it lists them.
async fn remote(config: &Config, bucket: &str, prefix: &str) -> Result<Objects> {
    let store = open_bucket(config, bucket, prefix)?;
    let (objects, small) = listed(&store).await?;
    Ok((objects, small, Place::Remote(store)))
}
