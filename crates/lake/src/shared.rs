//! What the handle, the views and the cleaner of one broker share.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use floe_env::{Ages, Env, Grace};
use floe_log::{Log, TopicId};
use floe_meta::{Lsn, lease::Watch};

use crate::{files::Files, layout::Folder, limits, map::GarbageKey};

/// What a broker can choose for its lake. Topics have settings of their own.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Whether this broker runs views. A broker that does not still answers for the tables that others write.
    pub views: bool,
    /// Views that encode at the same time; each takes a core and the memory of one commit. At least 1.
    pub views_at_work: usize,
    /// Snapshots that a table keeps; a commit that adds one expires the oldest. At least 2.
    pub snapshots_kept: usize,
    /// Bytes of decoded records that one commit takes in while a view catches up, and one batch more at most.
    pub commit_bytes: usize,
    /// Bytes of the log, as stored, at which a view commits although the freshness allows more: queries read them from
    /// the log until then. A smaller `floe.table.file.bytes` of a topic counts instead.
    pub gather_bytes: u64,
    /// Bytes of data files up to which a table is rewritten in the step that replaces a column. A larger one is
    /// rewritten by a job, and other readers see both columns meanwhile.
    pub step_rewrite_bytes: u64,
    /// Small files of about as many rows that are merged into one. Below 2, none are.
    pub merge_files: usize,
    /// How long a file is kept that no snapshot names any more. A reader may still hold a snapshot that does, and a
    /// late PUT may still be on its way.
    pub garbage_grace: Duration,
    /// How often the cleaner looks for files whose grace is over.
    pub clean_interval: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            views: true,
            views_at_work: floe_view::limits::VIEWS_AT_WORK,
            snapshots_kept: limits::SNAPSHOTS_KEPT,
            commit_bytes: floe_view::limits::COMMIT_BYTES_MAX,
            gather_bytes: limits::GATHER_BYTES_MAX,
            step_rewrite_bytes: limits::STEP_REWRITE_BYTES,
            merge_files: limits::MERGE_FILES,
            garbage_grace: limits::GARBAGE_GRACE,
            clean_interval: limits::CLEAN_INTERVAL,
        }
    }
}

/// What the handle, the views and the cleaner share.
pub(crate) struct Shared {
    pub(crate) env: Env,
    pub(crate) log: Log,
    pub(crate) config: Config,
    /// What the cleaner remembers from one round to the next.
    pub(crate) cleaning: Mutex<Cleaning>,
}

/// What the cleaner remembers from one round to the next.
#[derive(Debug, Default)]
pub(crate) struct Cleaning {
    /// The lease while another process holds it.
    pub(crate) watch: Watch,
    /// How old garbage is; `None` before there was some.
    pub(crate) grace: Option<Grace>,
    /// The LSN at which each of the oldest records of garbage was first seen.
    pub(crate) seen: BTreeMap<GarbageKey, Lsn>,
    /// The oldest of the garbage that no mark of the grace tells to be old: the newest garbage, if no other follows it.
    pub(crate) young: Ages<GarbageKey>,
}

impl Shared {
    /// The files of the table of a topic, whose name was `name` when the table was made.
    pub(crate) fn files(&self, name: &str, topic: TopicId) -> Files {
        Files::new(self.env.clone(), Arc::clone(self.log.store()), Folder::of(name, topic))
    }
}
