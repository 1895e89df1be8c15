//! The clients of a run. They write and read as Kafka's clients do and note what they see in the history. They know
//! nothing of the world around them but a [`Harness`], so the same clients run in the simulation and against real
//! processes.

pub(crate) mod administrator;
pub(crate) mod consumer;
pub(crate) mod cut;
pub(crate) mod deleter;
pub(crate) mod follower;
pub(crate) mod front;
mod harness;
pub(crate) mod kafka_front;
pub(crate) mod member;
pub(crate) mod producer;
pub(crate) mod values;

pub use administrator::Administrator;
pub use consumer::Consumer;
pub use cut::{Cut, Stream};
pub use deleter::Deleter;
pub use follower::Follower;
pub use front::{Fetched, Front, Sent};
pub use harness::Harness;
pub use kafka_front::KafkaFront;
pub use member::Member;
pub use producer::Producer;
pub use values::Place;
