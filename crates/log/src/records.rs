//! Records inside a batch: decoder and builder, for views, clients and tests.
