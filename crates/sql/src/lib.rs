//! SQL over unified tables: the lake up to its progress, the log from there, one cut.
