//! The one way to end the process.

use std::any::Any;
use std::fmt::Display;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Ends the process at once. `what` is the reason, and `why` is the error behind it.
///
/// Nothing else of the process runs: no destructor can write data that a fault has damaged. The reason goes to the log,
/// and as one line to stderr for processes without a log.
pub fn end_process(what: &str, why: &dyn Display) -> ! {
    end(what, None, why)
}

/// Ends the process because a vital task or thread panicked. `seed` is the seed of the simulation, if it is one.
pub(crate) fn end_after_panic(kind: &str, name: &str, seed: Option<u64>, panic: &(dyn Any + Send)) -> ! {
    end(&format!("{kind} '{name}' panicked"), seed, &reason_of(panic))
}

/// Ends a simulation in which tasks run, last the one that is named, and no time goes by.
pub(crate) fn end_at_standstill(name: &str, seed: u64) -> ! {
    end("the simulated clock stands still", Some(seed), &format!("task '{name}' is one that never waits"))
}

#[allow(clippy::disallowed_methods, reason = "the one place that ends the process")]
fn end(what: &str, seed: Option<u64>, why: &dyn Display) -> ! {
    // A log that cannot be written may panic, and then only this thread would end.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        tracing::error!(seed, error = %why, "{what}, ending the process");
    }));
    let seed = seed.map_or_else(String::new, |seed| format!(" (simulation with seed {seed})"));
    // If this write fails, nobody can be told.
    let _ = writeln!(std::io::stderr(), "floe: {what}, ending the process{seed}: {why}");
    std::process::abort();
}

/// The message of a panic.
pub(crate) fn reason_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}
