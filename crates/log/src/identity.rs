//! Who writes: a principal and a client id, interned as a small number.
