//! Topic settings: one table with names, types, defaults, checks and documentation.
