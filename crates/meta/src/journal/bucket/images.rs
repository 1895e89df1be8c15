//! Reading images.

use bytes::Bytes;
use floe_store::StoreError;
use futures::StreamExt;

use super::group::Attached;
use super::image::{Held, Manifest, Part, PartKind, decode_part};
use super::names::{ImageName, image_of};
use super::read::failed;
use super::sealed::{Unsound, damaged};
use super::state::Core;
use crate::journal::{JournalError, Lsn};
use crate::limits::{BUCKET_LIST_KEYS, BUCKET_MANIFEST_BYTES_MAX, BUCKET_READS_MAX};

/// Why an image was not read.
pub(super) enum Unread {
    /// It is not whole. It never will be.
    Unsound(Unsound),
    /// The store did not answer.
    Failed(JournalError),
}

/// What an image holds.
pub(super) struct Image {
    pub(super) manifest: Manifest,
    /// Empty if they were not asked for.
    pub(super) pairs: Vec<(Bytes, Bytes)>,
    pub(super) attached: Vec<(Lsn, Attached)>,
}

impl Core {
    /// The names of all images, the newest first.
    pub(super) async fn list_images(&self) -> Result<Vec<ImageName>, JournalError> {
        let mut images = Vec::new();
        let mut after = String::new();
        loop {
            let listed = self.store.list(&self.names.images(), &after, BUCKET_LIST_KEYS).await;
            let listed = listed.map_err(|error| failed("list", &self.names.images(), &error))?;
            images.extend(listed.iter().filter_map(|listed| image_of(&listed.key)));
            match listed.last() {
                Some(last) if listed.len() == BUCKET_LIST_KEYS => after = last.key.clone(),
                _ => break,
            }
        }
        images.reverse();
        Ok(images)
    }

    pub(super) async fn read_manifest(&self, image: ImageName) -> Result<Manifest, Unread> {
        let key = self.names.image(image);
        let size = self.store.size(&key).await.map_err(|error| unread(&key, error))?;
        if size > BUCKET_MANIFEST_BYTES_MAX {
            return Err(Unread::Unsound(damaged("it is too long")));
        }
        let bytes = self.store.get(&key, Some(0..size)).await.map_err(|error| unread(&key, error))?;
        let manifest = Manifest::decode(self.journal, &bytes).map_err(Unread::Unsound)?;
        match manifest.position.number == image.number {
            true => Ok(manifest),
            false => Err(Unread::Unsound(damaged("it is another image"))),
        }
    }

    pub(super) async fn read_part(&self, image: ImageName, index: u32, part: Part) -> Result<Held, Unread> {
        let key = self.names.part(image, index);
        let body = self.store.get(&key, Some(0..part.bytes)).await.map_err(|error| unread(&key, error))?;
        decode_part(image, index, &part, &body).map_err(Unread::Unsound)
    }

    /// Reads an image, with or without the map.
    pub(super) async fn read_image(&self, image: ImageName, with_pairs: bool) -> Result<Image, Unread> {
        let manifest = self.read_manifest(image).await?;
        let wanted: Vec<(u32, Part)> = (0..)
            .zip(manifest.parts.iter().copied())
            .filter(|(_, part)| with_pairs || part.kind == PartKind::Attachments)
            .collect();
        let reads = wanted.into_iter().map(|(index, part)| self.read_part(image, index, part));
        let mut parts = futures::stream::iter(reads).buffered(BUCKET_READS_MAX);
        let mut found = Image { manifest: manifest.clone(), pairs: Vec::new(), attached: Vec::new() };
        while let Some(part) = parts.next().await {
            match part? {
                Held::Pairs(pairs) => {
                    let edge = found.pairs.last().zip(pairs.first());
                    if edge.is_some_and(|((last, _), (first, _))| last >= first) {
                        return Err(Unread::Unsound(damaged("its parts are out of order")));
                    }
                    found.pairs.extend(pairs);
                }
                Held::Attachments(attached) => found.attached.extend(attached),
            }
        }
        Ok(found)
    }

    /// Reads all of an image, a part at a time, and keeps nothing.
    pub(super) async fn verify_image(&self, image: ImageName) -> Result<Manifest, Unread> {
        let manifest = self.read_manifest(image).await?;
        let mut last: Option<Bytes> = None;
        for (index, part) in (0..).zip(&manifest.parts) {
            if let Held::Pairs(pairs) = self.read_part(image, index, *part).await? {
                let edge = last.as_ref().zip(pairs.first());
                if edge.is_some_and(|(last, (first, _))| last >= first) {
                    return Err(Unread::Unsound(damaged("its parts are out of order")));
                }
                last = pairs.last().map(|(key, _)| key.clone());
            }
        }
        Ok(manifest)
    }
}

fn unread(key: &str, error: StoreError) -> Unread {
    match error {
        StoreError::NotFound(key) => Unread::Unsound(damaged(format!("{key} is missing"))),
        StoreError::Corrupt(reason) => Unread::Unsound(damaged(reason)),
        error => Unread::Failed(failed("read", key, &error)),
    }
}

impl std::fmt::Display for Unread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unread::Unsound(error) => error.fmt(f),
            Unread::Failed(error) => error.fmt(f),
        }
    }
}
