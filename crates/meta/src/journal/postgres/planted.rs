//! Bugs that tests plant into a journal, to show that they see them. Outside of tests there are none.

/// A bug on purpose. Each one is a mistake that somebody could make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Planted {
    /// A commit whose connection broke counts as not applied.
    UnknownIsNotApplied,
    /// A server that lost commits is taken as it is.
    TakesOlderServer,
    /// Entries are let go of although only one image has them.
    ForgetsTooEarly,
    /// Notifications are not heard.
    HearsNothing,
}

/// The bug of one journal.
#[derive(Debug, Default)]
pub(super) struct Plant {
    #[cfg(test)]
    bug: std::sync::Mutex<Option<Planted>>,
}

impl Plant {
    /// Whether this bug is planted.
    #[cfg(test)]
    pub(super) fn has(&self, bug: Planted) -> bool {
        *floe_env::lock(&self.bug) == Some(bug)
    }

    #[cfg(not(test))]
    pub(super) fn has(&self, _: Planted) -> bool {
        false
    }

    /// Plants a bug.
    #[cfg(test)]
    pub(super) fn set(&self, bug: Option<Planted>) {
        *floe_env::lock(&self.bug) = bug;
    }
}
