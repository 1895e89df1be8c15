//! Merges small data files into larger ones, so that a table has about as many files as if it had been written at once.
//!
//! Every commit of a view makes some files, and with a small stream they are tiny. A job of the view merges neighbours
//! (`merge_plan.rs`) beside the steps, and the runner adopts what it made between two of them: one snapshot, of
//! Iceberg's operation `replace`, that takes the old files out and puts the new one in. No row changes. The owner of
//! the table is the only one to change it, so an append and a merge never race.
//!
//! A piece reads its files a few at a time, and has the merged one in memory until it is adopted. It puts nothing,
//! so a crash leaves nothing behind. If the table has moved on when the piece is done (a file of it was rewritten for
//! a wider column), nothing is adopted and the job begins anew.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use floe_iceberg::ManifestFile;
use floe_log::{topic::Topic, topic_config::TopicConfig};
use floe_schema::TableSchema;
use floe_view::{Job, topic_label};
use metrics::counter;

use crate::{
    data_file::{self, Encoded, FileWriter},
    error::TableError,
    files::Files,
    limits,
    merge_plan::{self, Sizes},
    owned::OwnedTable,
    shared::{Config, Shared},
    small::{SmallFile, SmallFiles},
};

/// What a piece brings.
pub(crate) enum Merging {
    /// The small files of manifests that the owner had not looked through.
    Found(SmallFiles),
    /// A file that takes the place of others.
    Merged(Box<Merged>),
}

/// A file with the rows of others.
pub(crate) struct Merged {
    pub(crate) file: Encoded,
    /// The others, in the order of the stream.
    inputs: Vec<SmallFile>,
    /// The schema of the table when the piece began, which the file has.
    schema: TableSchema,
}

/// What a merged file replaces in a table.
pub(crate) struct Replaces {
    /// The sequence number of its youngest rows.
    pub(crate) sequence_number: i64,
    /// URLs of the files that it takes the place of.
    pub(crate) removed: BTreeSet<String>,
    /// Paths of manifests that name none of them.
    pub(crate) untouched: BTreeSet<String>,
}

/// The sizes that files of a topic's table should have; none if nothing is merged.
pub(crate) fn sizes(config: &Config, topic: &Topic) -> Option<Sizes> {
    let target = TopicConfig::of(topic).table_file_bytes.min(limits::MERGE_BYTES_MAX);
    (config.merge_files >= 2).then_some(Sizes { target, fan_in: config.merge_files })
}

/// Bytes below which a file of a topic's table is small.
pub(crate) fn small_bytes(config: &Config, topic: &Topic) -> u64 {
    sizes(config, topic).map_or(0, Sizes::small_bytes)
}

/// The next piece for a table with small files.
pub(crate) fn job(shared: &Arc<Shared>, topic: &Topic, table: &OwnedTable) -> Option<Job<Merging>> {
    let sizes = sizes(&shared.config, topic)?;
    // Fewer are never too many, and nothing has to be read to know that.
    if table.base.table.files < sizes.fan_in as u64 {
        return None;
    }
    let small = table.small.below(sizes.small_bytes());
    let files = shared.files(&table.base.table.name, topic.id);
    let unknown = small.unknown(&table.base.manifests);
    if !unknown.is_empty() && small.len() < limits::SMALL_FILES_KNOWN_MAX {
        return Some(Job { name: "merge", work: Box::pin(look(files, small.unlooked(), unknown)) });
    }
    let mut inputs = small.in_stream_order();
    inputs = inputs.drain(merge_plan::next(&inputs, sizes)?).collect();
    let (shared, schema, label) = (Arc::clone(shared), table.schema.clone(), topic_label(&topic.name));
    let work = async move {
        let read: u64 = inputs.iter().map(|input| input.bytes).sum();
        let merged = merge(&shared, &files, inputs, schema).await?;
        counter!("floe_lake_merged_files_total", "topic" => label.clone())
            .increment(merged.inputs.len() as u64);
        counter!("floe_lake_merged_bytes_total", "topic" => label).increment(read);
        Ok(Merging::Merged(Box::new(merged)))
    };
    Some(Job { name: "merge", work: Box::pin(work) })
}

/// Looks through manifests, as many as a piece takes.
async fn look(
    files: Files,
    mut found: SmallFiles,
    manifests: Vec<ManifestFile>,
) -> Result<Merging, floe_view::ViewError> {
    let mut bytes = 0;
    for manifest in manifests {
        let entries = files.manifest(&manifest).await?;
        found.note(&manifest.manifest_path, &entries, manifest.sequence_number);
        bytes += manifest.manifest_length;
        if bytes >= limits::PIECE_BYTES || found.len() >= limits::SMALL_FILES_KNOWN_MAX {
            break;
        }
    }
    Ok(Merging::Found(found))
}

/// Makes one file of the rows of others, a few at a time.
async fn merge(
    shared: &Shared,
    files: &Files,
    inputs: Vec<SmallFile>,
    schema: TableSchema,
) -> Result<Merged, TableError> {
    let mut writer = FileWriter::new(schema.clone())?;
    let mut rest = inputs.as_slice();
    while !rest.is_empty() {
        let (part, others) = rest.split_at(at_once(rest));
        rest = others;
        let read = files.get_all(part.iter().map(|input| input.url.clone()).collect()).await?;
        let (part, schema) = (part.to_vec(), schema.clone());
        let append = move || {
            for (input, bytes) in part.iter().zip(read) {
                append(&mut writer, input, bytes, &schema)?;
            }
            Ok::<_, TableError>(writer)
        };
        writer = shared.env.blocking(append).await?;
    }
    let file = shared.env.blocking(move || writer.finish()).await?;
    Ok(Merged { file, inputs, schema })
}

/// How many of the files are read at once.
fn at_once(files: &[SmallFile]) -> usize {
    let sums = files.iter().scan(0, |sum, file| {
        *sum += file.bytes;
        Some(*sum)
    });
    sums.take_while(|sum| *sum <= limits::MERGE_READ_BYTES).count().max(1)
}

/// Adds the rows of a file.
fn append(
    writer: &mut FileWriter,
    input: &SmallFile,
    bytes: Bytes,
    schema: &TableSchema,
) -> Result<(), TableError> {
    let before = writer.rows();
    let copied = data_file::copy(bytes, schema, |batch| writer.write(batch));
    copied.map_err(|error| TableError::damaged(&input.url, &error))?;
    let rows = writer.rows() - before;
    if rows != input.rows {
        let reason = format!("it has {rows} rows, and its manifest says {}", input.rows);
        return Err(TableError::damaged(&input.url, &reason));
    }
    Ok(())
}

impl Merged {
    /// What the file replaces in the table as it is now; none if the table has moved on.
    pub(crate) fn replaces(&self, table: &OwnedTable) -> Option<Replaces> {
        // No file may have a column that no schema of the table has any more.
        if self.schema.replaced() != table.schema.replaced() {
            return None;
        }
        let untouched = table.small.look_up(&self.inputs)?.into_iter().collect();
        let sequence_number = self.inputs.iter().map(|input| input.sequence_number).max()?;
        let removed = self.inputs.iter().map(|input| input.url.clone()).collect();
        Some(Replaces { sequence_number, removed, untouched })
    }
}
