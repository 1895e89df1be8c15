//! A process that others can do without, and a thread that the others wait for.

use nix::sys::resource::{Resource, setrlimit};

/// Makes this process the first one that a system without memory ends (`proc(5)`: from -1000 to 1000).
const OOM_SCORE_MAX: &str = "1000";

/// How much lower the priority is than that of the process that started this one (`sched(7)`: from 0 to 19). When all
/// processors are busy, a thread has a third of the time that one without has.
const NICE: i32 = 5;

/// Tells the system that others can do without this process: if memory is short, it ends first, if processors are
/// busy, others go first, and it leaves no image of its memory behind, which has data of users. Threads that run
/// already keep their priority.
pub fn be_expendable() {
    // A system that knows neither goes on without.
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        tracing::warn!(%error, "cannot do without core files");
    }
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE_MAX) {
        tracing::debug!(%error, "cannot be the first process to end when memory is short");
    }
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::debug!(%error, "cannot let others go first when processors are busy");
    }
}

/// Lets this thread go before all others of the system, as far as the system allows it: it takes rights that a broker
/// has as root or in a service with a priority.
pub fn go_first() {
    if let Err(error) = rustix::process::nice(-2 * NICE) {
        tracing::debug!(%error, "a thread that looks at memory has to wait for processors like all others");
    }
}

/// Ends this process at once when the thread that started it ends, even if it was stopped.
pub fn end_with_parent() {
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL) {
        tracing::warn!(%error, "cannot end with the process that started this one");
    }
}
