//! One fuzz target for libFuzzer, chosen by name: `WEIR_FUZZ_TARGET=dkim_signature`. I/O: what the target does.
#![no_main]

#[path = "../targets.rs"]
#[allow(dead_code)] // The seeds are for `cargo test`.
mod targets;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<&'static targets::Target> = LazyLock::new(|| {
    let name = std::env::var("WEIR_FUZZ_TARGET").unwrap_or_default();
    let names: Vec<_> = targets::ALL.iter().map(|target| target.name).collect();
    let found = targets::ALL.iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("set WEIR_FUZZ_TARGET to one of {}", names.join(", ")))
});

fuzz_target!(|data: &[u8]| (TARGET.run)(data));
