//! What a look found, for people and for programs.

use std::path::Path;

use anyhow::{Context, Result};
use floe_log::judge::Judgement;
use floe_log::object::{Object, object_of_key};
use floe_meta::Inspected;
use serde_json::{Value, json};

use crate::check::objects;
use crate::term::things;

/// Lines of each kind that a person gets. A lost pack alone may be thousands.
const LINES_MAX: usize = 20;

/// What was found, one line each.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// What there is, and that it is whole.
    pub(super) whole: Vec<String>,
    /// A broker does not start with it.
    pub(super) refused: Vec<String>,
    /// Damage that `--repair` mends.
    pub(super) repairable: Vec<String>,
    /// Acknowledged records that cannot be read; everything else is served.
    pub(super) damage: Vec<String>,
    /// Those of them that a look at all bytes has found, for programs.
    pub(super) records: Vec<Value>,
    pub(super) notes: Vec<String>,
    /// How much metadata there is, if it is whole.
    pub(super) metadata: Option<Metadata>,
}

/// How much metadata there is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Metadata {
    /// Commits ever.
    commits: u64,
    /// Keys of the map.
    keys: usize,
    /// Bytes of the keys and values.
    bytes: u64,
}

impl Report {
    /// Says that there is no local store. A broker without records may have none.
    pub(super) fn no_store(&mut self, directory: &Path, metadata: Option<&Inspected>) {
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

    /// Takes what was found of the metadata. Whether the journal is whole.
    pub(super) fn take_metadata(&mut self, inspected: &Inspected) -> Result<bool> {
        let whole = inspected.journal.is_empty() && inspected.history.is_empty();
        self.notes.extend(inspected.notes.iter().cloned());
        let attached = objects::attached(inspected).context("a record of the metadata is damaged")?;
        self.damage.extend(attached.damage);
        self.records.extend(attached.records);
        self.notes.extend(attached.notes);
        self.damage.extend(inspected.history.iter().cloned());
        self.refused.extend(inspected.journal.iter().cloned());
        if whole {
            let bytes = inspected.snapshot.pairs().map(|(key, value)| (key.len() + value.len()) as u64).sum();
            let metadata = Metadata { commits: inspected.last.0, keys: inspected.snapshot.len(), bytes };
            let (commits, keys) = (things(metadata.commits, "commit"), things(metadata.keys, "key"));
            self.whole.push(format!("the journal has {commits}, the metadata {keys}"));
            if inspected.damaged.is_empty() && !inspected.attachments.is_empty() {
                self.whole.push(attached.whole);
            }
            self.metadata = Some(metadata);
        }
        Ok(whole)
    }

    /// Takes what is not as it should be in a local store. An object that no record needs is no damage.
    pub(super) fn take_findings(
        &mut self,
        found: &floe_store::local::Inspected,
        metadata: Option<&Inspected>,
    ) {
        for finding in &found.findings {
            let id = finding.key.as_deref().and_then(object_of_key);
            let object = id.zip(metadata).map(|(id, metadata)| metadata.snapshot.get::<Object>(&id));
            match object {
                Some(Ok(None)) => self.notes.push(format!("{finding} (no record needs it)")),
                Some(_) => self.damage.push(finding.to_string()),
                None => self.notes.push(finding.to_string()),
            }
        }
    }

    pub(super) fn take_checked(&mut self, checked: objects::Checked) {
        let objects::Checked { damage, records, notes, whole } = checked;
        if damage.is_empty() {
            self.whole.push(whole);
        }
        self.damage.extend(damage);
        self.records.extend(records);
        self.notes.extend(notes);
    }

    pub(super) fn take(&mut self, judgement: Judgement) {
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

    pub(super) fn text(&self) -> String {
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

    pub(super) fn json(&self) -> String {
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
