//! Installs a peer (an agent server that Herm is compared with) into the user's cache directory. A peer is installed
//! again only if its version, its packages or the sources of its application change.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use tokio::process::Command;

use super::Peer;

/// The file that marks a complete installation. It contains the versions of the packages and the sources of the peer's
/// application. If they differ from the current ones, the peer is installed again.
const COMPLETED_FILE: &str = "installed";

/// A peer that is installed in the cache directory.
#[derive(Clone, Debug)]
pub(crate) struct Installation {
    pub(super) peer: Peer,
    pub(super) dir: PathBuf,
}

impl Installation {
    /// Returns the installation of a peer. Installs the peer first if there is no complete installation.
    pub(crate) async fn get(peer: Peer) -> anyhow::Result<Self> {
        let dir = cache_dir()?.join(format!("{}-{}", peer.slug(), peer.version()));
        let contents = format!("{:?}\n{:?}\n", peer.packages(), peer.sources());
        let completed = dir.join(COMPLETED_FILE);
        if fs::read_to_string(&completed).ok().as_deref() != Some(contents.as_str()) {
            fs::create_dir_all(&dir).with_context(|| format!("failed to create {}", dir.display()))?;
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
            fs::write(&completed, contents)
                .with_context(|| format!("failed to write {}", completed.display()))?;
        }
        Ok(Self { peer, dir })
    }
}

/// Writes the source files of the peer's application into `dir`. The peer runs this application as its agent.
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
        .context("neither XDG_CACHE_HOME nor HOME is set, so there is no cache directory to install into")?
        .join("herm-bench"))
}

async fn run(dir: &Path, program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    // A program name that contains a slash is a path relative to `dir`. Other programs are searched for in `PATH`.
    let path = if program.contains('/') { dir.join(program) } else { PathBuf::from(program) };
    let command = || format!("{program} {}", arguments.join(" "));
    let output = Command::new(path)
        .args(arguments)
        .current_dir(dir)
        .env("MASTRA_TELEMETRY_DISABLED", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await;
    let output = output.with_context(|| format!("failed to start `{}`", command()))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "`{}` failed: {}",
        command(),
        stderr.trim().lines().last().unwrap_or("")
    );
    Ok(())
}
