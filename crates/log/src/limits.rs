//! Every limit of this crate, in one place.
