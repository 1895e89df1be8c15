//! The work beside commits, done by every broker: images, the floor, and deletions. Two that do the same at once
//! waste a few requests and spoil nothing.
//!
//! What may go, and when:
//! 1. An entry, if the two newest images that this broker has read back have it, and its commits are kept elsewhere
//!    ([`crate::Journal::forget`]). So the floor is at most the entry after the older image.
//! 2. The floor is durable first. A floor is an object of its own, and its name says all, so floors that come late
//!    cannot take one back that is higher.
//! 3. What has been below a floor for the grace, by the monotonic clock of the one who deletes, is deleted, unless it
//!    has attachments that are needed. Nobody deletes what he has not read: he would not know of the attachments.
//! 4. An image, if there are two newer ones that this broker has read back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use floe_env::lock;
use floe_store::StoreError;
use tokio::time::Instant;

use super::images::Unread;
use super::names::{Floor, ImageName, entry_of, image_of_part};
use super::planted::{Planted, planted};
use super::read::{failed, jitter};
use super::state::Core;
use crate::journal::{JournalError, Lsn};
use crate::limits::{BUCKET_LIST_KEYS, BUCKET_SWEEP_KEYS};

/// What a keeper remembers between its rounds.
pub(super) struct Keeper {
    core: Arc<Core>,
    /// Images that were read back and are whole, with their last commits.
    read: BTreeMap<ImageName, Lsn>,
    /// When this broker last wrote an image, or saw one.
    rested: Option<Instant>,
    /// The commits that were kept elsewhere when the floor was looked at last.
    looked: Lsn,
    /// Everything below this number was swept.
    swept: u64,
    /// The key behind which the sweep goes on that is under way; empty if none is.
    sweep_after: String,
    /// Parts without an image, with the moment at which they were seen first.
    strays: BTreeMap<ImageName, Instant>,
    /// Whether old images and floors may lie around.
    tidy: bool,
}

impl Keeper {
    pub(super) fn new(core: Arc<Core>) -> Keeper {
        Keeper {
            core,
            read: BTreeMap::new(),
            rested: None,
            looked: Lsn(0),
            swept: 0,
            sweep_after: String::new(),
            strays: BTreeMap::new(),
            tidy: true,
        }
    }

    /// Works until it is dropped.
    pub(super) async fn run(mut self) {
        loop {
            let core = Arc::clone(&self.core);
            tokio::select! {
                biased;
                () = core.nudge.notified() => {}
                () = tokio::time::sleep(core.options.keeper_look) => {}
            }
            if let Err(error) = self.round().await {
                metrics::counter!("floe_meta_bucket_keeper_failures_total").increment(1);
                tracing::warn!(%error, "the work beside the journal failed, trying again later");
                tokio::time::sleep(core.options.keeper_look).await;
            }
        }
    }

    async fn round(&mut self) -> Result<(), Unread> {
        if lock(&self.core.state).tail.is_none() {
            return Ok(());
        }
        if self.image_is_due() {
            let wait = jitter(self.core.env.random_u64(), self.core.options.image_jitter);
            tokio::time::sleep(wait).await;
            self.next_image().await?;
        }
        self.raise_floor().await?;
        self.sweep().await?;
        self.delete_dead().await?;
        if self.tidy {
            self.tidy_up().await?;
            self.tidy = false;
        }
        Ok(())
    }

    fn image_is_due(&self) -> bool {
        let core = &self.core;
        let state = lock(&core.state);
        let behind = state.tail.map_or(0, |tail| tail.position.number).saturating_sub(state.image);
        let rests = self.rested.is_some_and(|rested| {
            core.env.monotonic().duration_since(rested) < core.options.image_pause
                && behind < core.options.image_entries.saturating_mul(4)
        });
        core.image_is_due(&state) && !rests
    }

    /// Writes the next image, unless another broker did while this one waited.
    async fn next_image(&mut self) -> Result<(), Unread> {
        let images = self.list().await?;
        self.rested = Some(self.core.env.monotonic());
        if self.image_is_due_after(&images)
            && let Some(written) = self.core.write_image(&images).await?
            && self.verify(written).await?.is_some()
        {
            lock(&self.core.state).note_image(written.number);
        }
        self.tidy = true;
        Ok(())
    }

    fn image_is_due_after(&self, images: &[ImageName]) -> bool {
        let mut state = lock(&self.core.state);
        if let Some(newest) = images.first() {
            // Whether it is whole shows when somebody needs it: the next image is made of one that is.
            state.note_image(newest.number);
        }
        self.core.image_is_due(&state)
    }

    /// All images, the newest first.
    async fn list(&mut self) -> Result<Vec<ImageName>, Unread> {
        let images = self.core.list_images().await.map_err(Unread::Failed)?;
        self.read.retain(|image, _| images.contains(image));
        Ok(images)
    }

    /// Reads an image back. Its last commit, if it is whole.
    async fn verify(&mut self, image: ImageName) -> Result<Option<Lsn>, Unread> {
        if let Some(known) = self.read.get(&image) {
            return Ok(Some(*known));
        }
        match self.core.verify_image(image).await {
            Ok(manifest) => {
                self.read.insert(image, manifest.position.last);
                Ok(Some(manifest.position.last))
            }
            Err(Unread::Unsound(error)) => {
                let key = self.core.names.image(image);
                tracing::warn!(key, %error, "an image of the metadata is not whole and does not count");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The two newest images that were read back, the newest first.
    async fn two_images(&mut self) -> Result<Option<[(ImageName, Lsn); 2]>, Unread> {
        let known = self.core.tail().position.number;
        let mut whole = Vec::new();
        for image in self.list().await? {
            // What is ahead of this broker is not his to judge.
            if image.number > known {
                continue;
            }
            let last = match planted(Planted::ImageUnread) {
                true => self.core.read_manifest(image).await.ok().map(|manifest| manifest.position.last),
                false => self.verify(image).await?,
            };
            whole.extend(last.map(|last| (image, last)));
            if let [newest, older] = whole[..] {
                return Ok(Some([newest, older]));
            }
            if planted(Planted::OneImage) && !whole.is_empty() {
                return Ok(Some([whole[0], whole[0]]));
            }
        }
        Ok(None)
    }

    /// Raises the floor, if enough entries may go.
    async fn raise_floor(&mut self) -> Result<(), Unread> {
        let core = Arc::clone(&self.core);
        let told = Lsn(core.forget.load(Ordering::SeqCst));
        let told = if planted(Planted::ForgetsMore) { Lsn(u64::MAX >> 1) } else { told };
        let (floor, tail) = {
            let state = lock(&core.state);
            (state.floor, state.tail.expect("the journal was loaded").position)
        };
        let told = told.min(tail.last);
        // An entry has at least one commit.
        let enough = floor.first.0.saturating_add(core.options.forget_entries);
        if (told <= self.looked && !self.tidy) || told.next().0 < enough || tail.number <= floor.number {
            return Ok(());
        }
        let two = self.two_images().await?;
        self.looked = told;
        let Some([_, (older, last)]) = two else { return Ok(()) };
        // The last entry stays.
        let (number, first) = match last <= told && older.number < tail.number {
            true => (older.number + 1, last.next()),
            false => {
                let kept = told.next().min(tail.last);
                self.entry_with(kept, floor, tail.number).await.map_err(Unread::Failed)?
            }
        };
        assert!(number <= older.number + 1, "both images have what goes");
        if number < floor.number + core.options.forget_entries {
            return Ok(());
        }
        let raised = Floor { number, first };
        if !planted(Planted::NoFloor) {
            let key = core.names.floor(raised);
            let put = core.store.put_if_absent(&key, vec![raised.encode(core.journal).into()]).await;
            // One that exists is the same one.
            put.map_err(|error| Unread::Failed(failed("write", &key, &error)))?;
        }
        core.note_floors(&[raised]);
        self.tidy = true;
        Ok(())
    }

    /// The number and the first commit of the entry that has a commit.
    async fn entry_with(&self, lsn: Lsn, floor: Floor, tail: u64) -> Result<(u64, Lsn), JournalError> {
        let recent = {
            let state = lock(&self.core.state);
            let found = state.recent.iter().rfind(|group| group.head.first <= lsn);
            found.map(|group| (group.head.number, group.head.first))
        };
        if let Some(found) = recent {
            return Ok(found);
        }
        let number = self.core.search(floor.number, tail + 1, lsn).await?;
        match self.core.fetch(number).await? {
            Some(group) => Ok((number, group.head.first)),
            None => self.core.missing(number).await,
        }
    }

    /// The highest floor whose grace is over.
    fn deletable(&self) -> u64 {
        let core = &self.core;
        let now = core.env.monotonic();
        let mut state = lock(&core.state);
        let grace = if planted(Planted::NoGrace) { Duration::ZERO } else { core.options.grace };
        let over = state.floors.iter().rposition(|(_, seen)| now.duration_since(*seen) >= grace);
        let number = over.map_or(0, |at| {
            state.floors.drain(..at);
            state.floors[0].0.number
        });
        match planted(Planted::SweepsAhead) {
            true => number,
            false => number.min(state.tail.map_or(0, |tail| tail.position.number)),
        }
    }

    /// Deletes the entries below the floor that nothing needs. Also those that a broker made which slept: they are no
    /// part of the journal, and nobody knows of attachments of them.
    async fn sweep(&mut self) -> Result<(), Unread> {
        let below = self.deletable();
        if below <= self.swept {
            return Ok(());
        }
        let folder = self.core.names.entries();
        for _ in 0..BUCKET_SWEEP_KEYS.div_ceil(BUCKET_LIST_KEYS) {
            let listed = self.core.store.list(&folder, &self.sweep_after, BUCKET_LIST_KEYS).await;
            let listed = listed.map_err(|error| Unread::Failed(failed("list", &folder, &error)))?;
            let due =
                listed.iter().filter_map(|listed| entry_of(&listed.key)).filter(|number| *number < below);
            for number in due {
                if !lock(&self.core.state).live.contains_key(&number) || planted(Planted::ForgetsAttachments)
                {
                    self.delete_entry(number).await?;
                }
            }
            let past = listed.last().and_then(|last| entry_of(&last.key)).is_none_or(|last| last >= below);
            match listed.last() {
                Some(last) if listed.len() == BUCKET_LIST_KEYS && !past => {
                    self.sweep_after = last.key.clone();
                }
                _ => {
                    self.sweep_after.clear();
                    self.swept = below;
                    break;
                }
            }
        }
        Ok(())
    }

    /// Deletes the entries whose last attachment was released after the sweep.
    async fn delete_dead(&mut self) -> Result<(), Unread> {
        let dead = std::mem::take(&mut lock(&self.core.state).dead);
        let mut due = dead.into_iter().filter(|number| *number < self.swept);
        while let Some(number) = due.next() {
            if let Err(error) = self.delete_entry(number).await {
                lock(&self.core.state).dead.extend(due.chain([number]));
                return Err(error);
            }
        }
        Ok(())
    }

    async fn delete_entry(&self, number: u64) -> Result<(), Unread> {
        let key = self.core.names.entry(number);
        self.delete(&key).await?;
        metrics::counter!("floe_meta_bucket_deleted_entries_total").increment(1);
        Ok(())
    }

    async fn delete(&self, key: &str) -> Result<(), Unread> {
        match self.core.store.delete(key).await {
            Ok(()) | Err(StoreError::NotFound(_)) => Ok(()),
            Err(error) => Err(Unread::Failed(failed("delete", key, &error))),
        }
    }

    /// Deletes images and floors that newer ones replace, and parts that belong to no image.
    async fn tidy_up(&mut self) -> Result<(), Unread> {
        if let Some([_, (older, _)]) = self.two_images().await? {
            for image in self.list().await?.into_iter().filter(|image| image.number < older.number) {
                self.delete(&self.core.names.image(image)).await?;
            }
        }
        let floors = self.core.floors_above(0).await.map_err(Unread::Failed)?;
        for floor in floors.iter().rev().skip(1) {
            self.delete(&self.core.names.floor(*floor)).await?;
        }
        self.tidy_parts().await
    }

    async fn tidy_parts(&mut self) -> Result<(), Unread> {
        let now = self.core.env.monotonic();
        let folder = self.core.names.parts();
        let (mut after, mut found) = (String::new(), BTreeMap::<ImageName, Vec<String>>::new());
        loop {
            let listed = self.core.store.list(&folder, &after, BUCKET_LIST_KEYS).await;
            let listed = listed.map_err(|error| Unread::Failed(failed("list", &folder, &error)))?;
            for listed in &listed {
                if let Some(image) = image_of_part(&listed.key) {
                    found.entry(image).or_default().push(listed.key.clone());
                }
            }
            match listed.last() {
                Some(last) if listed.len() == BUCKET_LIST_KEYS => after = last.key.clone(),
                _ => break,
            }
        }
        // Listed behind the parts, so that an image that was ended meanwhile has its parts.
        for image in self.list().await? {
            found.remove(&image);
        }
        self.strays.retain(|image, _| found.contains_key(image));
        for (image, keys) in found {
            let seen = *self.strays.entry(image).or_insert(now);
            if now.duration_since(seen) >= self.core.options.grace {
                for key in keys {
                    self.delete(&key).await?;
                }
            }
        }
        Ok(())
    }
}
