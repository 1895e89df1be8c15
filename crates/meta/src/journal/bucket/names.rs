//! The keys of the journal's objects, and the small records among them. Pure.

use floe_store::check_key;

use super::sealed::{Unsound, damaged, open, seal};
use crate::journal::Lsn;

const IDENTITY: &[u8; 8] = b"FLOEBJID";
const FLOOR: &[u8; 8] = b"FLOEBFLR";

/// The entries below this number may be gone. The names of two floors sort as their numbers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Floor {
    /// The first entry that is kept.
    pub(super) number: u64,
    /// Its first commit.
    pub(super) first: Lsn,
}

impl Floor {
    /// The floor of a journal that has let go of nothing.
    pub(super) const LOWEST: Floor = Floor { number: 1, first: Lsn(1) };

    pub(super) fn encode(&self, journal: u128) -> Vec<u8> {
        let mut body = self.number.to_le_bytes().to_vec();
        body.extend_from_slice(&self.first.0.to_le_bytes());
        seal(FLOOR, journal, &body)
    }

    /// Reads what [`Floor::encode`] wrote. The name says the same; only a look at the bucket by hand needs this.
    #[cfg(test)]
    pub(super) fn decode(journal: u128, bytes: &[u8]) -> Result<Floor, Unsound> {
        let (_, body, _) = open(FLOOR, Some(journal), bytes)?;
        let mut cut = super::sealed::Cut(body);
        let floor = Floor { number: cut.u64()?, first: Lsn(cut.u64()?) };
        cut.end().map(|()| floor)
    }
}

/// The name of an image. It ends with random bits, so that no two writers ever write to one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ImageName {
    /// The last entry that is in the image.
    pub(super) number: u64,
    /// Random bits.
    pub(super) serial: u64,
}

/// Lays out the journal's first object: its id, and when it was made, in milliseconds since 1970.
pub(super) fn encode_identity(journal: u128, created: i64) -> Vec<u8> {
    seal(IDENTITY, journal, &created.to_le_bytes())
}

/// Reads what [`encode_identity`] laid out.
pub(super) fn decode_identity(bytes: &[u8]) -> Result<u128, Unsound> {
    let (journal, body, _) = open(IDENTITY, None, bytes)?;
    match body.len() == 8 && journal != 0 {
        true => Ok(journal),
        false => Err(damaged("it has no id")),
    }
}

/// The keys of one journal.
#[derive(Debug, Clone)]
pub(super) struct Names(String);

impl Names {
    /// The keys below a folder; none if that is not a valid one.
    pub(super) fn below(folder: &str) -> Option<Names> {
        let names = Names(folder.to_owned());
        // The longest key there is.
        let longest = names.part(ImageName { number: 0, serial: 0 }, 0);
        check_key(&longest).is_ok().then_some(names)
    }

    pub(super) fn identity(&self) -> String {
        format!("{}/id", self.0)
    }

    pub(super) fn entries(&self) -> String {
        format!("{}/entries", self.0)
    }

    pub(super) fn entry(&self, number: u64) -> String {
        format!("{}/entries/{number:016x}", self.0)
    }

    pub(super) fn floors(&self) -> String {
        format!("{}/floors", self.0)
    }

    pub(super) fn floor(&self, floor: Floor) -> String {
        format!("{}/floors/{:016x}-{:016x}", self.0, floor.number, floor.first.0)
    }

    pub(super) fn images(&self) -> String {
        format!("{}/images", self.0)
    }

    pub(super) fn image(&self, image: ImageName) -> String {
        format!("{}/images/{:016x}-{:016x}", self.0, image.number, image.serial)
    }

    pub(super) fn parts(&self) -> String {
        format!("{}/parts", self.0)
    }

    pub(super) fn part(&self, image: ImageName, index: u32) -> String {
        format!("{}/parts/{:016x}-{:016x}/{index:08x}", self.0, image.number, image.serial)
    }
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok().filter(|number| *text == format!("{number:016x}"))
}

fn pair(name: &str) -> Option<(u64, u64)> {
    let (one, two) = name.split_once('-')?;
    Some((hex(one)?, hex(two)?))
}

/// The number of an entry, from its key. None if the key is not ours, here and below.
pub(super) fn entry_of(key: &str) -> Option<u64> {
    hex(key.rsplit_once('/')?.1)
}

/// The floor that a key names.
pub(super) fn floor_of(key: &str) -> Option<Floor> {
    let (number, first) = pair(key.rsplit_once('/')?.1)?;
    Some(Floor { number, first: Lsn(first) })
}

/// The image that a key names.
pub(super) fn image_of(key: &str) -> Option<ImageName> {
    let (number, serial) = pair(key.rsplit_once('/')?.1)?;
    Some(ImageName { number, serial })
}

/// The image that a part belongs to.
pub(super) fn image_of_part(key: &str) -> Option<ImageName> {
    image_of(key.rsplit_once('/')?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Buckets in the field have these names and bytes, so they never change.
    #[test]
    fn golden() {
        let names = Names::below("journal").unwrap();
        let (floor, image) =
            (Floor { number: 300, first: Lsn(4_000) }, ImageName { number: 299, serial: 0xfeed });
        assert_eq!(names.identity(), "journal/id");
        assert_eq!(names.entry(300), "journal/entries/000000000000012c");
        assert_eq!(names.floor(floor), "journal/floors/000000000000012c-0000000000000fa0");
        assert_eq!(names.image(image), "journal/images/000000000000012b-000000000000feed");
        assert_eq!(names.part(image, 2), "journal/parts/000000000000012b-000000000000feed/00000002");
        let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(floor.encode(0x0102)), GOLDEN_FLOOR);
        assert_eq!(hex(encode_identity(0x0102, 9)), GOLDEN_IDENTITY);
    }

    const GOLDEN_FLOOR: &str = "464c4f4542464c520100000045648144020100000000000000000000000000002c01000000000000\
     a00f000000000000";
    const GOLDEN_IDENTITY: &str =
        "464c4f45424a49440100000009e6db2b020100000000000000000000000000000900000000000000";

    #[test]
    fn names_are_read_back_and_others_are_not_ours() {
        let names = Names::below("a/b").unwrap();
        let (floor, image) = (Floor { number: 3, first: Lsn(7) }, ImageName { number: 5, serial: u64::MAX });
        assert_eq!(entry_of(&names.entry(9)), Some(9));
        assert_eq!(floor_of(&names.floor(floor)), Some(floor));
        assert_eq!(image_of(&names.image(image)), Some(image));
        assert_eq!(image_of_part(&names.part(image, 7)), Some(image));
        assert_eq!(Floor::decode(1, &floor.encode(1)), Ok(floor));
        assert!(Floor::decode(2, &floor.encode(1)).is_err());
        assert_eq!(decode_identity(&encode_identity(5, 6)), Ok(5));
        for foreign in ["a/b/entries/9", "a/b/entries/read.me", "a/b/entries/000000000000000G", "x"] {
            assert_eq!((entry_of(foreign), floor_of(foreign), image_of(foreign)), (None, None, None));
        }
        for bad in ["", "/a", "a/", "../a", "a b"] {
            assert!(Names::below(bad).is_none(), "{bad}");
        }
    }
}
