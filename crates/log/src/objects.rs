//! Leased object ids and the cleaner.
