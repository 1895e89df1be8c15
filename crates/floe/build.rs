//! Lets the linker keep one of several functions with the same code. Generic code leaves many: the program becomes a
//! twelfth smaller. Rust promises no function an address of its own. Not all linkers can do it, so this one is tried
//! with a program that does nothing.

#![allow(clippy::print_stdout, reason = "cargo reads it")]

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const FOLD: &str = "-Wl,--icf=all";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Nobody cares for the size of other builds.
    if env::var("PROFILE").is_ok_and(|profile| profile == "release") && can_fold() {
        println!("cargo::rustc-link-arg-bins={FOLD}");
    }
}

/// Whether the linker of this build knows how.
fn can_fold() -> bool {
    let [Some(folder), Some(rustc), Some(target)] = ["OUT_DIR", "RUSTC", "TARGET"].map(env::var_os) else {
        return false;
    };
    let source = PathBuf::from(folder).join("nothing.rs");
    if std::fs::write(&source, "fn main() {}\n").is_err() {
        return false;
    }
    let mut command = Command::new(rustc);
    command.arg("--target").arg(target).arg("-o").arg(source.with_extension("out")).arg(&source);
    // What the build itself tells the compiler about its linker.
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    command.args(flags.split('\u{1f}').filter(|flag| !flag.is_empty()));
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        command.args(["-C", &format!("linker={linker}")]);
    }
    command.args(["-C", &format!("link-arg={FOLD}")]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
