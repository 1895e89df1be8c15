//! Functions within the memory and the time of their statement.
//!
//! The engine counts the memory of sorting, grouping and joining. It does not count what functions make, a failed
//! allocation ends the process, and nothing stops a function before it returns. So every function of a statement stands
//! behind [`metered::Metered`]: it says what a call may make and how long it may take before the call runs, lets large
//! batches through in slices, and counts what was made.
//!
//! ```text
//! growth.rs         what a call may make, and its steps, from its arguments
//! meter.rs          the memory and the deadline of one statement
//! metered.rs        a function with a meter
//! concatenation.rs  the operator || as a function
//! place.rs          puts functions of a plan behind the meter, the operator || included
//! ```

mod concatenation;
mod growth;
mod meter;
mod metered;
mod place;

use std::sync::Arc;

use datafusion::common::{Result, internal_err};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;

pub use growth::{sizes as row_sizes, weight};
pub use meter::{Ended, Meter};
pub use place::MeteredFunctions;

use metered::Metered;

/// Bounds the functions of the base of all sessions. Planning runs some of them over constants before a statement has
/// a meter.
///
/// # Errors
/// The engine lacks one of the functions that have a model of their own, or has one under a name that is not known
/// here. Then it is a newer engine, and its functions need a new review.
pub fn bound(state: &mut SessionState) -> Result<()> {
    for name in growth::names() {
        let inner = state.udf(name)?;
        if let Some(alias) = inner.aliases().iter().find(|alias| !growth::is_known(alias)) {
            return internal_err!("'{name}' has a name that is not bounded: '{alias}'");
        }
    }
    let mut all: Vec<_> =
        state.scalar_functions().iter().map(|(name, inner)| (name.clone(), inner.clone())).collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    // A function has an entry for each of its names. Registering it under its own name makes all of them.
    for (_, inner) in all.into_iter().filter(|(name, inner)| name == inner.name()) {
        if let Some(metered) = Metered::over(&inner, None) {
            state.register_udf(Arc::new(metered))?;
        }
    }
    Ok(())
}
