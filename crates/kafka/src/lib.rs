//! The Kafka protocol front: connections, the table of APIs, and one file per API group.
//!
//! # What it is not
//! It stores nothing: batches belong to `floe-log`, groups and their committed offsets to `floe-group`. It decodes no
//! batch. It knows no message layout: `floe-wire` has the tables. There are no transactions, share groups, KIP-848
//! groups or authentication yet. [`APIS`] lists every API that is answered; any other request ends its connection.
//!
//! # Where things are
//! ```text
//! broker.rs     accepts connections
//! conn/         one connection: its seat, its frames and their memory, its reader and writer
//! api/          the table of APIs, what a handler gets and gives (call.rs), the handlers, the error codes
//! fetch/        fetch sessions
//! shared.rs     what the connections of one broker share
//! directory.rs  topics by name and by id
//! budget.rs     memory that is set aside before it is used
//! ```
//! Imports point one way: limits < budget, peer, progress < admission < frames < ending < shared < call < handlers <
//! table < connection < broker.
//!
//! # A produce request, file by file
//! ```text
//! broker.rs           Broker::serve     accepts; conn/doorman.rs counts connections
//! conn/frames.rs      Frames::next      reads one frame, within its limits of size and pace
//! conn/admission.rs   Admission::admit  sets its memory aside: from the log for a produce, else from the front
//! conn/connection.rs  take_in           decodes the header; hands produces to the log in the order of arrival
//! api/produce.rs      start             finds the partitions (directory.rs), calls Log::append
//! api/produce.rs      finish            awaits the log; api/errors.rs chooses the code of a failure
//! conn/send.rs        send              writes the answers in the order of the requests
//! ```
//! # A fetch request, file by file
//! ```text
//! conn/connection.rs  write             answers everything but produces, one request at a time
//! api/table.rs        answer            decodes the request, calls its handler, encodes the answer
//! fetch/session.rs    Sessions::plan    all partitions of the request, or those of its session
//! api/fetch.rs        serve             Log::read within the answer's memory, Log::wait until there is enough
//! api/fetch.rs        respond           leaves out partitions without news; copies 16 bytes per batch, not the batch
//! ```
//! # A group request, file by file
//! ```text
//! api/table.rs            answer        a join or a sync may wait: it gives its memory back first
//! api/consumer_groups.rs  join_group    turns the message into a command (committed_offsets.rs: commits, fetches)
//! floe-group              Coordinator   decides, and answers when the rebalance is over
//! api/errors.rs           group         turns a refusal into an error code
//! ```
//!
//! # Formats
//! On the wire: Kafka's, see `floe-wire`. This crate keeps no records of its own.

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
