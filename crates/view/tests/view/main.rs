//! A second view beside the lake: it counts. Whatever these tests show comes from the runner alone; the view has no
//! code against crashes, rivals, lost answers or bad records.

mod bad_records;
mod counting;
mod crash;
mod jobs;
mod lag;
mod lifecycle;
mod metrics;
mod outcome;
mod owners;
mod world;
