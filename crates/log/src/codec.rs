//! The five compressions of a batch, with bounded decompression.
