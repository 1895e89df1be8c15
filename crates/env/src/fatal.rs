//! The one way to end the process.

use std::any::Any;
use std::fmt::Display;
use std::io::Write as _;

/// Ends the process at once, because of `what`; `why` is the error behind it.
///
/// Nothing of the process goes on, and no destructor writes what a fault left behind. The reason goes to the log and,
/// for those who run without a log, as one line to stderr.
pub fn end_process(what: &str, why: &dyn Display) -> ! {
    end(what, None, why)
}

/// Ends the process because a vital task or thread panicked. `seed` is that of a simulation.
pub(crate) fn end_after_panic(kind: &str, name: &str, seed: Option<u64>, panic: &(dyn Any + Send)) -> ! {
    end(&format!("{kind} '{name}' panicked"), seed, &reason_of(panic))
}

#[allow(clippy::disallowed_methods, reason = "the one place that ends the process")]
fn end(what: &str, seed: Option<u64>, why: &dyn Display) -> ! {
    tracing::error!(seed, error = %why, "{what}, ending the process");
    let seed = seed.map_or_else(String::new, |seed| format!(" (simulation with seed {seed})"));
    // If even this fails there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "floe: {what}, ending the process{seed}: {why}");
    std::process::abort();
}

/// What a panic said.
pub(crate) fn reason_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}
