//! The journal in ring files.

mod frame;
