//! Statements in processes of their own.
//!
//! No engine counts everything that it allocates, and nothing stops a thread. So a broker runs each statement in a
//! worker: the same program, started with a command of its own. The system counts what a process takes, and ends it
//! at once. A worker has no log, no store and no metadata. It asks the broker for what it reads, and gives the rows
//! back encoded.
//!
//! ```text
//!   broker                                                          worker
//!   pool.rs       Workers   a turn, a process                       work.rs    Worker     takes a statement, runs it
//!   statement.rs  run       one statement, from start to end        away.rs    Away       what a statement reads
//!   answers.rs    answer    what the worker asks for                memory.rs  Allowance  memory before it spills
//!   watch.rs      Watch     looks at the memory and the deadlines   counted.rs Counts     counters of the worker
//!   process.rs    Process   a running worker: starts, ends
//!   spill.rs      Spill     the disk that all may use
//!   statm.rs      Statm     the memory of a process
//!
//!   frame.rs      frames on the socket between both; message.rs: what they say; link.rs: the broker's end
//!   faults.rs     worker that misbehaves on purpose, for tests
//! ```
//!
//! # Bounds
//! The broker holds a few frames for each worker ([`crate::limits::WORKER_FRAMES`]), and the bytes that it reads for
//! all of them have a limit ([`crate::limits::WORKER_READS_BYTES`]). Decoding, planning and encoding are the worker's.
//!
//! # How a worker ends
//! When its broker closes the socket, whatever it does: a thread of its own reads it. So no worker outlives its broker.
//! The broker kills it when all workers together have too much memory and it has most, when its statement goes on after
//! its deadline, and when it does not end after its reader has left.

mod answers;
mod away;
mod counted;
mod faults;
mod frame;
mod link;
mod memory;
mod message;
mod pool;
mod process;
mod spill;
mod statement;
mod statm;
mod watch;
mod work;

pub use pool::{Workers, WorkersError};
pub use process::Program;
pub use work::{WorkError, work};
