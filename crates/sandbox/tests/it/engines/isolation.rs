//! Tests that a sandbox is isolated from the host and from other sandboxes. Most attacks are also made outside a
//! sandbox, where they must succeed, to show that the attacks themselves work.

use herm_sandbox::Exit;
use herm_testkit::process::wait_until;
use herm_types::sandbox::SandboxType;
use tokio::net::TcpListener;

use super::{Host, LISTING, assert_fails_inside, every_engine, run, stdout_of, succeeds_outside};

every_engine![
    the_hosts_files_are_not_visible,
    another_sandboxs_workspace_and_processes_are_not_visible,
    there_is_no_network_and_no_access_to_the_hosts_loopback,
    the_servers_environment_is_not_inherited,
    only_the_workspace_and_temporary_directories_are_writable,
    commands_have_no_capabilities_and_cannot_gain_any,
    proc_files_about_the_whole_machine_are_hidden,
    a_command_that_impersonates_the_guest_is_rejected,
];

async fn the_hosts_files_are_not_visible(host: Host) {
    let sandbox = host.sandbox("one").await;
    let (data_dir, secret) = (host.dir.path().display().to_string(), host.dir.path().join("secret"));
    std::fs::write(&secret, "secret").unwrap();
    let here = env!("CARGO_MANIFEST_DIR");
    let attacks = [
        format!("cat {}", secret.display()),
        format!("ls {data_dir}"),
        format!("cat {data_dir}/sandboxes/one/token"),
        format!("ls {here}"),
        "ls /home/. /root/.".to_owned(),
        "ls /sys/class".to_owned(),
    ];
    for attack in attacks {
        assert_fails_inside(&sandbox, &attack).await;
    }
    if host.engine == SandboxType::Local {
        let seen = stdout_of(&sandbox, "ls -A /").await;
        let known =
            ["bin", "dev", "etc", "lib", "lib32", "lib64", "proc", "run", "sbin", "tmp", "usr", "workspace"];
        assert!(seen.lines().all(|name| known.contains(&name)), "{seen}");
    }
    host.stop().await;
}

async fn another_sandboxs_workspace_and_processes_are_not_visible(host: Host) {
    let (one, other) = (host.sandbox("one").await, host.sandbox("other").await);
    stdout_of(&other, "echo theirs > file; setsid sleep 98765 >/dev/null 2>&1 &").await;
    assert_eq!(stdout_of(&one, LISTING).await, "");
    // Wait until the process is visible on the host, to show that such a search can find it. Skip this on gVisor: the
    // host cannot see the processes in a gVisor sandbox.
    let is_seen = || {
        host.engine == SandboxType::Gvisor
            || succeeds_outside("cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -x 9876[5]")
    };
    wait_until(is_seen).await;
    assert_eq!(
        stdout_of(&one, "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -cx 9876[5] || true").await,
        "0\n"
    );
    assert_eq!(
        stdout_of(&one, "tr '\\0' ' ' < /proc/1/cmdline | cut -d ' ' -f 1").await,
        "/run/herm/guest\n"
    );
    host.stop().await;
}

async fn there_is_no_network_and_no_access_to_the_hosts_loopback(host: Host) {
    let sandbox = host.sandbox("one").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connect = format!("bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}'");
    assert_fails_inside(&sandbox, &connect).await;
    assert_eq!(stdout_of(&sandbox, "tail -n +3 /proc/net/dev | cut -d : -f 1 | tr -d ' '").await, "lo\n");
    assert_eq!(stdout_of(&sandbox, "tail -n +2 /proc/net/route").await, "");
    host.stop().await;
}

async fn the_servers_environment_is_not_inherited(host: Host) {
    let sandbox = host.sandbox("one").await;
    // The test process has this variable, because Cargo sets it for every test. The sandbox must not inherit it.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    let env = stdout_of(
        &sandbox,
        "cat /proc/1/environ /proc/self/environ | tr '\\0' '\\n' | cut -d = -f 1 | sort -u",
    )
    .await;
    let known =
        ["GREETING", "HOME", "HOSTNAME", "LANG", "OLDPWD", "PATH", "PWD", "SHLVL", "TERM", "USER", "_"];
    assert!(env.lines().all(|name| known.contains(&name)), "{env}");
    host.stop().await;
}

async fn only_the_workspace_and_temporary_directories_are_writable(host: Host) {
    let sandbox = host.sandbox("one").await;
    stdout_of(&sandbox, "echo mine > /workspace/file; echo mine > /tmp/file; echo mine > /dev/shm/file")
        .await;
    for place in
        ["/", "/usr", "/etc", "/bin/", "/lib/", "/run", "/run/herm", "/run/herm/socket", "/proc/sys/kernel"]
    {
        let outcome = run(&sandbox, &format!("echo x > {place}/intruder")).await;
        assert_ne!(outcome.exit, Exit::Code(0), "{place}");
    }
    for file in ["/run/herm/guest", "/etc/passwd", "/usr/bin/env", "/proc/sys/kernel/core_pattern"] {
        let outcome = run(&sandbox, &format!("echo x >> {file}")).await;
        assert_ne!(outcome.exit, Exit::Code(0), "{file}");
    }
    host.stop().await;
}

async fn commands_have_no_capabilities_and_cannot_gain_any(host: Host) {
    let sandbox = host.sandbox("one").await;
    let status =
        stdout_of(&sandbox, "grep -E '^(Cap|NoNewPrivs)' /proc/self/status | tr -d '[:blank:]'").await;
    let caps = ["CapPrm:0000000000000000", "CapEff:0000000000000000", "CapBnd:0000000000000000"];
    // gVisor does not report `NoNewPrivs` in `/proc/self/status`.
    let no_new_privs = (host.engine != SandboxType::Gvisor).then_some("NoNewPrivs:1");
    for line in caps.into_iter().chain(no_new_privs) {
        assert!(status.lines().any(|found| found == line), "{line} is not in {status}");
    }
    for attack in [
        "mount -t tmpfs none /tmp",
        "unshare -U true",
        "unshare -m true",
        "chroot / true",
        "mknod /tmp/sda b 8 0",
    ] {
        let outcome = run(&sandbox, attack).await;
        assert_ne!(outcome.exit, Exit::Code(0), "{attack}");
    }
    host.stop().await;
}

async fn proc_files_about_the_whole_machine_are_hidden(host: Host) {
    let sandbox = host.sandbox("one").await;
    for file in ["/proc/kallsyms", "/proc/keys", "/proc/timer_list", "/proc/vmallocinfo"] {
        if succeeds_outside(&format!("test -n \"$(head -c 1 {file})\"")) {
            assert_eq!(stdout_of(&sandbox, &format!("cat {file} | wc -c")).await, "0\n", "{file}");
        }
    }
    host.stop().await;
}

/// Commands can reach the socket on which the server listens for the guest. The server must reject a connection in
/// which a command presents a wrong token.
async fn a_command_that_impersonates_the_guest_is_rejected(host: Host) {
    let sandbox = host.sandbox("one").await;
    let hello = r#"import socket, struct
s = socket.socket(socket.AF_UNIX); s.connect("/run/herm/socket/guest.sock")
b = b'{"type":"hello","version":1,"token":"00000000000000000000000000000000"}'
s.sendall(struct.pack(">I", len(b)) + b)
try:
    print(len(s.recv(100)))
except ConnectionResetError:
    print(0)
"#;
    std::fs::write(host.workspace("one").join("dial.py"), hello).unwrap();
    assert_eq!(stdout_of(&sandbox, "/usr/bin/python3 dial.py").await, "0\n");
    assert_eq!(
        stdout_of(&sandbox, "echo the guest is still connected").await,
        "the guest is still connected\n"
    );
    host.stop().await;
}
