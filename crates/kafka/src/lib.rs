//! The Kafka protocol front: connections, one file per API group, classic groups.
//!
//! # What it is not
//! It stores nothing: batches go to and come from `floe-log`, committed offsets go to `floe-meta`. It decodes no
//! batch. It knows no message layout: those are the tables of `floe-wire`. There are no transactions, no share
//! groups, no KIP-848 groups, no authentication yet; [`apis`] says what is answered, and that is all.
//!
//! # A produce request, file by file
//! ```text
//! broker.rs     Broker::serve     accepts; doorman.rs counts connections
//! frames.rs     Frames::next      one frame, within size and pace
//! budget.rs     Admission::admit  its memory: a produce's is the log's, others have their own
//! conn.rs       take_in           header, version; produces go to the log in the order of their arrival
//! produce.rs    start             topic names to partitions (directory.rs), Log::append
//! produce.rs    finish            awaits the log, errors.rs names what went wrong
//! conn.rs       send              answers leave in the order of the requests
//! ```
//! # A fetch request, file by file
//! ```text
//! conn.rs          write          runs what is not a produce, one by one
//! apis.rs          APIS           the table: number, versions, handler, operation
//! fetch/session.rs plan           full, or what changed since the last request
//! fetch/mod.rs     serve          Log::read within the budget, Log::wait until there is enough
//! fetch/mod.rs     respond        what is news; batches are not copied, their first 16 bytes are stamped
//! ```
//! A group request goes through `groups.rs` or `offsets.rs` to [`floe_group::Coordinator`].
//!
//! # Formats
//! On the wire: Kafka's, see `floe-wire`. It keeps no records of its own.

mod api;
mod broker;
mod budget;
mod config;
mod conn;
mod directory;
mod fetch;
pub mod limits;
mod shared;

pub use api::table::{APIS, Api, Operation};
pub use broker::Broker;
pub use config::Config;
