//! Compiles the C programs, once per test run.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Returns the program that runs as the processes under test.
pub(super) fn actors() -> &'static Path {
    static ACTORS: OnceLock<PathBuf> = OnceLock::new();
    ACTORS.get_or_init(|| compile("actors"))
}

/// Returns the same program linked statically: its first step follows the exec without
/// the work of a dynamic loader.
pub(super) fn static_actors() -> &'static Path {
    static ACTORS: OnceLock<PathBuf> = OnceLock::new();
    ACTORS.get_or_init(|| compile_as("actors", "actors-static", &["-static"]))
}

/// Returns the program that serves a FUSE file system.
pub(super) fn fuse() -> &'static Path {
    static FUSE: OnceLock<PathBuf> = OnceLock::new();
    FUSE.get_or_init(|| compile("fuse"))
}

/// Returns the program that is gated, and executes itself.
pub(crate) fn gate() -> &'static Path {
    static GATE: OnceLock<PathBuf> = OnceLock::new();
    GATE.get_or_init(|| compile_as("gate", "gate-static", &["-static"]))
}

/// Returns the NSS module `cgt`.
pub(crate) fn nss_module() -> &'static Path {
    static MODULE: OnceLock<PathBuf> = OnceLock::new();
    MODULE.get_or_init(|| compile_as("nss", "libnss_cgt.so.2", &["-shared", "-fPIC"]))
}

/// Runs one pin of `pins.c` and returns the `name value` lines that it printed.
pub(crate) fn pins(pin: &str) -> HashMap<String, i64> {
    static PINS: OnceLock<PathBuf> = OnceLock::new();
    let program = PINS.get_or_init(|| compile("pins"));
    let output = Command::new(program).args(pin.split_whitespace()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "pin {pin}: {}: {errors}", output.status);
    super::daemon::name_value_lines(&String::from_utf8_lossy(&output.stdout))
}

fn compile(name: &str) -> PathBuf {
    compile_as(name, name, &[])
}

fn compile_as(name: &str, output: &str, options: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/live/{name}.c"));
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(output);
    let status = Command::new("cc")
        .args(["-O2", "-Wall", "-Wextra", "-pthread"])
        .args(options)
        .arg("-o")
        .arg(&program)
        .arg(&source)
        .status()
        .expect("a C compiler, cc");
    assert!(status.success(), "cc {}", source.display());
    program
}
