//! The floe binary. See `lib.rs`.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: floe_alloc::Allocator = floe_alloc::Allocator;

fn main() -> ExitCode {
    floe::run()
}
