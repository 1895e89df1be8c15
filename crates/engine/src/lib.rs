//! DataFusion as Floe uses it: right answers where its own are wrong, and bounds on what its functions take. It knows
//! neither tables nor the log.
//!
//! ```text
//! correct/      rules, plan        right answers where the engine's are wrong
//! functions/    MeteredFunctions   keeps functions within the memory and the time of their statement
//! dialect.rs    Language           how tightly operators bind
//! give_way.rs   GiveWay            makes joins yield, so that a statement can end at its deadline
//! held.rs       CountHeldRows      counts the rows that window functions hold
//! passing.rs    below              an operator that looks at batches and passes them on
//! trees.rs      Tree, Plans        walks over plans and expressions, each compiled once
//! width.rs      LookAtWidths       finds out that batches should have fewer rows
//! wrapped.rs    from_inner         functions that stand before one of the engine
//! limits.rs                        every limit of this crate
//! ```
//!
//! It is a crate of its own so that it builds beside `floe-sql`: the engine is the longest wait of a first build.

pub mod correct;
mod dialect;
pub mod functions;
mod give_way;
mod held;
pub mod limits;
mod passing;
mod trees;
mod width;
mod wrapped;

pub use dialect::Language;
pub use give_way::GiveWay;
pub use held::CountHeldRows;
pub use width::{LookAtWidths, Widths};
