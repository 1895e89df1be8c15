//! A store belongs to one cluster. Object ids are numbers that the metadata gives out, so a second cluster that
//! wrote to the same place would overwrite the objects of the first. A cluster therefore claims its store before it
//! writes to it. A broker that starts with other metadata, or with another store, is refused.
//!
//! ```text
//! floe/cluster   "floe cluster 1 " + the cluster's id (22 characters) + "\n"
//! ```

use std::path::Path;

use bytes::Bytes;
use floe_meta::{DecodeError, Snapshot};
use floe_store::{PutIfAbsent, Store, StoreError};

use crate::error::OpenError;
use crate::map::cluster::Cluster;
use crate::map::ids::ObjectId;
use crate::map::object::Object;

/// The key of the claim, below [`floe_store::CLUSTER_FOLDER`].
pub(crate) const CLAIM_KEY: &str = "floe/cluster";
/// The beginning of a claim; the number is the version of its format.
const PREFIX: &str = "floe cluster 1 ";
/// Bytes of a claim.
const BYTES: u64 = PREFIX.len() as u64 + 22 + 1;

/// Makes sure that the store holds the objects of this cluster and of no other.
///
/// # Errors
/// The store belongs to another cluster, lacks the objects of this one, or does not answer.
pub(crate) async fn claim(
    store: &dyn Store,
    cluster: &Cluster,
    snapshot: &Snapshot,
) -> Result<(), OpenError> {
    if check(store, cluster).await? {
        return Ok(());
    }
    let unreadable = |error: DecodeError| OpenError::Metadata(error.to_string());
    if snapshot.range::<Object>(ObjectId(0)..).next().transpose().map_err(unreadable)?.is_some() {
        return Err(OpenError::OtherStore { url: store.url(CLAIM_KEY), cluster: cluster.id() });
    }
    match store.put_if_absent(CLAIM_KEY, vec![text(cluster)]).await {
        Ok(PutIfAbsent::Created) => Ok(()),
        // Another broker was faster, or an earlier try of this request succeeded and its answer was lost.
        Ok(PutIfAbsent::Exists) | Err(StoreError::Unknown(_)) => match check(store, cluster).await? {
            true => Ok(()),
            false => Err(OpenError::Store("nobody knows whether it was claimed, start again".into())),
        },
        Err(error) => Err(OpenError::Store(error.to_string())),
    }
}

/// Makes sure that no cluster has claimed the store, before new metadata is made in the directory `missing`. Files of a
/// new journal would be in the way of those that somebody restores from a backup.
///
/// # Errors
/// A cluster has claimed the store, or the store does not answer.
pub async fn unclaimed(store: &dyn Store, missing: &Path) -> Result<(), OpenError> {
    let Some(found) = read(store).await? else { return Ok(()) };
    let missing = missing.display().to_string();
    Err(OpenError::NoMetadata { url: store.url(CLAIM_KEY), found: cluster_of(&found), missing })
}

/// Whether the store is ours; `false` if no cluster has claimed it.
async fn check(store: &dyn Store, cluster: &Cluster) -> Result<bool, OpenError> {
    let Some(found) = read(store).await? else { return Ok(false) };
    if found == text(cluster) {
        return Ok(true);
    }
    let (url, found) = (store.url(CLAIM_KEY), cluster_of(&found));
    Err(OpenError::OtherCluster { url, found, cluster: cluster.id() })
}

/// The claim; none if no cluster has made one.
async fn read(store: &dyn Store) -> Result<Option<Bytes>, OpenError> {
    match store.get(CLAIM_KEY, Some(0..BYTES)).await {
        Ok(found) => Ok(Some(found)),
        Err(StoreError::NotFound(_)) => Ok(None),
        Err(error) => Err(OpenError::Store(error.to_string())),
    }
}

fn cluster_of(claim: &[u8]) -> String {
    String::from_utf8_lossy(claim).trim_start_matches(PREFIX).trim_end().to_owned()
}

pub(crate) fn text(cluster: &Cluster) -> Bytes {
    Bytes::from(format!("{PREFIX}{}\n", cluster.id()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use floe_env::{Env, Timestamp};
    use floe_meta::{Envelope, MemoryJournal, Meta, Options};

    use super::*;
    use floe_store::MemoryStore;

    fn cluster(number: u128) -> Cluster {
        Cluster::new(number << 64 | number, Timestamp(0))
    }

    async fn meta(objects: u64) -> Meta {
        let env = Env::simulated(1);
        let meta = Meta::open(env, Arc::new(MemoryJournal::new()), Options::default()).await.unwrap();
        let put = meta.commit(Envelope::broker("test"), move |tx| {
            (0..objects).for_each(|id| tx.put(&ObjectId(id), &Object::raw(1, 1)));
            Ok::<_, std::convert::Infallible>(())
        });
        put.await.unwrap();
        meta
    }

    /// Stores carry this text, so it never changes.
    #[test]
    fn golden() {
        assert_eq!(text(&cluster(7)), "floe cluster 1 AAAAAAAAAAcAAAAAAAAABw\n");
        assert_eq!(text(&cluster(7)).len() as u64, BYTES);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_belongs_to_the_first_cluster_that_claims_it() {
        let (store, empty, used) = (MemoryStore::new(), meta(0).await, meta(1).await);
        claim(&store, &cluster(1), &empty.snapshot()).await.unwrap();
        claim(&store, &cluster(1), &empty.snapshot()).await.unwrap();
        claim(&store, &cluster(1), &used.snapshot()).await.unwrap();
        let other = claim(&store, &cluster(2), &empty.snapshot()).await.unwrap_err().to_string();
        assert!(other.contains(&cluster(1).id()) && other.contains(&cluster(2).id()), "{other}");
    }

    #[tokio::test(start_paused = true)]
    async fn new_metadata_is_not_made_for_a_store_that_a_cluster_has_claimed() {
        let (store, empty) = (MemoryStore::new(), meta(0).await);
        unclaimed(&store, Path::new("data/journal")).await.unwrap();
        claim(&store, &cluster(1), &empty.snapshot()).await.unwrap();
        let refused = unclaimed(&store, Path::new("data/journal")).await.unwrap_err().to_string();
        assert!(refused.contains(&cluster(1).id()) && refused.contains("data/journal"), "{refused}");
    }

    #[tokio::test(start_paused = true)]
    async fn metadata_with_objects_does_not_claim_a_store_without_them() {
        let (store, used) = (MemoryStore::new(), meta(1).await);
        let error = claim(&store, &cluster(1), &used.snapshot()).await.unwrap_err();
        assert!(matches!(error, OpenError::OtherStore { .. }), "{error}");
        assert!(
            matches!(store.get(CLAIM_KEY, None).await, Err(StoreError::NotFound(_))),
            "it was left alone"
        );
    }
}
