//! What the figures were measured on, and what the system says of a process.

use std::fs;
use std::process::Command;

use anyhow::Context as _;
use herm_types::Clock as _;
use herm_types::time::SystemClock;
use rustix::process::{Resource, getrlimit, setrlimit};

/// Takes as many open files as the system allows; the servers that are started inherit it.
pub(crate) fn raise_file_limit() -> anyhow::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("failed to raise the limit of open files")
}

/// How many files a process may have open here; `None`: any number.
pub(crate) fn file_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Resident memory of a process, in bytes.
pub(crate) fn resident_bytes(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
    let kib: f64 = field(&status, "VmRSS")
        .and_then(|text| text.split(' ').next()?.parse().ok())
        .with_context(|| format!("{path} does not say VmRSS"))?;
    Ok(kib * 1024.0)
}

/// Resident memory of a process and all that came from it, in bytes; what they share counts for each.
pub(crate) fn tree_resident_bytes(pid: u32) -> anyhow::Result<f64> {
    let children = fs::read_dir("/proc").context("failed to read /proc")?.flatten().filter_map(|entry| {
        let id: u32 = entry.file_name().to_str()?.parse().ok()?;
        // One that has ended meanwhile has no parent any more.
        let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        (field(&status, "PPid")?.parse() == Ok(pid)).then_some(id)
    });
    let mut bytes = resident_bytes(pid)?;
    for child in children {
        bytes += tree_resident_bytes(child).unwrap_or_default();
    }
    Ok(bytes)
}

/// One paragraph about the machine.
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
    let file_system = output("stat", &["-f", "-c", "%T", &super::bed::fresh_dir()?.path().to_string_lossy()]);
    Ok(format!(
        "Machine: {model}{}, {cores} cores, {} GiB of memory, Linux {}, file system {}. Database: SQLite, with \
         `journal_mode=WAL` and `synchronous=FULL`, as it is by default.",
        if is_virtual { " (in a virtual machine)" } else { "" },
        (kib + (1 << 19)) >> 20,
        kernel.trim(),
        file_system.unwrap_or_else(|| "unknown".to_owned()),
    ))
}

/// The day and the commit, with a `+` where files were changed since.
pub(crate) fn when() -> anyhow::Result<String> {
    let now = SystemClock.now().to_string();
    let day = now.split('T').next().context("the clock tells no day")?;
    let commit = output("git", &["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "no commit".to_owned());
    // Neither this program nor the page it writes changes what is measured.
    let changed =
        output("git", &["status", "--porcelain", "--", "../crates", "../migrations", "../Cargo.lock"]);
    Ok(format!("{day}, {commit}{}", if changed.is_some() { "+" } else { "" }))
}

/// What a command prints, run in this package's directory; `None` if it fails or prints nothing.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output =
        Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// The value of a line `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == name).then(|| value.trim())
    })
}
