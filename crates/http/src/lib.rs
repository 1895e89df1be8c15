//! The HTTP front: health, metrics, SQL, and the read side of the Iceberg REST catalog.
