//! The floe binary. See `lib.rs`.

use std::process::ExitCode;

// The system allocator keeps freed frames in arenas of each thread. mimalloc gives large buffers back, and it builds in
// seconds where jemalloc takes minutes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    floe::run()
}
