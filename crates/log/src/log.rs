//! The handle on the log that the rest of Floe uses.
