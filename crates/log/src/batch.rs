//! The Kafka record batch, version 2: header, validation, stamping; never decoded on the way in or out.
