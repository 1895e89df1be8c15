//! `floe check`: says whether a data directory and its store are whole and belong together, without a start.
//!
//! One part that cannot be read does not keep the others from being looked at, so all faults are named at once. All
//! bytes of the log are read (`objects.rs`), unless `--quick` says otherwise.

mod objects;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use floe_env::{DATA_DIR_FORMAT, DataDir, DataDirError, Env};
use floe_log::judge::{Judgement, judge};
use floe_log::object::{Object, object_of_key};
use floe_meta::{Inspected, JournalOpenError, Lsn};
use floe_store::local::OpenError;
use floe_store::{CLUSTER_FOLDER, Store};
use serde_json::{Value, json};

use crate::check::objects::Place;
use crate::cli::CheckArgs;
use crate::server::s3_config;
use crate::settings::{Checked, Config, StorePlace, Typed};
use crate::term::{say, things};

/// Objects in one page of a listing.
const PAGE_OBJECTS: usize = 1_000;

/// Lines of each kind that a person gets. A lost pack alone may be thousands.
const LINES_MAX: usize = 20;

/// What a data directory has.
const DATA_ENTRIES: &[&str] = &["FORMAT", "FORMAT.tmp", "LOCK", "journal", "lost+found", "spill", "store"];

/// How the names of the files of a journal begin.
const JOURNAL_ENTRIES: &[&str] =
    &["base.sqlite", "history", "image", "journal.lock", "journal.sqlite", "probe", "reserve", "ring"];

/// What was found, one line each.
#[derive(Debug, Default)]
struct Report {
    /// What there is, and that it is whole.
    whole: Vec<String>,
    /// A broker does not start with it.
    refused: Vec<String>,
    /// Damage that `--repair` mends.
    repairable: Vec<String>,
    /// Acknowledged records that cannot be read; everything else is served.
    damage: Vec<String>,
    /// Those of them that a look at all bytes has found, for programs.
    records: Vec<Value>,
    notes: Vec<String>,
    /// How much metadata there is, if it is whole.
    metadata: Option<Metadata>,
}

/// How much metadata there is.
#[derive(Debug, Clone, Copy)]
struct Metadata {
    /// Commits ever.
    commits: u64,
    /// Keys of the map.
    keys: usize,
    /// Bytes of the keys and values.
    bytes: u64,
}

/// Runs the command.
pub(crate) async fn run(args: CheckArgs) -> Result<()> {
    let file = args.config.as_deref().map(Typed::read).transpose()?.unwrap_or_default();
    let typed = args.settings.0.at(args.place.as_deref())?.over(file);
    let config = Checked::new(&typed)?.config();
    let mut report = Report::default();
    directory(&config.data, &mut report)?;
    let inspected = metadata(&config.data.join("journal"), args.repair, &mut report)?;
    let objects = match &config.store {
        StorePlace::Local => local(&config.data.join("store"), inspected.as_ref(), &mut report)?,
        StorePlace::S3 { bucket, prefix } => {
            let found = remote(&config, bucket, prefix).await;
            found.map_err(|error| report.refused.push(format!("{error:#}"))).ok()
        }
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

/// The files in a folder whose names are none of Floe's, one line each. Those in the store are named by the store.
fn unknown(folder: &Path, is_known: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        // The metadata says what is missing.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("cannot read {}", folder.display()))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        if !is_known(&entry.file_name().to_string_lossy()) {
            found.push(format!("{}: this name is none of Floe's; it is left alone", entry.path().display()));
        }
    }
    found.sort();
    Ok(found)
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
    let whole = inspected.journal.is_empty() && inspected.history.is_empty();
    report.notes.extend(inspected.notes.iter().cloned());
    let attached = objects::attached(&inspected).context("a record of the metadata is damaged")?;
    report.damage.extend(attached.damage);
    report.records.extend(attached.records);
    report.notes.extend(attached.notes);
    report.damage.extend(inspected.history.iter().cloned());
    report.refused.extend(inspected.journal.iter().cloned());
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
    if whole {
        let bytes = inspected.snapshot.pairs().map(|(key, value)| (key.len() + value.len()) as u64).sum();
        let metadata = Metadata { commits: inspected.last.0, keys: inspected.snapshot.len(), bytes };
        let (commits, keys) = (things(metadata.commits, "commit"), things(metadata.keys, "key"));
        report.whole.push(format!("the journal has {commits}, the metadata {keys}"));
        if inspected.damaged.is_empty() && !inspected.attachments.is_empty() {
            report.whole.push(attached.whole);
        }
        report.metadata = Some(metadata);
    }
    Ok(Some(inspected))
}

/// The objects with their lengths, the contents of the small ones that say whose the store is, and where all bytes are.
type Objects = (BTreeMap<String, u64>, BTreeMap<String, Bytes>, Place);

/// The objects of a local store, of whose packs every byte is read. None if it cannot be read.
fn local(directory: &Path, metadata: Option<&Inspected>, report: &mut Report) -> Result<Option<Objects>> {
    let mut found = match floe_store::local::inspect(directory) {
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
    for finding in &found.findings {
        let id = finding.key.as_deref().and_then(object_of_key);
        let object = id.zip(metadata).map(|(id, metadata)| metadata.snapshot.get::<Object>(&id));
        match object {
            Some(Ok(None)) => report.notes.push(format!("{finding} (no record needs it)")),
            Some(_) => report.damage.push(finding.to_string()),
            None => report.notes.push(finding.to_string()),
        }
    }
    let mut small = BTreeMap::new();
    for key in found.objects.keys().filter(|key| key.starts_with(CLUSTER_FOLDER)) {
        let bytes = std::fs::read(directory.join(key)).with_context(|| format!("cannot read {key}"))?;
        small.insert(key.clone(), bytes.into());
    }
    let objects = std::mem::take(&mut found.objects);
    Ok(Some((objects, small, Place::Local(found))))
}

/// The objects of a bucket, as it lists them.
async fn remote(config: &Config, bucket: &str, prefix: &str) -> Result<Objects> {
    let store = floe_store::s3::S3Store::new(Env::real(), s3_config(config, bucket, prefix));
    let store: Arc<dyn Store> = Arc::new(store.context("cannot use the bucket")?);
    let (mut objects, mut small) = (BTreeMap::new(), BTreeMap::new());
    for folder in ["floe", "history", "lake", "segment", "wal"] {
        let mut after = String::new();
        loop {
            let page =
                store.list(folder, &after, PAGE_OBJECTS).await.context("the bucket cannot be listed")?;
            let Some(last) = page.last() else { break };
            after.clone_from(&last.key);
            objects.extend(page.into_iter().map(|listed| (listed.key, listed.bytes)));
        }
    }
    for key in objects.keys().filter(|key| key.starts_with(CLUSTER_FOLDER)) {
        let bytes = store.get(key, None).await.with_context(|| format!("cannot read {}", store.url(key)))?;
        small.insert(key.clone(), bytes);
    }
    Ok((objects, small, Place::Remote(store)))
}

impl Report {
    /// Says that there is no local store. A broker without records may have none.
    fn no_store(&mut self, directory: &Path, metadata: Option<&Inspected>) {
        let line = format!(
            "{} is missing: put the store back; if the records are in a bucket, name it with --store s3://BUCKET/PREFIX, as \
             `floe serve` has it",
            directory.display()
        );
        match metadata.is_some_and(|metadata| metadata.snapshot.range::<Object>(..).next().is_none()) {
            true => self.notes.push(line),
            false => self.refused.push(line),
        }
    }

    fn take_checked(&mut self, checked: objects::Checked) {
        let objects::Checked { damage, records, notes, whole } = checked;
        if damage.is_empty() {
            self.whole.push(whole);
        }
        self.damage.extend(damage);
        self.records.extend(records);
        self.notes.extend(notes);
    }

    fn take(&mut self, judgement: Judgement) {
        let Judgement { refused, damage, notes } = judgement;
        self.refused.extend(refused);
        self.damage.extend(damage);
        self.notes.extend(notes);
    }

    fn parts(&self) -> [(&'static str, &[String]); 5] {
        [
            ("whole", &self.whole),
            ("refused", &self.refused),
            ("repairable", &self.repairable),
            ("damaged", &self.damage),
            ("note", &self.notes),
        ]
    }

    fn text(&self) -> String {
        let mut lines = Vec::new();
        for (word, found) in self.parts() {
            lines.extend(found.iter().take(LINES_MAX).map(|line| format!("{word:<10}  {line}")));
            if let Some(more @ 1..) = found.len().checked_sub(LINES_MAX) {
                lines.push(format!("{word:<10}  and {more} more: --json names all"));
            }
        }
        if !self.refused.is_empty() {
            lines.push("A broker does not start like this: docs/reliability.md says what to do.".to_owned());
        }
        if !self.repairable.is_empty() {
            lines.push("`floe check --repair` mends what is repairable.".to_owned());
        }
        lines.join("\n")
    }

    fn json(&self) -> String {
        let mut fields: serde_json::Map<_, _> =
            self.parts().into_iter().map(|(word, lines)| (word.to_owned(), json!(lines))).collect();
        let metadata = self.metadata.map(
            |Metadata { commits, keys, bytes }| json!({ "commits": commits, "keys": keys, "bytes": bytes }),
        );
        fields.insert("metadata".to_owned(), json!(metadata));
        fields.insert("damaged_records".to_owned(), json!(self.records));
        Value::Object(fields).to_string()
    }
}
