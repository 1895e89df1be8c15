//! `floe check`: says whether a data directory and its store are whole and belong together, without a start.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use floe_env::{DataDir, DataDirError, Env};
use floe_log::judge::{Judgement, judge};
use floe_log::object::object_of_key;
use floe_meta::Inspected;
use floe_store::{CLUSTER_FOLDER, Store};
use serde_json::json;

use crate::cli::CheckArgs;
use crate::server::s3_config;
use crate::settings::{Checked, Config, StorePlace, Typed};
use crate::term::say;

/// Objects in one page of a listing.
const PAGE_OBJECTS: usize = 1_000;

/// Lines of each kind that a person gets. A lost pack alone may be thousands.
const LINES_MAX: usize = 20;

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
    notes: Vec<String>,
}

/// Runs the command.
pub(crate) async fn run(args: CheckArgs) -> Result<()> {
    let file = args.config.as_deref().map(Typed::read).transpose()?.unwrap_or_default();
    let typed = args.settings.0.at(args.place.as_deref())?.over(file);
    let config = Checked::new(&typed)?.config();
    let mut report = Report::default();
    match DataDir::check(&config.data) {
        // Without one there is nothing to check.
        Err(error @ DataDirError::Io { .. }) => return Err(error.into()),
        Err(error) => report.refused.push(error.to_string()),
        Ok(()) => {}
    }
    let inspected = metadata(&config.data.join("journal"), args.repair, &mut report)?;
    let (objects, small) = match &config.store {
        StorePlace::Local => local(&config.data.join("store"), &inspected, &mut report)?,
        StorePlace::S3 { bucket, prefix } => remote(&config, bucket, prefix).await?,
    };
    let judgement =
        judge(&inspected.snapshot, &objects, &small).context("a record of the metadata is damaged")?;
    report.take(judgement);
    report.whole.push(format!("the store has {} objects", objects.len()));
    say(&if args.json { report.json() } else { report.text() })?;
    match report.refused.len() + report.repairable.len() + report.damage.len() {
        0 => Ok(()),
        count => bail!("{count} faults were found"),
    }
}

/// Reads the journal and its image, and repairs the image if that is asked for and safe.
fn metadata(directory: &Path, repair: bool, report: &mut Report) -> Result<Inspected> {
    let inspected = floe_meta::inspect(directory).context("the metadata cannot be read")?;
    let whole = inspected.journal.is_empty() && inspected.history.is_empty();
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
        let (commits, records) = (inspected.last, inspected.snapshot.len());
        report.whole.push(format!("the journal has {commits} commits, which make {records} records"));
    }
    Ok(inspected)
}

type Objects = (BTreeMap<String, u64>, BTreeMap<String, Bytes>);

/// The objects of a local store, every byte of which is read.
fn local(directory: &Path, metadata: &Inspected, report: &mut Report) -> Result<Objects> {
    let found = floe_store::local::inspect(directory).context("the store cannot be read")?;
    for finding in &found.findings {
        let id = finding.key.as_deref().and_then(object_of_key);
        let object = id.map(|id| metadata.snapshot.get::<floe_log::object::Object>(&id));
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
    Ok((found.objects, small))
}

/// The objects of a bucket, as it lists them.
async fn remote(config: &Config, bucket: &str, prefix: &str) -> Result<Objects> {
    let store = floe_store::s3::S3Store::new(Env::real(), s3_config(config, bucket, prefix));
    let store: Arc<dyn Store> = Arc::new(store.context("cannot use the bucket")?);
    let (mut objects, mut small) = (BTreeMap::new(), BTreeMap::new());
    for folder in ["floe", "lake", "wal"] {
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
    Ok((objects, small))
}

impl Report {
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
        let fields = self.parts().into_iter().map(|(word, lines)| (word.to_owned(), json!(lines)));
        serde_json::Value::Object(fields.collect()).to_string()
    }
}
