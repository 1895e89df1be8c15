//! The identity of the cluster.
