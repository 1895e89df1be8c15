//! The contract of [`crate::Journal`] as one suite that every journal passes. For tests only.
//!
//! The cases use only the trait. A journal's own test says how to open the journal, and calls [`run`].

mod attached;
mod entries;
mod forgetting;

use floe_env::Env;

pub use entries::Place;

/// Runs every case, each in a fresh place.
///
/// # Panics
/// The journal breaks the contract.
pub async fn run(env: &Env, fresh: impl Fn() -> Box<dyn Place>) {
    entries::run(env, &fresh).await;
    attached::run(env, &fresh).await;
    forgetting::run(env, &fresh).await;
}
