//! The settings of a broker, in one table.
//!
//! [`table`] has a row for each setting. The way to a broker has two steps. [`Typed`] is what a person typed: flags win
//! over the environment, the environment wins over the file. [`Checked`] has passed the checks and has the defaults; it
//! gives [`Config`], in which each setting has the Rust type of its row.
//!
//! - `setting.rs`: a row, and what its setting takes; `value.rs`: values and the types of rows.
//! - `typed.rs`: values with their origin, from a file; `flags.rs`: from flags and the environment.
//! - `checked.rs`: ranges, defaults, `--print-config`.
//! - `words.rs`: `--help`; `page.rs`: docs/settings.md.

mod checked;
mod flags;
#[cfg(test)]
mod page;
mod setting;
mod table;
#[cfg(test)]
mod tests;
mod typed;
mod value;
mod words;

pub(crate) use checked::Checked;
pub(crate) use flags::{TypedForCheck, TypedForDemo};
pub(crate) use table::Config;
pub(crate) use typed::{Typed, misspelt};
pub(crate) use value::{HostPort, JournalPlace, LogFilter, LogFormat, Secret, StorePlace};
