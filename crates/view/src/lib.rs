//! The runner of all views.
//!
//! A view derives something from a topic and keeps its own progress: the offset of each partition up to which its
//! output is made. The output and the progress change in one journal entry, so the output is the fold of the log up
//! to the progress, whatever crashed in between.
//!
//! # What it is not
//! It knows no Arrow, no Iceberg and no schema, and it has no output of its own. [`View`] is the trait that a view
//! implements; the lake is the first one.
//!
//! # One step, file by file
//! ```text
//! supervisor.rs   Views::run         starts a runner for each topic that has this view, and ends it
//! runner.rs       TopicRunner::step  one step is one commit
//! ownership.rs    take_over          acquires the lease of the topic, and loads what the last owner left
//! lag.rs          records            how many records the view is behind; waits while there are none
//! gather.rs       Gathered           lets records gather until they are due or there are enough of them
//! memory.rs       Memory             a portion for the records of one commit, and more if there is some
//! intake.rs       Intake::fill       folds batches, round-robin over the partitions, checked by gapless.rs
//! contract.rs     View::prepare      makes the output and the command that publishes it
//! dead_letter.rs  upload             stores bad records for the dead-letter topic
//! outcome.rs      commit             one entry: command, progress.rs, dead letters; resolves a lost answer
//! jobs.rs         Jobs               background work of the output, in pieces that are adopted between steps
//! ```
//! A step that fails leaves nothing visible. The runner backs off and tries again, and status.rs says since when.
//!
//! # Ownership
//! A view of a topic has one owner at a time: the process that holds the lease `view/<view>/<topic>`. Every commit
//! checks the epoch of the lease and renews it, so an owner that was taken for dead commits nothing. An idle view does
//! not renew: its lease stays good until another process takes it, which has seen no renewal for [`limits::LEASE_TTL`]
//! on its own monotonic clock. No wall clock decides.
//!
//! # Formats
//! One record for each view, drawn in progress.rs. Its kind is the view's own.

mod contract;
pub mod dead_letter;
mod error;
mod gapless;
mod gather;
mod intake;
mod jobs;
mod labels;
mod lag;
pub mod limits;
mod memory;
mod outcome;
mod ownership;
mod progress;
mod runner;
mod shared;
mod status;
mod supervisor;

pub use contract::{BadRecordRule, Command, Fold, Job, MetricNames, Portion, Settings, Verdict, View};
pub use error::ViewError;
pub use gapless::gapless;
pub use labels::{OTHER_TOPICS, topic_label};
pub use ownership::lease_name;
pub use progress::{Progress, ProgressRecord, ReadRanges, progress_of};
pub use shared::Config;
pub use status::ViewStatus;
pub use supervisor::Views;
