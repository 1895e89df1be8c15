//! The documents of an Apache Iceberg table, format version 2: bytes in and bytes out.
//!
//! **What it is.** Pure logic over four documents. [`TableMetadata`] is the JSON document that names the snapshots and
//! the schemas, and its [`commit`](TableMetadata::commit) makes the next one. A manifest list
//! ([`write_manifest_list`]) names the manifests of a snapshot, and a manifest ([`write_manifest`]) names data files
//! with their statistics. Both are Avro. The commit [`engine`] makes all three for the next snapshot of a table,
//! whoever stores them.
//!
//! **What it is not.** No reader of other writers' tables. It reads what Floe writes, and refuses the rest: partitions,
//! delete files, sort orders, compressed Avro, other versions of the format. It has no store, no clock, no randomness
//! and no Arrow.
//!
//! # Files
//! ```text
//! schema.rs         Schema          columns with ids, as JSON; the bytes and the order of a column's bounds
//! metadata.rs       TableMetadata   the metadata document
//! snapshot.rs       Snapshot        one state of the table
//! engine.rs         commit          the documents of the next snapshot, and what becomes garbage
//! commit.rs         Commit          from one metadata document to the next
//! manifest_list.rs  ManifestFile    the manifests of a snapshot
//! manifest.rs       ManifestEntry   data files and their statistics
//! shapes.rs                         the Avro schemas of the two, with Iceberg's field ids
//! container.rs                      Avro's object container files
//! avro.rs                           Avro's encoding of single values
//! error.rs          Error
//! ```
//!
//! # Bytes from outside
//! Documents come back from a store, and a store can damage them. Nothing is allocated by a number from a document
//! before that number is compared with the bytes that remain. The formats have no place for checksums, so each document
//! has one where other readers do not mind: the marker between the blocks of an Avro file is a hash of the rest, and a
//! metadata document has a property. What an early version of Floe wrote has neither, and is read unchecked.
//!
//! The specification is `format/spec.md` of Apache Iceberg; that of the containers is Avro's 1.11, "Object Container
//! Files".

mod avro;
mod commit;
mod container;
pub mod engine;
mod error;
pub mod limits;
mod manifest;
mod manifest_list;
mod metadata;
mod schema;
mod shapes;
mod snapshot;
#[cfg(test)]
mod tests;

pub use commit::Commit;
pub use error::Error;
pub use manifest::{DataFile, ManifestEntry, Metrics, Status, read_entries, read_manifest, write_manifest};
pub use manifest_list::{ManifestFile, read_manifest_list, write_manifest_list};
pub use metadata::{MAIN_BRANCH, MetadataLog, Reference, SnapshotLog, TableMetadata};
pub use schema::{Field, List, Primitive, Schema, Struct, Type};
pub use snapshot::{Operation, Snapshot, Summary};
