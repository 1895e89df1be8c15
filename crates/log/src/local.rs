//! A store in a local directory, durable when a PUT returns.
