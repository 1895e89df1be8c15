//! Why a ring cannot be opened.

use super::file::IMAGES;
use crate::journal::Lsn;

/// Why the files of a ring cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum RingOpenError {
    /// Another process has the files open.
    #[error("the metadata in {path} is in use by another process ({holder}): stop it first")]
    InUse {
        /// The journal's directory.
        path: String,
        /// What the other process wrote about itself.
        holder: String,
    },
    /// A newer version of Floe wrote a file.
    #[error("{file} has format {found}, which a newer floe wrote: use that one")]
    NewerFormat {
        /// The file.
        file: String,
        /// The format that was found.
        found: u16,
    },
    /// Later commits prove that commits are damaged which were acknowledged.
    #[error(
        "{file} is damaged at byte {offset}: commit {due} is due there, and {witness} proves that it was acknowledged. \
         Restore the file from a backup; nothing was changed"
    )]
    Damaged {
        /// The file in which the commit is due.
        file: String,
        /// The first byte of the damaged frame.
        offset: u64,
        /// The commit that is due.
        due: Lsn,
        /// The file and the place of what proves it.
        witness: String,
    },
    /// A file's own header is damaged.
    #[error("{file} is damaged: its header does not match its checksum. Restore the file from a backup")]
    DamagedHeader {
        /// The file.
        file: String,
    },
    /// No image can be read.
    #[error(
        "no image of the metadata can be read ({reason}): restore the newest file of {directory} from a backup"
    )]
    NoImage {
        /// The directory of the images.
        directory: String,
        /// What is wrong with each.
        reason: String,
    },
    /// The ring does not have the commits that its image has.
    #[error(
        "the ring is older than its image, which has commit {image}: {reason}. Restore the newest files of the ring; \
         keep the image, it is the proof"
    )]
    Older {
        /// The last commit of the image.
        image: Lsn,
        /// What was found in its place.
        reason: String,
    },
    /// A file of the ring is missing between others.
    #[error(
        "a file of the ring is missing: generation {0} of those that hold commits. Restore it from a backup"
    )]
    LostFile(u64),
    /// The history is not whole.
    #[error("the history of commits is not whole: {0}. Restore the file from a backup")]
    History(String),
    /// A file is of another journal.
    #[error("{0} belongs to another journal: restore the files of one journal together")]
    Foreign(String),
    /// The file system refused.
    #[error("cannot open the journal: {0}")]
    Io(#[from] std::io::Error),
}

impl RingOpenError {
    /// None of the images can be read, for these reasons.
    pub(super) fn no_image(reasons: &[String]) -> RingOpenError {
        let reason = if reasons.is_empty() { "there is none".to_owned() } else { reasons.join("; ") };
        RingOpenError::NoImage { directory: IMAGES.to_owned(), reason }
    }
}
