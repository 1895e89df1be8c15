//! What the owner of a table knows of it.

use std::collections::BTreeSet;

use floe_schema::TableSchema;

use crate::{commit::Numbers, files::Base, small::SmallFiles};

/// What the owner of a table knows of it.
pub(crate) struct OwnedTable {
    pub(crate) base: Base,
    pub(crate) schema: TableSchema,
    pub(crate) numbers: Numbers,
    /// Files with numbers from here on may be in the store and belong to no commit.
    pub(crate) loose: u64,
    /// What a job has looked through.
    pub(crate) clean: Clean,
    /// The small files, as far as they are known.
    pub(crate) small: SmallFiles,
}

/// Manifests none of whose files hold certain columns.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clean {
    old: BTreeSet<i32>,
    pub(crate) manifests: BTreeSet<String>,
}

impl Clean {
    /// The same as far as it is about the columns `old`.
    pub(crate) fn of(&self, old: &BTreeSet<i32>) -> Clean {
        if self.old == *old {
            return self.clone();
        }
        Clean { old: old.clone(), manifests: BTreeSet::new() }
    }
}
