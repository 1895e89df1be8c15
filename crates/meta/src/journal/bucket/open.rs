//! Opening and loading: the first object, the newest sound image, and the entries behind it.

use std::sync::Arc;

use bytes::Bytes;
use floe_env::{Env, lock};
use floe_store::{PutIfAbsent, Store, StoreError};

use super::error::BucketOpenError;
use super::group::{Attached, Group};
use super::image::{Manifest, Position};
use super::images::{Image, Unread};
use super::names::{Floor, Names, decode_identity, encode_identity};
use super::planted::{Planted, planted};
use super::read::failed;
use super::sealed::damaged;
use super::state::{BucketOptions, Core, Moment, follows, position_of};
use crate::journal::{JournalError, Loaded, Lsn};
use crate::limits::{BUCKET_LOAD_TRIES, BUCKET_READS_MAX};

/// What opening a journal in a bucket found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BucketFound {
    /// There was none, and one was made.
    Made,
    /// It was there.
    There,
}

/// The id of the journal in a store; none if it has none in this folder.
///
/// # Errors
/// See [`BucketOpenError`].
pub async fn has_bucket_journal(
    store: &Arc<dyn Store>,
    folder: &str,
) -> Result<Option<u128>, BucketOpenError> {
    let names = Names::below(folder).ok_or_else(|| BucketOpenError::Folder(folder.to_owned()))?;
    read_identity(store, &names).await
}

/// Finds the journal of a store, or makes it.
pub(super) async fn find(
    env: &Env,
    store: &Arc<dyn Store>,
    options: &BucketOptions,
) -> Result<(Names, u128, BucketFound), BucketOpenError> {
    let names =
        Names::below(&options.folder).ok_or_else(|| BucketOpenError::Folder(options.folder.clone()))?;
    let url = || store.url(&names.identity());
    let (journal, found) = match read_identity(store, &names).await? {
        Some(journal) => (journal, BucketFound::There),
        None => {
            refuse_remains(store, &names).await?;
            // A cluster that has a journal does not get another one.
            if !options.create || options.expected.is_some() {
                return Err(BucketOpenError::None { url: store.url(&options.folder) });
            }
            make(env, store, &names).await?
        }
    };
    match options.expected {
        Some(expected) if expected != journal => {
            Err(BucketOpenError::Other { url: url(), found: journal, expected })
        }
        _ => Ok((names, journal, found)),
    }
}

async fn read_identity(store: &Arc<dyn Store>, names: &Names) -> Result<Option<u128>, BucketOpenError> {
    let key = names.identity();
    let unsound = |reason: String| BucketOpenError::Unsound { url: store.url(&key), reason };
    let bytes = match store.get(&key, None).await {
        Ok(bytes) => bytes,
        Err(StoreError::NotFound(_)) => return Ok(None),
        Err(StoreError::Corrupt(reason)) => return Err(unsound(reason)),
        Err(error) => return Err(error.into()),
    };
    decode_identity(&bytes).map(Some).map_err(|error| unsound(error.to_string()))
}

/// Refuses a folder whose first object is gone.
async fn refuse_remains(store: &Arc<dyn Store>, names: &Names) -> Result<(), BucketOpenError> {
    for folder in [names.entries(), names.images(), names.floors()] {
        if let Some(other) = store.list(&folder, "", 1).await?.first() {
            // Another broker may have made the journal just now.
            return match read_identity(store, names).await? {
                Some(_) => Ok(()),
                None => Err(BucketOpenError::LostId {
                    url: store.url(&names.identity()),
                    other: store.url(&other.key),
                }),
            };
        }
    }
    Ok(())
}

async fn make(
    env: &Env,
    store: &Arc<dyn Store>,
    names: &Names,
) -> Result<(u128, BucketFound), BucketOpenError> {
    let key = names.identity();
    let put = |journal: u128| {
        let bytes = Bytes::from(encode_identity(journal, env.now().0));
        store.put_if_absent(&key, vec![bytes])
    };
    let journal = env.random_u128().max(1);
    let made = put(journal).await;
    // A store that made the object twice overwrites entries as well.
    if matches!(made, Ok(PutIfAbsent::Created))
        && put(env.random_u128().max(1)).await? == PutIfAbsent::Created
    {
        return Err(BucketOpenError::Unconditional { url: store.url(&key) });
    }
    // Whoever made it, and whatever the answer was: the object decides.
    match (read_identity(store, names).await?, made) {
        (Some(found), _) if found == journal => Ok((journal, BucketFound::Made)),
        (Some(found), _) => Ok((found, BucketFound::There)),
        (None, Err(error)) => Err(error.into()),
        (None, Ok(_)) => Err(BucketOpenError::Unsound {
            url: store.url(&key),
            reason: "it was made, and cannot be found".to_owned(),
        }),
    }
}

impl Core {
    /// Makes sure that the journal was loaded.
    pub(super) async fn ready(&self) -> Result<(), JournalError> {
        if lock(&self.state).tail.is_some() {
            return Ok(());
        }
        self.load(false).await.map(drop)
    }

    /// Loads the journal. Without the map, it only learns where the journal ends, and which attachments there are.
    pub(super) async fn load(&self, with_pairs: bool) -> Result<Loaded, JournalError> {
        let _turn = self.reading.lock().await;
        for _ in 0..BUCKET_LOAD_TRIES {
            if let Some(loaded) = self.load_once(with_pairs).await? {
                return Ok(loaded);
            }
        }
        Err(JournalError::NotApplied(
            "others let go of the journal's entries faster than they can be read".to_owned(),
        ))
    }

    /// None if others have let go of what it was reading.
    async fn load_once(&self, with_pairs: bool) -> Result<Option<Loaded>, JournalError> {
        let (image, unsound) = self.newest_image(with_pairs).await?;
        let start = image.manifest.position;
        let (groups, end) = self.groups_after(start).await?;
        let confirmed = Moment::now(&self.env);
        let floor = self.floors_above(0).await?.last().copied().unwrap_or(Floor::LOWEST);
        if floor.number > start.number + 1 {
            // Whatever it was that it read, others have let go of it, unless the newest images are damaged.
            return self.refuse_without_images(floor, unsound).await.map(|()| None);
        }
        end?;
        let entries = groups.iter().flat_map(|group| group.entries.iter().cloned()).collect();
        let Image { pairs, attached, .. } = image;
        self.install(start, attached, &groups, confirmed);
        Ok(Some(Loaded { image: pairs, image_lsn: start.last, entries }))
    }

    /// Refuses a journal without a whole image from which its entries go on. Two are there at any time.
    async fn refuse_without_images(&self, floor: Floor, unsound: Option<String>) -> Result<(), JournalError> {
        let images = self.list_images().await?;
        for name in images.iter().filter(|name| name.number + 1 >= floor.number) {
            match self.verify_image(*name).await {
                Ok(_) => return Ok(()),
                Err(Unread::Failed(error)) => return Err(error),
                Err(Unread::Unsound(_)) => {}
            }
        }
        // They may also have gone while they were read, because there are newer ones.
        if !planted(Planted::ImagesListedOnce) && images != self.list_images().await? {
            return Ok(());
        }
        let reason = unsound.unwrap_or_else(|| "there is none".to_owned());
        Err(JournalError::NotApplied(format!(
            "no image from which the kept entries go on can be read ({reason}): put {} back from a version or a copy \
             of the bucket",
            self.names.images()
        )))
    }

    fn install(&self, start: Position, attached: Vec<(Lsn, Attached)>, groups: &[Arc<Group>], at: Moment) {
        lock(&self.state).install(start, attached, groups, at);
        self.publish();
        self.nudge.notify_one();
    }

    /// The newest image that is whole, and why a newer one is not. No image is the empty map.
    async fn newest_image(&self, with_pairs: bool) -> Result<(Image, Option<String>), JournalError> {
        let mut unsound = None;
        for name in self.list_images().await? {
            match self.read_image(name, with_pairs).await {
                Ok(image) => return Ok((image, unsound)),
                Err(Unread::Failed(error)) => return Err(error),
                Err(Unread::Unsound(error)) => {
                    let key = self.names.image(name);
                    tracing::warn!(key, %error, "an image of the metadata cannot be used, taking an older one");
                    unsound.get_or_insert(format!("{key}: {error}"));
                }
            }
        }
        let manifest = Manifest { position: Position::default(), parts: Vec::new() };
        Ok((Image { manifest, pairs: Vec::new(), attached: Vec::new() }, unsound))
    }

    /// All entries after a position, and why they end, if not because there are no more.
    async fn groups_after(
        &self,
        start: Position,
    ) -> Result<(Vec<Arc<Group>>, Result<(), JournalError>), JournalError> {
        let (mut groups, mut position) = (Vec::new(), start);
        loop {
            let next = position.number + 1;
            let (found, ended) = self.fetch_some(next..next + BUCKET_READS_MAX as u64).await;
            for group in found {
                if let Err(error) = follows(&position, &group) {
                    return Ok((groups, self.refuse(group.head.number, &error)));
                }
                position = position_of(&group);
                groups.push(Arc::new(group));
            }
            match ended {
                Ok(false) => {}
                Ok(true) => return Ok((groups, self.gap_after(position.number).await)),
                Err(error) => return Ok((groups, Err(error))),
            }
        }
    }

    /// Refuses a journal in which an entry is missing. A broker that goes on there would make it anew.
    async fn gap_after(&self, number: u64) -> Result<(), JournalError> {
        let after = self.names.entry(number + 1);
        let listed = self.store.list(&self.names.entries(), &after, 1).await;
        let listed = listed.map_err(|error| failed("list", &self.names.entries(), &error))?;
        if listed.is_empty() || self.fetch(number + 1).await?.is_some() {
            return Ok(());
        }
        self.refuse(number + 1, &damaged("it is missing, and entries behind it are there"))
    }
}
