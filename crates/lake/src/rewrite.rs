//! Rewrites data files that hold columns which others replaced: whole numbers that became doubles.
//!
//! Iceberg knows no promotion from whole numbers to double, so such a column gets a new id, and other readers do not
//! find the values under the old one. A small table is rewritten in the step that replaces the column. A large one is
//! rewritten by a job, in pieces: the schema has both columns until the last file is done (`convert.rs`), and rows are
//! always in one of them. SQL converts the old ones as it reads, so it sees one column at any time.
//!
//! What is left to do follows from the table's documents: an old column that the current schema still has. So a job
//! goes on after a crash, under any owner.

use std::{collections::BTreeSet, sync::Arc};

use floe_iceberg::{DataFile, ManifestFile};
use floe_log::{topic::Topic, topic_config::TopicConfig};
use floe_schema::TableSchema;
use floe_view::{Job, topic_label};
use metrics::counter;

use crate::{
    convert::Old,
    data_file::{self, Encoded},
    error::TableError,
    files::Files,
    limits,
    owned::{Clean, OwnedTable},
    shared::Shared,
};

/// What one piece makes.
#[derive(Debug, Default)]
pub(crate) struct Rewritten {
    /// The old columns that were looked for.
    old: BTreeSet<i32>,
    /// Files with the rows of the removed ones.
    pub(crate) files: Vec<Encoded>,
    /// URLs of the files that held old columns.
    pub(crate) removed: BTreeSet<String>,
    /// The sequence number of their youngest rows.
    pub(crate) sequence_number: Option<i64>,
    /// Whether other files hold them, too.
    more: bool,
    /// Paths of manifests that were looked through and whose files do not hold them.
    pub(crate) clean: Clean,
}

impl Rewritten {
    /// The old columns that no file holds any more.
    pub(crate) fn gone(&self) -> BTreeSet<i32> {
        if self.more { BTreeSet::new() } else { self.old.clone() }
    }
}

/// How much one piece takes.
struct Size {
    bytes: u64,
    files: usize,
}

/// Rewrites a small table under `schema`, which replaces columns that its files hold. Nothing is made of a large one,
/// or while a job is at work on it.
pub(crate) async fn in_step(
    shared: &Shared,
    files: &Files,
    table: &OwnedTable,
    schema: &TableSchema,
) -> Result<Rewritten, TableError> {
    let old = |schema| Old::of(schema, table.base.metadata.current_schema(), &BTreeSet::new());
    let wanted = old(schema);
    let is_small = table.base.table.bytes <= shared.config.step_rewrite_bytes
        && table.base.table.files <= limits::STEP_REWRITE_FILES;
    if wanted.ids().is_empty() || !is_small || !old(&table.schema).ids().is_empty() {
        return Ok(Rewritten { more: true, clean: table.clean.clone(), ..Rewritten::default() });
    }
    let all = Size { bytes: u64::MAX, files: usize::MAX };
    let task =
        Task { manifests: table.base.manifests.clone(), clean: Clean::default(), old: wanted, size: all };
    task.run(shared, files, schema, usize::MAX).await
}

/// The next piece for a table whose files hold old columns.
pub(crate) fn job(shared: &Arc<Shared>, topic: &Topic, table: &OwnedTable) -> Option<Job<Rewritten>> {
    let old = Old::of(&table.schema, table.base.metadata.current_schema(), &BTreeSet::new());
    let ids = old.ids();
    if ids.is_empty() {
        return None;
    }
    let size = Size { bytes: limits::PIECE_BYTES, files: limits::PIECE_FILES };
    let task = Task { manifests: table.base.manifests.clone(), clean: table.clean.of(&ids), old, size };
    let (shared, schema) = (Arc::clone(shared), table.schema.clone());
    let files = shared.files(&table.base.table.name, topic.id);
    let (label, file_bytes) = (topic_label(&topic.name), TopicConfig::of(topic).table_file_bytes);
    let work = async move {
        let file_bytes = usize::try_from(file_bytes).unwrap_or(usize::MAX);
        let made = task.run(&shared, &files, &schema, file_bytes).await?;
        counter!("floe_lake_rewritten_files_total", "topic" => label).increment(made.removed.len() as u64);
        Ok(made)
    };
    Some(Job { name: "widen", work: Box::pin(work) })
}

/// One piece to do.
struct Task {
    manifests: Vec<ManifestFile>,
    clean: Clean,
    old: Old,
    size: Size,
}

impl Task {
    async fn run(
        self,
        shared: &Shared,
        files: &Files,
        schema: &TableSchema,
        file_bytes: usize,
    ) -> Result<Rewritten, TableError> {
        let old = self.old.ids();
        let (chosen, more, clean) = self.choose(files).await?;
        let mut inputs = Vec::with_capacity(chosen.len());
        for (_, url) in &chosen {
            inputs.push((url.clone(), files.get_url(url).await?));
        }
        let schema = schema.clone();
        let rewrite = move || data_file::rewrite_all(inputs, &schema, file_bytes);
        let made = shared.env.blocking(rewrite).await?;
        let sequence_number = chosen.last().map(|(number, _)| *number);
        let removed = chosen.into_iter().map(|(_, url)| url).collect();
        Ok(Rewritten { old, files: made, removed, sequence_number, more, clean })
    }

    /// Files that hold old columns, as many as a piece takes, by sequence number and URL, which is the order of the
    /// stream; whether there are more; and the manifests that have none.
    async fn choose(self, files: &Files) -> Result<(BTreeSet<(i64, String)>, bool, Clean), TableError> {
        let Task { manifests, mut clean, old, size } = self;
        let leaves = old.leaves();
        let holds = |file: &DataFile| file.metrics.value_counts.keys().any(|id| leaves.contains(id));
        let (mut chosen, mut bytes) = (BTreeSet::new(), 0);
        for manifest in manifests.iter().filter(|manifest| manifest.live() > 0) {
            if clean.manifests.contains(&manifest.manifest_path) {
                continue;
            }
            let mut is_clean = true;
            for entry in files.manifest(manifest).await?.iter().filter(|entry| entry.is_alive()) {
                let file = &entry.data_file;
                if !holds(file) {
                    continue;
                }
                is_clean = false;
                let fits = bytes + file.file_size_in_bytes <= size.bytes && chosen.len() < size.files;
                if !chosen.is_empty() && !fits {
                    return Ok((chosen, true, clean));
                }
                bytes += file.file_size_in_bytes;
                let number = entry.sequence_number.unwrap_or(manifest.sequence_number);
                chosen.insert((number, file.file_path.clone()));
            }
            if is_clean {
                clean.manifests.insert(manifest.manifest_path.clone());
            }
        }
        Ok((chosen, false, clean))
    }
}
