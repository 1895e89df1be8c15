//! Objects, their leases, and the trash.
