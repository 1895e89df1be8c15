//! The directory into which sorting and grouping write what does not fit in memory.

use std::path::Path;
use std::sync::Arc;

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, GreedyMemoryPool, MemoryPool, TrackConsumersPool};
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};

use floe_env::DiskReserve;

use crate::config::Config;
use crate::limits::RUN_MEMORY;

/// What statements run in: the memory of all of them, with a place to spill and without one.
pub(crate) struct Runtimes {
    /// Without a place to spill.
    plain: Arc<RuntimeEnv>,
    spilling: Option<(DiskReserve, Arc<RuntimeEnv>)>,
}

impl Runtimes {
    /// Empties the spill directory: it holds what statements of a former process left behind.
    ///
    /// # Errors
    /// The directory cannot be emptied.
    pub(crate) fn open(
        config: &Config,
        pool: &Arc<dyn MemoryPool>,
        stores: &Arc<dyn ObjectStoreRegistry>,
    ) -> Result<Runtimes> {
        let directory = directory(config);
        let runtime = |mode, bytes| {
            RuntimeEnvBuilder::new()
                .with_memory_pool(pool.clone())
                .with_disk_manager_builder(
                    DiskManagerBuilder::default().with_mode(mode).with_max_temp_directory_size(bytes),
                )
                .with_max_spill_merge_fan_in((config.memory_bytes / RUN_MEMORY).max(2))
                .with_object_store_registry(stores.clone())
                .build_arc()
        };
        let plain = runtime(DiskManagerMode::Disabled, 0)?;
        let Some(directory) = directory.cloned() else { return Ok(Runtimes { plain, spilling: None }) };
        empty(&directory).map_err(DataFusionError::IoError)?;
        // Half of the room is for the records that arrive meanwhile.
        let disk = DiskReserve::new(directory.clone(), config.disk_reserve_bytes);
        let room = disk.room().map_err(DataFusionError::IoError)?;
        let bytes = config.spill_bytes.min(room.beside() / 2);
        let spilling = runtime(DiskManagerMode::Directories(vec![directory]), bytes)?;
        Ok(Runtimes { plain, spilling: Some((disk, spilling)) })
    }

    /// Sets how much statements may spill from now on, and returns how much they have spilled.
    pub(crate) fn allow_spill(&self, bytes: u64) -> Result<u64> {
        let Some((_, spilling)) = &self.spilling else { return Ok(0) };
        spilling.disk_manager.set_max_temp_directory_size(bytes)?;
        Ok(spilling.disk_manager.used_disk_space())
    }

    /// Every runtime that [`Runtimes::next`] may return.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<RuntimeEnv>> {
        std::iter::once(&self.plain).chain(self.spilling.iter().map(|(_, runtime)| runtime))
    }

    /// The runtime that knows only the memory.
    pub(crate) fn plain(&self) -> &Arc<RuntimeEnv> {
        &self.plain
    }

    /// The runtime for the next statement. It spills only if the disk has room for all that statements may spill,
    /// beside what is kept for the metadata: a statement must not fill the disk of the log.
    pub(crate) fn next(&self) -> &Arc<RuntimeEnv> {
        let Some((disk, spilling)) = &self.spilling else { return &self.plain };
        let (used, most) =
            (spilling.disk_manager.used_disk_space(), spilling.disk_manager.max_temp_directory_size());
        metrics::gauge!("floe_sql_spilled_bytes").set(used as f64);
        match disk.room() {
            Ok(room) if room.holds(most.saturating_sub(used)) => spilling,
            Ok(_) => {
                metrics::counter!("floe_sql_spills_refused_total").increment(1);
                &self.plain
            }
            Err(error) => {
                tracing::warn!(%error, "the disk of the spill directory does not answer; statements do not spill");
                &self.plain
            }
        }
    }
}

fn directory(config: &Config) -> Option<&std::path::PathBuf> {
    config.spill_directory.as_ref().filter(|_| config.spill_bytes > 0)
}

/// The memory that all statements of a process share.
pub(crate) fn shared_memory(config: &Config) -> Arc<dyn MemoryPool> {
    let top = std::num::NonZero::new(3).expect("three is not zero");
    // A fair pool is for operators that can spill. Each operator gets its share and no more, even if others are idle.
    match directory(config) {
        Some(_) => Arc::new(TrackConsumersPool::new(FairSpillPool::new(config.memory_bytes), top)),
        None => Arc::new(TrackConsumersPool::new(GreedyMemoryPool::new(config.memory_bytes), top)),
    }
}

/// Empties a directory, or makes it.
pub(crate) fn empty(directory: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::create_dir_all(directory)
}
