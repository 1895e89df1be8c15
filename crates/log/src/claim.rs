//! A store belongs to one cluster. Object ids are numbers that the metadata gives out, so a second cluster that
//! wrote to the same place would overwrite the objects of the first. A cluster therefore claims its store before it
//! writes to it, and says in the claim where its journal is. A broker that starts with other metadata, with another
//! journal or with another store is refused.
//!
//! ```text
//! floe/cluster   "floe cluster 1 " + the cluster's id (22 characters) + "\n"
//!                                    its journal is in a data directory
//!                "floe cluster 2 " + the cluster's id + " " + the kind of journal + " " + its id (32 hex) + "\n"
//! ```
//! A start makes the journal first, then the cluster's identity in it, and then the claim. A crash in between leaves a
//! journal without a claim, which the next start goes on with.

use bytes::Bytes;
use floe_meta::{DecodeError, Snapshot};
use floe_store::{PutIfAbsent, Store, StoreError};

use crate::error::OpenError;
use crate::limits::CLAIM_BYTES_MAX;
use crate::map::cluster::Cluster;
use crate::map::ids::ObjectId;
use crate::map::object::Object;
use crate::map::writer_number::{self, WriterNumber};

/// The key of the claim, below [`floe_store::CLUSTER_FOLDER`].
pub(crate) const CLAIM_KEY: &str = "floe/cluster";
/// The beginning of a claim; the number is the version of its format.
const PREFIX: &str = "floe cluster 1 ";
/// The same of one that names its journal.
const PREFIX_WITH_JOURNAL: &str = "floe cluster 2 ";
/// Characters of a cluster's id.
const CLUSTER_CHARS: usize = 22;
/// Bytes of a claim that names no journal, the shortest one.
const LOCAL_BYTES: u64 = (PREFIX.len() + CLUSTER_CHARS + 1) as u64;

/// Where the journal of a cluster is, and which one it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JournalId {
    /// In the data directory of the broker, which only that process opens.
    #[default]
    Local,
    /// In the store, by its id.
    Bucket(u128),
    /// In a PostgreSQL server, by its id.
    Postgres(u128),
}

impl JournalId {
    /// Whether other processes can open the journal while this one does.
    pub fn is_shared(self) -> bool {
        self != JournalId::Local
    }

    /// The kind as the claim and the settings name it.
    pub fn kind(self) -> &'static str {
        match self {
            JournalId::Local => "local",
            JournalId::Bucket(_) => "bucket",
            JournalId::Postgres(_) => "postgres",
        }
    }

    fn id(self) -> Option<u128> {
        match self {
            JournalId::Local => None,
            JournalId::Bucket(id) | JournalId::Postgres(id) => Some(id),
        }
    }
}

/// What the claim of a store says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The id of the cluster.
    pub cluster: String,
    /// Its journal.
    pub journal: JournalId,
}

impl Claim {
    pub(crate) fn of(cluster: &Cluster, journal: JournalId) -> Claim {
        Claim { cluster: cluster.id(), journal }
    }

    pub(crate) fn encode(&self) -> Bytes {
        let Claim { cluster, journal } = self;
        Bytes::from(match journal.id() {
            None => format!("{PREFIX}{cluster}\n"),
            Some(id) => format!("{PREFIX_WITH_JOURNAL}{cluster} {} {id:032x}\n", journal.kind()),
        })
    }

    /// `None` if no version that this build knows wrote these bytes.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Claim> {
        let line = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
        let claim = match line.strip_prefix(PREFIX) {
            Some(cluster) => Claim { cluster: cluster.to_owned(), journal: JournalId::Local },
            None => {
                let mut words = line.strip_prefix(PREFIX_WITH_JOURNAL)?.split(' ');
                let (cluster, kind, id) = (words.next()?.to_owned(), words.next()?, words.next()?);
                let id = u128::from_str_radix(id, 16).ok()?;
                let journal = match kind {
                    "bucket" => JournalId::Bucket(id),
                    "postgres" => JournalId::Postgres(id),
                    _ => return None,
                };
                Claim { cluster, journal }
            }
        };
        (claim.cluster.len() == CLUSTER_CHARS && claim.encode() == bytes).then_some(claim)
    }
}

/// The claim of a store; none if no cluster has made one.
///
/// # Errors
/// The store does not answer, or the claim is damaged or of a newer version.
pub async fn read_claim(store: &dyn Store) -> Result<Option<Claim>, OpenError> {
    let failed = |error: StoreError| OpenError::Store(error.to_string());
    let unknown = |found: String| Err(OpenError::Claim { url: store.url(CLAIM_KEY), found });
    let mut bytes = match store.get(CLAIM_KEY, Some(0..LOCAL_BYTES)).await {
        Ok(bytes) => bytes,
        Err(StoreError::NotFound(_)) => return Ok(None),
        Err(StoreError::Corrupt(reason)) => return unknown(reason),
        Err(error) => return Err(failed(error)),
    };
    if !bytes.starts_with(PREFIX.as_bytes()) {
        let length = store.size(CLAIM_KEY).await.map_err(failed)?;
        if length > CLAIM_BYTES_MAX {
            return unknown(format!("{length} bytes"));
        }
        bytes = store.get(CLAIM_KEY, Some(0..length)).await.map_err(failed)?;
    }
    match Claim::decode(&bytes) {
        Some(claim) => Ok(Some(claim)),
        None => unknown(String::from_utf8_lossy(&bytes).trim_end().to_owned()),
    }
}

/// Makes sure that the store holds the objects of this cluster and of no other, and that this is its journal.
///
/// # Errors
/// The store belongs to another cluster, lacks the objects of this one, or does not answer.
pub(crate) async fn claim(
    store: &dyn Store,
    cluster: &Cluster,
    journal: JournalId,
    snapshot: &Snapshot,
) -> Result<(), OpenError> {
    let ours = Claim::of(cluster, journal);
    if check(store, &ours).await? {
        return Ok(());
    }
    let unreadable = |error: DecodeError| OpenError::Metadata(error.to_string());
    let has_objects =
        snapshot.range::<Object>(ObjectId(0)..).next().transpose().map_err(unreadable)?.is_some();
    // A number is noted behind a claim: this journal, which is in no store, has claimed another one.
    let elsewhere = matches!(journal, JournalId::Postgres(_));
    let has_served = elsewhere && writer_number::known(snapshot).map_err(unreadable)? > WriterNumber(0);
    if has_objects || has_served {
        return Err(OpenError::OtherStore { url: store.url(CLAIM_KEY), cluster: cluster.id() });
    }
    match store.put_if_absent(CLAIM_KEY, vec![ours.encode()]).await {
        Ok(PutIfAbsent::Created) => Ok(()),
        // Another broker was faster, or an earlier try of this request succeeded and its answer was lost.
        Ok(PutIfAbsent::Exists) | Err(StoreError::Unknown(_)) => match check(store, &ours).await? {
            true => Ok(()),
            false => Err(OpenError::Store("nobody knows whether it was claimed, start again".into())),
        },
        Err(error) => Err(OpenError::Store(error.to_string())),
    }
}

/// Whether the store is ours; `false` if no cluster has claimed it.
async fn check(store: &dyn Store, ours: &Claim) -> Result<bool, OpenError> {
    let Some(found) = read_claim(store).await? else { return Ok(false) };
    if found == *ours {
        return Ok(true);
    }
    let (url, cluster) = (store.url(CLAIM_KEY), ours.cluster.clone());
    if found.cluster != cluster {
        return Err(OpenError::OtherCluster { url, found: found.cluster, cluster });
    }
    let words = |journal: JournalId| match journal.id() {
        None => journal.kind().to_owned(),
        Some(id) => format!("{} {id:032x}", journal.kind()),
    };
    Err(OpenError::OtherJournal { url, found: words(found.journal), ours: words(ours.journal) })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use floe_env::{Env, Timestamp};
    use floe_meta::{Envelope, MemoryJournal, Meta, Options};

    use super::*;
    use floe_store::MemoryStore;

    const LOCAL: JournalId = JournalId::Local;

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
        let claims = [
            (LOCAL, "floe cluster 1 AAAAAAAAAAcAAAAAAAAABw\n"),
            (
                JournalId::Bucket(0x0102),
                "floe cluster 2 AAAAAAAAAAcAAAAAAAAABw bucket 00000000000000000000000000000102\n",
            ),
            (
                JournalId::Postgres(u128::MAX),
                "floe cluster 2 AAAAAAAAAAcAAAAAAAAABw postgres ffffffffffffffffffffffffffffffff\n",
            ),
        ];
        for (journal, text) in claims {
            let claim = Claim::of(&cluster(7), journal);
            assert_eq!(claim.encode(), text);
            assert_eq!(Claim::decode(text.as_bytes()), Some(claim));
            assert!(text.len() as u64 <= CLAIM_BYTES_MAX);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_damaged_claim_and_one_of_a_newer_version_are_refused_and_left_alone() {
        let id = "AAAAAAAAAAcAAAAAAAAABw";
        let long = "x".repeat(CLAIM_BYTES_MAX as usize + 1);
        let hex = "00000000000000000000000000000102";
        for text in [
            "",
            "floe cluster 1 AAAA\n",
            &format!("floe cluster 1 {id}"),
            &format!("floe cluster 3 {id} bucket {hex}\n"),
            &format!("floe cluster 2 {id} moon {hex}\n"),
            &format!("floe cluster 2 {id} bucket 102\n"),
            &format!("floe cluster 2 {id} bucket {hex} more\n"),
            &long,
        ] {
            let store = MemoryStore::new();
            store.plant(CLAIM_KEY, Bytes::copy_from_slice(text.as_bytes()));
            let read = read_claim(&store).await;
            assert!(matches!(read, Err(OpenError::Claim { .. })), "{text:?}: {read:?}");
            let claimed = claim(&store, &cluster(7), LOCAL, &meta(0).await.snapshot()).await;
            assert!(matches!(claimed, Err(OpenError::Claim { .. })), "{text:?}: {claimed:?}");
            assert_eq!(store.get(CLAIM_KEY, None).await.unwrap(), text, "it was left alone");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_belongs_to_the_first_cluster_that_claims_it() {
        let (store, empty, used) = (MemoryStore::new(), meta(0).await, meta(1).await);
        claim(&store, &cluster(1), LOCAL, &empty.snapshot()).await.unwrap();
        claim(&store, &cluster(1), LOCAL, &empty.snapshot()).await.unwrap();
        claim(&store, &cluster(1), LOCAL, &used.snapshot()).await.unwrap();
        let other = claim(&store, &cluster(2), LOCAL, &empty.snapshot()).await.unwrap_err().to_string();
        assert!(other.contains(&cluster(1).id()) && other.contains(&cluster(2).id()), "{other}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cluster_has_one_journal() {
        let (store, empty) = (MemoryStore::new(), meta(0).await);
        let claim = async |number, journal| claim(&store, &cluster(number), journal, &empty.snapshot()).await;
        claim(1, JournalId::Bucket(5)).await.unwrap();
        claim(1, JournalId::Bucket(5)).await.unwrap();
        assert_eq!(read_claim(&store).await.unwrap().unwrap(), Claim::of(&cluster(1), JournalId::Bucket(5)));
        for journal in [LOCAL, JournalId::Bucket(6), JournalId::Postgres(5)] {
            let refused = claim(1, journal).await.unwrap_err();
            assert!(matches!(refused, OpenError::OtherJournal { .. }), "{refused}");
        }
        let refused = claim(2, JournalId::Bucket(5)).await.unwrap_err();
        assert!(matches!(refused, OpenError::OtherCluster { .. }), "{refused}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_journal_in_a_server_that_has_served_claims_no_second_store() {
        let (store, served) = (MemoryStore::new(), meta(0).await);
        let note = |tx: &mut floe_meta::Tx<'_>| {
            writer_number::note(tx, WriterNumber(1)).expect("it can be read");
            Ok::<_, std::convert::Infallible>(())
        };
        served.commit(Envelope::broker("test"), note).await.unwrap();
        let refused = claim(&store, &cluster(1), JournalId::Postgres(7), &served.snapshot()).await;
        assert!(matches!(refused, Err(OpenError::OtherStore { .. })), "{refused:?}");
        // This one is in the store: its first start was cut short, or somebody removed the claim.
        claim(&store, &cluster(1), JournalId::Bucket(7), &served.snapshot()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn metadata_with_objects_does_not_claim_a_store_without_them() {
        let (store, used) = (MemoryStore::new(), meta(1).await);
        let error = claim(&store, &cluster(1), LOCAL, &used.snapshot()).await.unwrap_err();
        assert!(matches!(error, OpenError::OtherStore { .. }), "{error}");
        assert!(
            matches!(store.get(CLAIM_KEY, None).await, Err(StoreError::NotFound(_))),
            "it was left alone"
        );
    }
}
