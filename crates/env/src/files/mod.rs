//! Files that are written in place and synced: the seam between a journal and its disk. One is real, one is simulated.

mod real;
mod seam;
mod simulated;

pub use real::RealDisk;
pub use seam::{BlockBuffer, DISK_BLOCK, Disk, DiskFile};
pub use simulated::{DiskOver, SimulatedDisk};
