//! The WAL object format: batches of many partitions, grouped, with a checksummed footer.
