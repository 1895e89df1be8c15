//! Bugs that tests plant into a journal, to show that its checks see them. Outside of tests there are none.

/// Defines `planted`, which says whether a bug of the enum is planted in the running test, and for tests `plant`, which
/// plants one into everything that the thread does from then on.
macro_rules! of_thread {
    ($bug:ty) => {
        #[cfg(test)]
        thread_local! {
            static BUG: std::cell::Cell<Option<$bug>> = const { std::cell::Cell::new(None) };
        }

        /// Whether this bug is planted in the running test.
        #[cfg(test)]
        pub(super) fn planted(bug: $bug) -> bool {
            BUG.get() == Some(bug)
        }

        #[cfg(not(test))]
        pub(super) fn planted(_: $bug) -> bool {
            false
        }

        /// Plants a bug into everything that this thread does from now on.
        #[cfg(test)]
        pub(super) fn plant(bug: Option<$bug>) {
            BUG.set(bug);
        }
    };
}

pub(crate) use of_thread;
