//! The clients of a run. They write and read as Kafka's clients do and note what they see in the history. They know
//! nothing of the world around them but a [`Harness`], so the same clients run in the simulation and against real
//! processes.

pub mod administrator;
pub mod consumer;
pub mod cut;
pub mod follower;
pub mod front;
mod harness;
pub mod kafka_front;
pub mod member;
pub mod producer;
pub mod values;

pub use administrator::Administrator;
pub use consumer::Consumer;
pub use cut::{Cut, Stream};
pub use follower::Follower;
pub use front::{Fetched, Front, Sent};
pub use harness::Harness;
pub use kafka_front::KafkaFront;
pub use member::Member;
pub use producer::Producer;
pub use values::Place;
