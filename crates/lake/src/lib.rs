//! The Iceberg view of a topic: Parquet files, the commit engine, the catalog's documents.
