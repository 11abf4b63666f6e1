//! Executes the shell commands of the README section "A first deployment".

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use herm_testkit::process::wait_until;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::model_scripts;
use crate::world::World;

const README: &str = include_str!("../../../README.md");
/// The port of the server in the README's commands.
const PORT: &str = "4376";

/// Returns the README's first block of shell commands after `heading`.
fn commands_below(heading: &str) -> &'static str {
    let (_, section) = README.split_once(heading).unwrap();
    let (_, block) = section.split_once("```sh\n").unwrap();
    block.split_once("```").unwrap().0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_of_the_first_deployment_work() {
    let world = World::sqlite().await;
    world
        .model
        .respond_with(model_scripts::use_shell("echo 'Ships rest in harbours.' > haiku.txt; cat haiku.txt"));
    let commands = commands_below("## A first deployment");
    assert!(commands.lines().count() <= 10, "the first deployment must take at most ten lines of shell");
    // Skips the installation, because the binary is already built. Uses a free port, because another process may use
    // the default port.
    let (install, commands) = commands.split_once('\n').unwrap();
    assert!(install.starts_with("cargo install "));
    let port = free_port();
    let commands = commands.replace(PORT, &port.to_string());
    let key = "sk-ant-…";
    assert!(commands.contains(key));
    let commands = commands.replace(key, "sk-ant-test");
    // The README's commands wait one second for the server and for the stream, which may be too short here. The test
    // replaces these waits: it waits until the server responds and until the stream's first frame has been received.
    let serve = "herm serve & sleep 1";
    assert!(commands.contains(serve));
    let server_ready = format!("until curl -s -o /dev/null localhost:{port}/healthz; do sleep 0.05; done");
    let commands = commands.replace(serve, &format!("herm serve --listen 127.0.0.1:{port} & {server_ready}"));
    let stream = "/events -H \"$AUTH\" & sleep 1";
    assert!(commands.contains(stream));
    let stream_open = "until grep -q '^id: evt_' ../output.txt; do sleep 0.05; done";
    let commands = commands.replace(stream, &stream.replace("sleep 1", stream_open));
    let file = "echo; curl -s \"$AGENT/files/content?path=haiku.txt\" -H \"$AUTH\"";
    assert!(README.contains(file.trim_start_matches("echo; ")));

    let output = world.dir().join("output.txt");
    let folder = world.dir().join("empty");
    std::fs::create_dir(&folder).unwrap();
    let programs = world.serve.program().parent().unwrap().display().to_string();
    let output_file = File::create(&output).unwrap();
    let shell = Command::new("bash")
        .args(["-c", &format!("{commands}\nuntil test -e ../completed; do sleep 0.05; done\n{file}\nwait")])
        .env_clear()
        .env("PATH", format!("{programs}:{}", std::env::var("PATH").unwrap()))
        .env("ANTHROPIC_BASE_URL", world.model.base_url())
        .current_dir(&folder)
        .stdin(Stdio::null())
        .stdout(output_file.try_clone().unwrap())
        .stderr(output_file)
        .process_group(0)
        .spawn()
        .unwrap();
    let _shell = Shell { process: shell, output: output.clone() };
    let has_printed = |text: &str| std::fs::read_to_string(&output).unwrap().contains(text);
    wait_until(|| has_printed("\"status\":\"completed\"")).await;
    File::create(world.dir().join("completed")).unwrap();
    wait_until(|| has_printed("\nShips rest in harbours.\n")).await;
    assert!(world.model.requests()[0].system().contains("You are the assistant of Acme Ltd."));
}

/// Returns a free port below the ephemeral port range. Other tests get their ports from the ephemeral range, so none of
/// them can take this port before the server listens on it.
fn free_port() -> u16 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let end: u32 = range.split_whitespace().next().unwrap().parse().unwrap();
    let (begin, process_id) = (end / 2, std::process::id());
    let mut ports = (0..end - begin).map(|attempt| begin + (process_id * 16 + attempt) % (end - begin));
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.by_ref().filter_map(|port| u16::try_from(port).ok()).find(is_free).unwrap()
}

/// A shell and the processes that it started. Dropping this value kills all of them. If the test failed, their output
/// is also printed.
struct Shell {
    process: Child,
    output: PathBuf,
}

impl Drop for Shell {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", std::fs::read_to_string(&self.output).unwrap_or_default());
        }
        if let Some(group) = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw) {
            // This fails if the processes have already exited.
            let _ = kill_process_group(group, Signal::TERM);
        }
        let _ = self.process.wait();
    }
}
