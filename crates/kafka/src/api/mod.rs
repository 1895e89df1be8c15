//! What is answered: the table of APIs, and one file per API group.

pub(crate) mod answer_room;
pub(crate) mod call;
pub(crate) mod committed_offsets;
pub(crate) mod configs;
pub(crate) mod consumer_groups;
pub(crate) mod errors;
pub(crate) mod fetch;
pub(crate) mod list_offsets;
pub(crate) mod metadata;
pub(crate) mod produce;
pub(crate) mod producer_id;
pub(crate) mod sasl;
pub(crate) mod table;
pub(crate) mod topics;
