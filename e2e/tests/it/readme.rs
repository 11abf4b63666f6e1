//! The README's first deployment, run as it is written.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use herm_testkit::process::wait_until;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::scripts;
use crate::world::World;

const README: &str = include_str!("../../../README.md");
/// The port that the README's server takes.
const PORT: &str = "4376";

/// The shell commands below a heading.
fn commands_below(heading: &str) -> &'static str {
    let (_, section) = README.split_once(heading).unwrap();
    let (_, block) = section.split_once("```sh\n").unwrap();
    block.split_once("```").unwrap().0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_deployment_works_word_by_word() {
    let world = World::sqlite().await;
    world.model.respond_with(scripts::use_shell("echo 'Ships rest in harbours.' > haiku.txt; cat haiku.txt"));
    let walk = commands_below("## A first deployment");
    assert!(walk.lines().count() <= 10, "ten lines of shell were promised");
    // The binary is built already, and the usual port may be taken on this machine.
    let (install, walk) = walk.split_once('\n').unwrap();
    assert!(install.starts_with("cargo install "));
    let port = free_port();
    let walk = walk.replace(PORT, &port.to_string());
    let key = "sk-ant-…";
    assert!(walk.contains(key));
    let walk = walk.replace(key, "sk-ant-test");
    // What a reader waits for a second for is waited for as long as it takes: the server, and the stream's first frame.
    let serve = "herm serve & sleep 1";
    assert!(walk.contains(serve));
    let is_ready = format!("until curl -s -o /dev/null localhost:{port}/healthz; do sleep 0.05; done");
    let walk = walk.replace(serve, &format!("herm serve --listen 127.0.0.1:{port} & {is_ready}"));
    let stream = "/events -H \"$AUTH\" & sleep 1";
    assert!(walk.contains(stream));
    let is_open = "until grep -q '^id: evt_' ../output.txt; do sleep 0.05; done";
    let walk = walk.replace(stream, &stream.replace("sleep 1", is_open));
    let file = "echo; curl -s \"$AGENT/files/content?path=haiku.txt\" -H \"$AUTH\"";
    assert!(README.contains(file.trim_start_matches("echo; ")));

    let output = world.dir().join("output.txt");
    let folder = world.dir().join("empty");
    std::fs::create_dir(&folder).unwrap();
    let programs = world.serve.program().parent().unwrap().display().to_string();
    let shown = File::create(&output).unwrap();
    let shell = Command::new("bash")
        .args(["-c", &format!("{walk}\nuntil test -e ../completed; do sleep 0.05; done\n{file}\nwait")])
        .env_clear()
        .env("PATH", format!("{programs}:{}", std::env::var("PATH").unwrap()))
        .env("ANTHROPIC_BASE_URL", world.model.base_url())
        .current_dir(&folder)
        .stdin(Stdio::null())
        .stdout(shown.try_clone().unwrap())
        .stderr(shown)
        .process_group(0)
        .spawn()
        .unwrap();
    let _walk = Walk { shell, output: output.clone() };
    let has_shown = |text: &str| std::fs::read_to_string(&output).unwrap().contains(text);
    wait_until(|| has_shown("\"status\":\"completed\"")).await;
    File::create(world.dir().join("completed")).unwrap();
    wait_until(|| has_shown("\nShips rest in harbours.\n")).await;
    assert!(world.model.requests()[0].system().contains("You are the assistant of Acme Ltd."));
}

/// A free port that the kernel gives to nobody who asks for any, so that no other test has it before the server does.
fn free_port() -> u16 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let end: u32 = range.split_whitespace().next().unwrap().parse().unwrap();
    let (begin, own) = (end / 2, std::process::id());
    let mut ports = (0..end - begin).map(|tried| begin + (own * 16 + tried) % (end - begin));
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.by_ref().filter_map(|port| u16::try_from(port).ok()).find(is_free).unwrap()
}

/// The shell with all it began; ended with the test, whose failure shows what was printed.
struct Walk {
    shell: Child,
    output: PathBuf,
}

impl Drop for Walk {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", std::fs::read_to_string(&self.output).unwrap_or_default());
        }
        if let Some(group) = i32::try_from(self.shell.id()).ok().and_then(Pid::from_raw) {
            // A group that has ended already is what was wanted.
            let _ = kill_process_group(group, Signal::TERM);
        }
        let _ = self.shell.wait();
    }
}
