//! Reads properties of this machine and of running processes.

use std::fs;
use std::process::Command;

use anyhow::Context as _;
use herm_types::Clock as _;
use herm_types::time::SystemClock;
use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises this process's limit on open files to the maximum that the system allows. Child processes that are started
/// later inherit the limit.
pub(crate) fn raise_file_limit() -> anyhow::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("failed to raise the limit on open files")
}

/// Returns this process's limit on open files, or `None` if there is no limit.
pub(crate) fn file_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Returns the resident memory of a process, in bytes.
pub(crate) fn resident_bytes(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
    let kib: f64 = field(&status, "VmRSS")
        .and_then(|text| text.split(' ').next()?.parse().ok())
        .with_context(|| format!("{path} has no VmRSS"))?;
    Ok(kib * 1024.0)
}

/// Returns the resident memory of a process and all its descendants, in bytes. Memory that several processes share is
/// counted once for each of them.
pub(crate) fn tree_resident_bytes(pid: u32) -> anyhow::Result<f64> {
    let children = fs::read_dir("/proc").context("failed to read /proc")?.flatten().filter_map(|entry| {
        let id: u32 = entry.file_name().to_str()?.parse().ok()?;
        // The status file does not exist any more if the process has exited.
        let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        (field(&status, "PPid")?.parse() == Ok(pid)).then_some(id)
    });
    let mut bytes = resident_bytes(pid)?;
    for child in children {
        bytes += tree_resident_bytes(child).unwrap_or_default();
    }
    Ok(bytes)
}

/// Describes the machine and the database in one paragraph for the performance page.
pub(crate) fn describe() -> anyhow::Result<String> {
    let processor = fs::read_to_string("/proc/cpuinfo").context("failed to read /proc/cpuinfo")?;
    let memory = fs::read_to_string("/proc/meminfo").context("failed to read /proc/meminfo")?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let model = field(&processor, "model name").unwrap_or("an unknown processor");
    let is_virtual =
        field(&processor, "flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor"));
    let cores = std::thread::available_parallelism()?;
    let kib: u64 =
        field(&memory, "MemTotal").and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or_default();
    let file_system =
        output("stat", &["-f", "-c", "%T", &super::setup::fresh_dir()?.path().to_string_lossy()]);
    Ok(format!(
        "Machine: {model}{}, {cores} cores, {} GiB of memory, Linux {}, file system {}. Database: SQLite with \
         `journal_mode=WAL` and `synchronous=FULL`, the default.",
        if is_virtual { " (in a virtual machine)" } else { "" },
        (kib + (1 << 19)) >> 20,
        kernel.trim(),
        file_system.unwrap_or_else(|| "unknown".to_owned()),
    ))
}

/// Returns today's date and the short hash of the current commit. A `+` follows the hash if the server's source files
/// have uncommitted changes.
pub(crate) fn date_and_commit() -> anyhow::Result<String> {
    let now = SystemClock.now().to_string();
    let date = now.split('T').next().context("the current time has no date")?;
    let commit = output("git", &["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "no commit".to_owned());
    // Ignore changes to files that are not part of the server, such as the benchmark and the performance page.
    let changed =
        output("git", &["status", "--porcelain", "--", "../crates", "../migrations", "../Cargo.lock"]);
    Ok(format!("{date}, {commit}{}", if changed.is_some() { "+" } else { "" }))
}

/// Runs a command in the directory of this package and returns its output. Returns `None` if the command fails or
/// prints nothing.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output =
        Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// Returns the value of the field `name` in a text with lines of the form `name: value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}
