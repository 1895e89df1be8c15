//! The diskless log: batches, WAL objects, sequencer, writer, reader, cache and the store.
