//! Puts a peer into the user's cache, once for each version.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use tokio::process::Command;

use super::Peer;

/// Written last: what was put there, so that a change of it installs anew.
const DONE: &str = "installed";

/// A peer that is there.
#[derive(Clone, Debug)]
pub(crate) struct Installed {
    pub(super) peer: Peer,
    pub(super) dir: PathBuf,
}

impl Installed {
    /// Installs what is not there yet.
    pub(crate) async fn get(peer: Peer) -> anyhow::Result<Self> {
        let dir = cache_dir()?.join(format!("{}-{}", peer.slug(), peer.version()));
        let wanted = format!("{:?}\n{:?}\n", peer.packages(), peer.sources());
        let done = dir.join(DONE);
        if fs::read_to_string(&done).ok().as_deref() != Some(wanted.as_str()) {
            fs::create_dir_all(&dir).with_context(|| format!("failed to make {}", dir.display()))?;
            write_sources(peer, &dir)?;
            match peer {
                Peer::Hermes | Peer::LangGraph => {
                    run(&dir, "python3", &["-m", "venv", "venv"]).await?;
                    let install = ["install", "--quiet", "--disable-pip-version-check"];
                    run(&dir, "venv/bin/pip", &[&install[..], peer.packages()].concat()).await?;
                }
                Peer::Mastra => {
                    run(&dir, "npm", &["install", "--no-audit", "--no-fund"]).await?;
                    run(&dir, "npm", &["run", "build"]).await?;
                }
            }
            fs::write(&done, wanted).with_context(|| format!("failed to write {}", done.display()))?;
        }
        Ok(Self { peer, dir })
    }
}

/// Writes the sources of the peer's small application below `dir`.
pub(super) fn write_sources(peer: Peer, dir: &Path) -> anyhow::Result<()> {
    for (name, text) in peer.sources() {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap_or(dir))?;
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(())
}

fn cache_dir() -> anyhow::Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    Ok(cache
        .or_else(home)
        .context("HOME is not set, so there is no cache to install into")?
        .join("herm-bench"))
}

async fn run(dir: &Path, program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    // A program that is named by a path lies below the directory.
    let named = if program.contains('/') { dir.join(program) } else { PathBuf::from(program) };
    let command = || format!("{program} {}", arguments.join(" "));
    let output = Command::new(named)
        .args(arguments)
        .current_dir(dir)
        .env("MASTRA_TELEMETRY_DISABLED", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await;
    let output = output.with_context(|| format!("failed to start `{}`", command()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{}` failed: {}", command(), said.trim().lines().last().unwrap_or(""));
    Ok(())
}
