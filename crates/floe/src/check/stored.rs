//! What is in a store and in the folders of a data directory, by name.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use floe_env::Env;
use floe_meta::Inspected;
use floe_store::{CLUSTER_FOLDER, Store};

use crate::check::objects::Place;
use crate::server::s3_config;
use crate::settings::Config;

/// Objects in one page of a listing.
const PAGE_OBJECTS: usize = 1_000;

/// What a data directory has.
pub(super) const DATA_ENTRIES: &[&str] =
    &["FORMAT", "FORMAT.tmp", "LOCK", "journal", "lost+found", "spill", "store"];

/// The objects with their lengths, the contents of the small ones that say whose the store is, and where all bytes are.
pub(super) type Objects = (BTreeMap<String, u64>, BTreeMap<String, Bytes>, Place);

/// The metadata, and the objects with the contents of the small ones, as far as they can be read.
pub(super) type Looked = (Option<Inspected>, Option<Objects>);

/// Opens a bucket.
///
/// # Errors
/// It cannot be used.
pub(super) fn open_bucket(config: &Config, bucket: &str, prefix: &str) -> Result<Arc<dyn Store>> {
    let store = floe_store::s3::S3Store::new(Env::real(), s3_config(config, bucket, prefix));
    Ok(Arc::new(store.context("cannot use the bucket")?))
}

/// The objects of a store with their lengths, and the contents of the small ones. The folder of a journal is not among
/// them: whoever reads the journal judges that.
///
/// # Errors
/// The store does not answer.
pub(super) async fn listed(
    store: &Arc<dyn Store>,
) -> Result<(BTreeMap<String, u64>, BTreeMap<String, Bytes>)> {
    let (mut objects, mut small) = (BTreeMap::new(), BTreeMap::new());
    for folder in ["floe", "history", "lake", "segment", "wal"] {
        let mut after = String::new();
        loop {
            let page =
                store.list(folder, &after, PAGE_OBJECTS).await.context("the store cannot be listed")?;
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

/// The files in a folder whose names are none of Floe's, one line each. Those in the store are named by the store.
///
/// # Errors
/// The folder cannot be read.
pub(super) fn unknown(folder: &Path, is_known: impl Fn(&str) -> bool) -> Result<Vec<String>> {
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
