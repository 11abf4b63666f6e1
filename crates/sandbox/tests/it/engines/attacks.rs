//! One test per attack, on every engine. Each attack has a control case that shows that the attack works: outside a
//! sandbox, as root, it succeeds.

use std::io::Write as _;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;

use herm_sandbox::workspace::{Workspace, WorkspacePath};
use herm_sandbox::{Exit, Sandbox};
use tokio::net::TcpListener;

use super::{Host, assert_fails_inside, docker_host, every_engine, run, stdout_of, succeeds_outside, text};

every_engine![
    the_engines_socket_is_not_visible,
    the_hosts_private_addresses_are_unreachable,
    raw_sockets_cannot_be_created,
    nothing_can_be_mounted,
    processes_cannot_be_traced,
    the_guests_memory_and_token_cannot_be_read,
    kernel_keyrings_are_inaccessible,
    namespaces_cannot_be_created,
    device_nodes_cannot_be_created,
    a_setuid_program_does_not_change_the_user,
    administrative_system_calls_are_unavailable,
    kernel_settings_and_the_kernel_log_are_inaccessible,
    the_servers_processes_are_not_visible,
    entries_in_the_workspace_do_not_lead_the_host_outside,
    files_outside_cannot_be_hard_linked_into_the_workspace,
];

/// Returns a Perl command that makes the system call with this number. The command fails only if the system call fails
/// with `ENOSYS` or `EPERM`.
fn call(number: u32, arguments: &str) -> String {
    format!(
        "perl -e '$r = syscall({number}, {arguments}); exit(($r < 0 && ($!+0 == 38 || $!+0 == 1)) ? 1 : 0)'"
    )
}

/// Asserts that `attack` fails in the sandbox. To show that the attack itself works, also asserts that `control`, a
/// variant of it, succeeds on the host.
async fn assert_attack_fails(sandbox: &Sandbox, attack: &str, control: &str) {
    assert!(succeeds_outside(control), "the control fails: {control}");
    let outcome = run(sandbox, attack).await;
    assert_ne!(outcome.exit, Exit::Code(0), "{attack}: {}", text(&outcome.stdout));
}

async fn the_engines_socket_is_not_visible(host: Host) {
    let sandbox = host.sandbox("one").await;
    let socket = docker_host().trim_start_matches("unix://").to_owned();
    assert_fails_inside(&sandbox, &format!("test -S {socket}")).await;
    assert_eq!(stdout_of(&sandbox, "find / -xdev -type s 2>/dev/null; true").await, "");
    host.stop().await;
}

async fn the_hosts_private_addresses_are_unreachable(host: Host) {
    let sandbox = host.sandbox("one").await;
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // Find the IP address of one of the host's network interfaces. Connecting a UDP socket sends no packet; it only
    // makes the kernel select a local address.
    let route = UdpSocket::bind("0.0.0.0:0").unwrap();
    route.connect("192.0.2.1:9").unwrap();
    for address in
        [route.local_addr().unwrap().ip().to_string(), "127.0.0.1".to_owned(), "127.1.2.3".to_owned()]
    {
        assert_fails_inside(&sandbox, &format!("bash -c 'exec 3<>/dev/tcp/{address}/{port}'")).await;
    }
    host.stop().await;
}

async fn raw_sockets_cannot_be_created(host: Host) {
    let sandbox = host.sandbox("one").await;
    // The domain, type and protocol of each socket: an ICMP, a packet, a raw IP and an audit netlink socket.
    for (domain, kind, protocol) in [(2, 3, 1), (17, 3, 3), (2, 3, 255), (16, 3, 9)] {
        let attack = format!("perl -e 'socket(S, {domain}, {kind}, {protocol}) or exit 1'");
        assert_fails_inside(&sandbox, &attack).await;
    }
    host.stop().await;
}

async fn nothing_can_be_mounted(host: Host) {
    let sandbox = host.sandbox("one").await;
    let mount =
        r#"perl -e '$n="none"; $d="/tmp"; $t="tmpfs"; exit(syscall(165, $n, $d, $t, 0, 0) == 0 ? 0 : 1)'"#;
    assert_attack_fails(&sandbox, mount, &format!("unshare -m {mount}")).await;
    let bind = r#"perl -e '$s="/"; $d="/tmp"; $t=""; exit(syscall(165, $s, $d, $t, 4096, 0) == 0 ? 0 : 1)'"#;
    assert_attack_fails(&sandbox, bind, &format!("unshare -m {bind}")).await;
    let open_again =
        r#"perl -e '$s=""; $d="/"; $t=""; exit(syscall(165, $s, $d, $t, 4128, 0) == 0 ? 0 : 1)'"#;
    assert_attack_fails(&sandbox, open_again, &format!("unshare -m {open_again}")).await;
    host.stop().await;
}

async fn processes_cannot_be_traced(host: Host) {
    let sandbox = host.sandbox("one").await;
    let child = "$p = fork(); if (!$p) { sleep 100; exit 0 }";
    let attach =
        format!("perl -e '{child} $r = syscall(101, 16, $p, 0, 0); kill 9, $p; exit($r == 0 ? 0 : 1)'");
    assert_fails_inside(&sandbox, &attach).await;
    host.stop().await;
}

async fn the_guests_memory_and_token_cannot_be_read(host: Host) {
    let sandbox = host.sandbox("one").await;
    // In the sandbox, `$PPID` is the guest. On the host, where the same command must succeed, it is this test's
    // process.
    assert_fails_inside(&sandbox, "perl -e 'open(F, \"<\", \"/proc/$ARGV[0]/mem\") or exit 1' $PPID").await;
    let outcome = run(&sandbox, "cat /run/herm/socket/token").await;
    assert_ne!(outcome.exit, Exit::Code(0), "{}", text(&outcome.stdout));
    // Only the copy of the token that the guest reads has been deleted. The server's copy still exists: a restarted
    // server needs it.
    let token = std::fs::read_to_string(host.dir.path().join("sandboxes/one/token")).unwrap();
    assert_eq!(token.len(), 32);
    host.stop().await;
}

async fn kernel_keyrings_are_inaccessible(host: Host) {
    let sandbox = host.sandbox("one").await;
    let add = r#"perl -e '$t="user"; $d="herm"; $p="x"; exit(syscall(248, $t, $d, $p, 1, -2) > 0 ? 0 : 1)'"#;
    assert_fails_inside(&sandbox, add).await;
    assert_fails_inside(&sandbox, &call(250, "0, -3, 1")).await;
    host.stop().await;
}

async fn namespaces_cannot_be_created(host: Host) {
    let sandbox = host.sandbox("one").await;
    for flags in ["0x10000000", "0x00020000", "0x40000000", "0x20000000"] {
        assert_fails_inside(&sandbox, &format!("perl -e 'exit(syscall(272, {flags}) == 0 ? 0 : 1)'")).await;
        // The system call above is `unshare`. Try the same flags with `clone`, too. The cloned child exits immediately.
        let clone = format!(
            "perl -e '$r = syscall(56, {flags} | 17, 0, 0, 0, 0); exit 0 if $r == 0; exit($r > 0 ? 0 : 1)'"
        );
        assert_fails_inside(&sandbox, &clone).await;
    }
    host.stop().await;
}

async fn device_nodes_cannot_be_created(host: Host) {
    let sandbox = host.sandbox("one").await;
    for kind in ["b 8 0", "c 1 1", "c 10 229"] {
        let make = |dir: &str| format!("mknod {dir}/herm-node-$$ {kind} && rm {dir}/herm-node-$$");
        assert_attack_fails(&sandbox, &make("/workspace"), &make("/var/tmp")).await;
        assert_attack_fails(&sandbox, &make("/tmp"), &make("/var/tmp")).await;
    }
    host.stop().await;
}

async fn a_setuid_program_does_not_change_the_user(host: Host) {
    let sandbox = host.sandbox("one").await;
    // Create the setuid program from the host, because commands in the sandbox cannot.
    let program = host.workspace("one").join("identity");
    std::fs::copy("/usr/bin/id", &program).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o6755)).unwrap();
    let elsewhere = format!("/var/tmp/herm-identity-{}", std::process::id());
    std::fs::copy("/usr/bin/id", &elsewhere).unwrap();
    std::fs::set_permissions(&elsewhere, std::fs::Permissions::from_mode(0o6755)).unwrap();
    let control = succeeds_outside(&format!(
        "test $(setpriv --reuid 65534 --regid 65534 --clear-groups {elsewhere} -u) = 0"
    ));
    std::fs::remove_file(&elsewhere).unwrap();
    assert!(control, "the control fails");
    assert_ne!(stdout_of(&sandbox, "./identity -u").await, "0\n");
    host.stop().await;
}

/// Makes each system call with invalid arguments. In the sandbox, each must fail with `ENOSYS` or `EPERM`. On the host,
/// those that the kernel supports fail with another error.
async fn administrative_system_calls_are_unavailable(host: Host) {
    let sandbox = host.sandbox("one").await;
    let calls = [
        101, 155, 161, 163, 165, 166, 167, 175, 179, 248, 249, 250, 272, 298, 304, 308, 310, 311, 312, 321,
        323, 425, 428, 429, 430, 438, 442,
    ];
    // Skip system calls that are unavailable even on the host: some kernels are built without them.
    let (known, unknown): (Vec<_>, Vec<_>) =
        calls.into_iter().partition(|number| succeeds_outside(&call(*number, "0, 0, 0, 0, 0, 0")));
    assert!(known.len() >= 20, "the controls of {unknown:?} fail");
    for number in known {
        assert_fails_inside(&sandbox, &call(number, "0, 0, 0, 0, 0, 0")).await;
    }
    host.stop().await;
}

async fn kernel_settings_and_the_kernel_log_are_inaccessible(host: Host) {
    let sandbox = host.sandbox("one").await;
    for file in
        ["/proc/sys/kernel/core_pattern", "/proc/sys/vm/overcommit_memory", "/proc/sys/kernel/hostname"]
    {
        let open = format!("perl -e 'open(F, \">\", \"{file}\") or exit 1'");
        assert_attack_fails(&sandbox, &format!("{open} && echo x > {file}"), &open).await;
    }
    assert_fails_inside(&sandbox, &call(103, "3, 0, 0")).await;
    assert_fails_inside(&sandbox, "test -e /sys/kernel/mm").await;
    host.stop().await;
}

async fn the_servers_processes_are_not_visible(host: Host) {
    let sandbox = host.sandbox("one").await;
    let own = std::process::id();
    let name = std::fs::read_to_string(format!("/proc/{own}/comm")).unwrap();
    assert_fails_inside(&sandbox, &format!("grep -qx '{}' /proc/[0-9]*/comm", name.trim())).await;
    let seen = stdout_of(&sandbox, "set -- /proc/[0-9]*; echo $#").await;
    assert!(seen.trim().parse::<u32>().unwrap() < 10, "{seen}");
    host.stop().await;
}

async fn entries_in_the_workspace_do_not_lead_the_host_outside(host: Host) {
    let sandbox = host.sandbox("one").await;
    let secret = host.dir.path().join("secret");
    std::fs::File::create(&secret).unwrap().write_all(b"secret").unwrap();
    let traps = format!(
        "ln -s {0} link; ln -s {1} dir; ln -s /proc/self/root root; mkfifo fifo; \
         perl -e 'use Socket; socket(S, PF_UNIX, SOCK_STREAM, 0); bind(S, pack_sockaddr_un(\"socket\")) or die'",
        secret.display(),
        host.dir.path().display()
    );
    stdout_of(&sandbox, &traps).await;
    let dir = host.workspace("one");
    assert_eq!(
        std::fs::read_to_string(dir.join("link")).unwrap(),
        "secret",
        "the control: following the link leads outside"
    );
    let path = |text: &str| WorkspacePath::parse(text).unwrap();
    let read = tokio::task::spawn_blocking(move || {
        let workspace = Workspace::create(&dir).unwrap();
        for trap in ["link", "dir/secret", "root/etc/passwd", "fifo", "socket"] {
            assert!(workspace.read(&path(trap), 100).is_err(), "{trap}");
            assert!(workspace.list(&path(trap)).is_err(), "{trap}");
        }
        // A write replaces the link itself with a regular file in the workspace.
        workspace.write_atomic(&path("link"), b"mine", 100).unwrap();
        assert!(workspace.write_atomic(&path("dir/secret"), b"mine", 100).is_err());
    });
    read.await.unwrap();
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
    assert_eq!(stdout_of(&sandbox, "cat link").await, "mine");
    host.stop().await;
}

async fn files_outside_cannot_be_hard_linked_into_the_workspace(host: Host) {
    let sandbox = host.sandbox("one").await;
    for source in
        ["/run/herm/guest", "/run/herm/ca.pem", "/etc/passwd", "/proc/1/exe", "/run/herm/socket/guest.sock"]
    {
        let attack = format!("ln {source} /workspace/linked-$$");
        let outcome = run(&sandbox, &attack).await;
        assert_ne!(outcome.exit, Exit::Code(0), "{attack}");
    }
    // Links to files inside the workspace can be created, so the attacks above did not fail for a more general reason.
    stdout_of(&sandbox, "echo x > file; ln file linked; ln -s file symlinked").await;
    host.stop().await;
}
