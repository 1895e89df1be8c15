//! Where the files of a table are, and why none is ever orphaned.
//!
//! ```text
//! lake/<topic id>-<topic>/data/0000000012-7.parquet        rows
//!                        /metadata/0000000013-7-m.avro     a manifest
//!                        /metadata/0000000014-7-s.avro     a manifest list, one for each snapshot
//!                        /metadata/00015-<uuid>.metadata.json
//! ```
//! The 7 is the writer number of the process ([`floe_log::writer_number`]), which is in the uuid too: two processes
//! with copies of one journal never write to the same name. Files of writer 0 have no such part.
//!
//! The name of a metadata document is `<version>-<uuid>.metadata.json`, as the Iceberg specification says ("File System
//! Tables", "Metastore Tables"). Readers without a catalog, such as ClickHouse, take the document with the highest
//! version and refuse other names. The version is the count in the number of the file. The uuid follows from the topic
//! and the number, because the cleaner must know the name of a file that was never committed. Tables that were made
//! earlier have documents called `0000000015.metadata.json`; their keys are in the map, and they stay readable.
//!
//! The number of a file is unique in its table. The owner takes numbers from a range that it reserved in the journal
//! ([`crate::map::ViewState`]). Numbers below [`crate::map::Table::next_file`] belong to commits, or to failed attempts
//! whose files are in the garbage. So the unknown files of a crashed owner have numbers from there to the end of its
//! range, and the next owner puts that range into the garbage. The store is never listed.

use std::fmt;

use floe_log::{TopicId, WriterNumber};
use uuid::Uuid;

/// What a file holds. Its name follows from that and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    Data,
    Manifest,
    ManifestList,
    Metadata,
    /// A metadata document under the name of earlier versions of Floe. It is deleted and never written.
    FormerMetadata,
}

pub(crate) const FILE_KINDS: [FileKind; 5] = [
    FileKind::Data,
    FileKind::Manifest,
    FileKind::ManifestList,
    FileKind::Metadata,
    FileKind::FormerMetadata,
];

/// The folder of a table in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Folder {
    /// Its key, without a slash at the end.
    path: String,
    topic: TopicId,
}

impl Folder {
    /// The folder of the table of a topic. The id tells it from an earlier topic of the same name.
    pub(crate) fn of(name: &str, topic: TopicId) -> Folder {
        Folder { path: format!("lake/{topic}-{name}"), topic }
    }

    /// The key of a file of this table.
    pub(crate) fn key(&self, kind: FileKind, number: u64) -> String {
        let folder = &self.path;
        let (writer, count) = (WriterNumber::of(number), WriterNumber::count(number));
        let name = match writer {
            WriterNumber(0) => format!("{count:010}"),
            WriterNumber(writer) => format!("{count:010}-{writer}"),
        };
        match kind {
            FileKind::Data => format!("{folder}/data/{name}.parquet"),
            FileKind::Manifest => format!("{folder}/metadata/{name}-m.avro"),
            FileKind::ManifestList => format!("{folder}/metadata/{name}-s.avro"),
            FileKind::Metadata => {
                let uuid = uuid_of(self.topic, number);
                format!("{folder}/metadata/{count:05}-{uuid}.metadata.json")
            }
            FileKind::FormerMetadata => format!("{folder}/metadata/{count:010}.metadata.json"),
        }
    }

    /// The key of the file that `url` names, if it is one of this table.
    pub(crate) fn key_of_url(&self, url: &str) -> Option<String> {
        let at = url.rfind(&format!("/{}/", self.path))? + 1;
        Some(url[at..].to_owned())
    }
}

/// The number of the manifest with this name.
pub(crate) fn number_of_manifest(name: &str) -> Option<u64> {
    let digits = name.strip_suffix("-m.avro")?;
    let (count, writer) = digits.split_once('-').unwrap_or((digits, "0"));
    Some(WriterNumber(writer.parse().ok()?).number(count.parse().ok()?))
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

/// The uuid in the name of a metadata document: RFC 9562's version 8, whose bits are the application's. It is unique in
/// its folder.
fn uuid_of(topic: TopicId, number: u64) -> Uuid {
    let bytes = (u128::from(topic.0) << 64 | u128::from(number)).to_be_bytes();
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_part_of_the_format_and_never_change() {
        let folder = Folder::of("flights", TopicId(7));
        let keys = FILE_KINDS.map(|kind| folder.key(kind, 12));
        assert_eq!(
            keys,
            [
                "lake/7-flights/data/0000000012.parquet",
                "lake/7-flights/metadata/0000000012-m.avro",
                "lake/7-flights/metadata/0000000012-s.avro",
                "lake/7-flights/metadata/00012-00000000-0000-8007-8000-00000000000c.metadata.json",
                "lake/7-flights/metadata/0000000012.metadata.json",
            ]
        );
        let number = WriterNumber(7).number(12);
        let of_writer = FILE_KINDS.map(|kind| folder.key(kind, number));
        assert_eq!(
            of_writer[..4],
            [
                "lake/7-flights/data/0000000012-7.parquet",
                "lake/7-flights/metadata/0000000012-7-m.avro",
                "lake/7-flights/metadata/0000000012-7-s.avro",
                "lake/7-flights/metadata/00012-00000000-0000-8007-8000-07000000000c.metadata.json",
            ]
        );
        for number in [12, number] {
            let key = folder.key(FileKind::Manifest, number);
            assert_eq!(number_of_manifest(key.rsplit('/').next().expect("a name")), Some(number));
        }
        let large = folder.key(FileKind::Metadata, 1_234_567);
        assert_eq!(
            large,
            "lake/7-flights/metadata/1234567-00000000-0000-8007-8000-00000012d687.metadata.json"
        );
        for key in keys {
            assert_eq!(folder.key_of_url(&format!("file:///d/lake/x/{key}")), Some(key.clone()));
            assert_eq!(Folder::of("flights", TopicId(17)).key_of_url(&format!("s3://b/{key}")), None);
        }
    }
}
