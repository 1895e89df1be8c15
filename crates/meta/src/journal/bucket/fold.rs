//! Writing the next image: the one before with what has changed, a part at a time.

use std::collections::BTreeMap;
use std::iter::Peekable;

use bytes::Bytes;
use floe_env::lock;

use super::group::{Attached, Group};
use super::image::{Held, Manifest, PartKind, PartsWriter, Position};
use super::images::Unread;
use super::names::ImageName;
use super::read::failed;
use super::sealed::{Unsound, damaged};
use super::state::{Core, follows, position_of};
use crate::journal::{JournalError, Lsn};
use crate::limits::{BUCKET_FOLD_BYTES, BUCKET_READS_MAX};

type Changed = BTreeMap<Bytes, Option<Bytes>>;

/// An image while it is being written.
struct ImageSink<'a> {
    core: &'a Core,
    name: ImageName,
    writer: PartsWriter,
}

impl ImageSink<'_> {
    async fn put_part(&mut self) -> Result<(), Unread> {
        let Some((index, body)) = self.writer.take().map_err(Unread::Unsound)? else { return Ok(()) };
        let key = self.core.names.part(self.name, index);
        let put = self.core.store.put(&key, vec![body]).await;
        put.map_err(|error| Unread::Failed(failed("write", &key, &error)))
    }

    async fn pair(&mut self, key: &Bytes, value: Option<&Bytes>) -> Result<(), Unread> {
        if let Some(value) = value {
            self.writer.pair(key, value);
            if self.writer.is_full() {
                self.put_part().await?;
            }
        }
        Ok(())
    }

    async fn attachment(&mut self, lsn: Lsn, attached: &Attached) -> Result<(), Unread> {
        self.writer.attachment(lsn, attached);
        match self.writer.is_full() {
            true => self.put_part().await,
            false => Ok(()),
        }
    }
}

impl Core {
    /// Writes the image after the newest one of `images` (the newest first) that can be read. None if nothing is new.
    /// It does not count before somebody has read it back.
    pub(super) async fn write_image(&self, images: &[ImageName]) -> Result<Option<ImageName>, Unread> {
        let known = self.tail().position.number;
        let mut unsound = None;
        for base in images.iter().filter(|image| image.number <= known) {
            match self.write_after(Some(*base)).await {
                Err(Unread::Unsound(error)) => {
                    let key = self.names.image(*base);
                    tracing::warn!(key, %error, "an image of the metadata cannot be used, taking an older one");
                    unsound = Some(error);
                }
                written => return written,
            }
        }
        match unsound {
            // The entries from the first one on may be there, and may not.
            Some(error) if lock(&self.state).floor.number > 1 => Err(Unread::Unsound(error)),
            _ => self.write_after(None).await,
        }
    }

    async fn write_after(&self, base: Option<ImageName>) -> Result<Option<ImageName>, Unread> {
        let before = match base {
            Some(base) => self.read_manifest(base).await?,
            None => Manifest { position: Position::default(), parts: Vec::new() },
        };
        let (changed, position) = self.changed_after(before.position).await.map_err(Unread::Failed)?;
        if position.number == before.position.number {
            return Ok(None);
        }
        let name = ImageName { number: position.number, serial: self.env.random_u64() };
        let mut sink = ImageSink { core: self, name, writer: PartsWriter::new(name) };
        let mut changed = changed.into_iter().peekable();
        if let Some(base) = base {
            merge(&mut sink, base, &before, &mut changed).await?;
        }
        for (key, value) in changed {
            sink.pair(&key, value.as_ref()).await?;
        }
        sink.put_part().await?;
        self.put_attachments(&mut sink, position.last).await?;
        sink.put_part().await?;
        let manifest = Manifest { position, parts: sink.writer.parts };
        let key = self.names.image(name);
        let put = self.store.put(&key, vec![manifest.encode(self.journal).into()]).await;
        put.map_err(|error| Unread::Failed(failed("write", &key, &error)))?;
        metrics::counter!("floe_meta_bucket_images_total").increment(1);
        Ok(Some(name))
    }

    /// The attachments up to a commit that nobody has released, in slices: others wait for the lock.
    async fn put_attachments(&self, sink: &mut ImageSink<'_>, upto: Lsn) -> Result<(), Unread> {
        const SLICE: usize = 4_096;
        let mut after = Lsn(0);
        while after < upto {
            let some: Vec<(Lsn, Attached)> = {
                let state = lock(&self.state);
                let found = state.attached.range(after.next()..=upto).take(SLICE);
                found.map(|(lsn, attached)| (*lsn, attached.clone())).collect()
            };
            for (lsn, attached) in &some {
                sink.attachment(*lsn, attached).await?;
            }
            match some.last() {
                Some((last, _)) => after = *last,
                None => break,
            }
        }
        Ok(())
    }

    /// What the entries after a position change, and the last of them. So many as an image takes over at once.
    async fn changed_after(&self, start: Position) -> Result<(Changed, Position), JournalError> {
        let (mut changed, mut position, mut bytes) = (Changed::new(), start, 0);
        let upto = self.tail().position.number;
        let mut cold = false;
        while position.number < upto && bytes < BUCKET_FOLD_BYTES {
            let next = position.number + 1;
            let recent: Option<Vec<_>> = lock(&self.state)
                .recent_from(next)
                .map(|groups| groups.take(BUCKET_READS_MAX).cloned().collect());
            match recent {
                Some(groups) => {
                    for group in &groups {
                        self.fold(group, &mut changed, &mut position)?;
                        bytes += group.weight() as u64;
                    }
                }
                None => {
                    cold = true;
                    let end = (next + BUCKET_READS_MAX as u64).min(upto + 1);
                    let (groups, ended) = self.fetch_some(next..end).await;
                    for group in &groups {
                        self.fold(group, &mut changed, &mut position)?;
                        bytes += group.weight() as u64;
                    }
                    if ended? {
                        return self.missing(position.number + 1).await;
                    }
                }
            }
        }
        if cold {
            self.confirm(start.number + 1).await?;
        }
        Ok((changed, position))
    }

    fn fold(
        &self,
        group: &Group,
        changed: &mut Changed,
        position: &mut Position,
    ) -> Result<(), JournalError> {
        follows(position, group).or_else(|error| self.refuse(group.head.number, &error))?;
        for change in group.entries.iter().flat_map(|entry| &entry.changes) {
            changed.insert(change.key.clone(), change.value.clone());
        }
        *position = position_of(group);
        Ok(())
    }
}

/// Copies the pairs of an image, with what has changed.
async fn merge(
    sink: &mut ImageSink<'_>,
    base: ImageName,
    before: &Manifest,
    changed: &mut Peekable<impl Iterator<Item = (Bytes, Option<Bytes>)>>,
) -> Result<(), Unread> {
    let core = sink.core;
    let mut last: Option<Bytes> = None;
    for (index, part) in (0..).zip(&before.parts).filter(|(_, part)| part.kind == PartKind::Pairs) {
        let Held::Pairs(pairs) = core.read_part(base, index, *part).await? else { continue };
        if last.as_ref().zip(pairs.first()).is_some_and(|(last, (first, _))| last >= first) {
            return Err(Unread::Unsound(out_of_order()));
        }
        last = pairs.last().map(|(key, _)| key.clone());
        for (key, value) in pairs {
            while let Some((new, value)) = changed.next_if(|(new, _)| *new < key) {
                sink.pair(&new, value.as_ref()).await?;
            }
            match changed.next_if(|(new, _)| *new == key) {
                Some((_, value)) => sink.pair(&key, value.as_ref()).await?,
                None => sink.pair(&key, Some(&value)).await?,
            }
        }
    }
    Ok(())
}

fn out_of_order() -> Unsound {
    damaged("its parts are out of order")
}
