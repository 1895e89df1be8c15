//! One broker at a time serves with a shared journal: how a newer one takes the place of an older one.
//!
//! ```text
//! journal    … older  older  │ note: writer 7 │  newer  newer  newer …
//! older      commits ──────▶ ╎  conflict ──▶ sees the note ──▶ its fence is closed: nothing more is committed
//! newer      loads  ───────────▶ note ──▶ has everything that was acknowledged before
//! ```
//! A start notes its writer number in the journal (`begin.rs`). Whoever commits behind the note has lost a
//! race first, and has therefore been shown the note before its commands run again. This observer is called at that
//! moment, and closes the fence of the older broker. So no commit of an older writer follows the note of a newer one,
//! however long the older one slept, and whatever its requests to the store still do: an entry of the journal is made
//! once or not at all. What an older broker acknowledges is before the note, and the newer one has read it.
//!
//! A broker without work sees the note when it follows the journal, within seconds.

use std::sync::Arc;

use floe_meta::{Applied, DecodeError, Meta};

use crate::map::writer_number::{self, WriterNumber};

/// The newer writer that has taken the place of this process, once it is known.
pub(crate) type Fenced = Arc<floe_env::watch::Sender<Option<WriterNumber>>>;

/// Ends the commits of this process as soon as its map notes a newer writer.
///
/// # Errors
/// The record cannot be read.
pub(crate) fn watch(meta: &Meta, own: WriterNumber, fenced: &Fenced) -> Result<(), DecodeError> {
    let (fence, told) = (meta.fence(), fenced.clone());
    let close = move |newer: WriterNumber| {
        fence.close(format!(
            "writer {} has taken the place of this broker, which is writer {}: send it to the newer broker",
            newer.0, own.0
        ));
        told.send_modify(|known| *known = (*known).max(Some(newer)));
    };
    let closing = close.clone();
    let before = meta.observe(move |applied: &Applied<'_>| {
        if !applied.touches::<WriterNumber>() {
            return;
        }
        match writer_number::known(applied.snapshot) {
            Ok(known) if known > own => closing(known),
            Ok(_) => {}
            // Nobody can say any more whose journal it is.
            Err(error) => {
                tracing::error!(%error, "the writer numbers cannot be read: this broker takes no more records");
                closing(WriterNumber(own.0 + 1));
            }
        }
    });
    let known = writer_number::known(&before)?;
    if known > own {
        close(known);
    }
    Ok(())
}
