//! One test for each attack, on every engine. Each is a real one: its control succeeds outside of a sandbox, as root.

use std::io::Write as _;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;

use herm_sandbox::workspace::{Workspace, WorkspacePath};
use herm_sandbox::{Exit, Sandbox};
use tokio::net::TcpListener;

use super::{Host, docker_host, every_engine, fails_inside, run, said, succeeds_outside, text};

every_engine![
    the_engines_socket_is_not_there,
    a_private_address_of_the_host_is_not_reached,
    there_are_no_raw_sockets,
    nothing_is_mounted,
    no_process_is_traced_and_no_memory_read,
    the_guests_memory_and_its_token_are_not_read,
    kernel_keyrings_are_not_reached,
    there_are_no_namespaces_to_be_made,
    device_nodes_cannot_be_made,
    a_program_with_the_setuid_bit_changes_nobody,
    calls_for_administrators_are_not_there,
    the_kernels_settings_and_log_are_out_of_reach,
    the_servers_processes_are_not_seen,
    what_is_put_into_the_workspace_does_not_lead_the_host_out,
    nothing_outside_is_linked_into_the_workspace,
];

/// `perl` makes a call by its number; it succeeds unless the kernel says that there is no such call, or that it is not
/// for this program.
fn call(number: u32, arguments: &str) -> String {
    format!(
        "perl -e '$r = syscall({number}, {arguments}); exit(($r < 0 && ($!+0 == 38 || $!+0 == 1)) ? 1 : 0)'"
    )
}

/// The attack fails inside; its control, which does the same where it may, succeeds outside.
async fn fails(sandbox: &Sandbox, attack: &str, control: &str) {
    assert!(succeeds_outside(control), "the control fails: {control}");
    let outcome = run(sandbox, attack).await;
    assert_ne!(outcome.exit, Exit::Code(0), "{attack}: {}", text(&outcome.stdout));
}

async fn the_engines_socket_is_not_there(host: Host) {
    let sandbox = host.sandbox("one").await;
    let socket = docker_host().trim_start_matches("unix://").to_owned();
    fails_inside(&sandbox, &format!("test -S {socket}")).await;
    assert_eq!(said(&sandbox, "find / -xdev -type s 2>/dev/null; true").await, "");
    host.stop().await;
}

async fn a_private_address_of_the_host_is_not_reached(host: Host) {
    let sandbox = host.sandbox("one").await;
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // No packet is sent: the kernel only says from which address one would be.
    let route = UdpSocket::bind("0.0.0.0:0").unwrap();
    route.connect("192.0.2.1:9").unwrap();
    for address in
        [route.local_addr().unwrap().ip().to_string(), "127.0.0.1".to_owned(), "127.1.2.3".to_owned()]
    {
        fails_inside(&sandbox, &format!("bash -c 'exec 3<>/dev/tcp/{address}/{port}'")).await;
    }
    host.stop().await;
}

async fn there_are_no_raw_sockets(host: Host) {
    let sandbox = host.sandbox("one").await;
    // ICMP, whole packets, and what the kernel tells of its routes and its audit.
    for (domain, kind, protocol) in [(2, 3, 1), (17, 3, 3), (2, 3, 255), (16, 3, 9)] {
        let attack = format!("perl -e 'socket(S, {domain}, {kind}, {protocol}) or exit 1'");
        fails_inside(&sandbox, &attack).await;
    }
    host.stop().await;
}

async fn nothing_is_mounted(host: Host) {
    let sandbox = host.sandbox("one").await;
    let mount =
        r#"perl -e '$n="none"; $d="/tmp"; $t="tmpfs"; exit(syscall(165, $n, $d, $t, 0, 0) == 0 ? 0 : 1)'"#;
    fails(&sandbox, mount, &format!("unshare -m {mount}")).await;
    let bind = r#"perl -e '$s="/"; $d="/tmp"; $t=""; exit(syscall(165, $s, $d, $t, 4096, 0) == 0 ? 0 : 1)'"#;
    fails(&sandbox, bind, &format!("unshare -m {bind}")).await;
    let open_again =
        r#"perl -e '$s=""; $d="/"; $t=""; exit(syscall(165, $s, $d, $t, 4128, 0) == 0 ? 0 : 1)'"#;
    fails(&sandbox, open_again, &format!("unshare -m {open_again}")).await;
    host.stop().await;
}

async fn no_process_is_traced_and_no_memory_read(host: Host) {
    let sandbox = host.sandbox("one").await;
    let child = "$p = fork(); if (!$p) { sleep 100; exit 0 }";
    let attach =
        format!("perl -e '{child} $r = syscall(101, 16, $p, 0, 0); kill 9, $p; exit($r == 0 ? 0 : 1)'");
    fails_inside(&sandbox, &attach).await;
    host.stop().await;
}

async fn the_guests_memory_and_its_token_are_not_read(host: Host) {
    let sandbox = host.sandbox("one").await;
    // The parent of a command is the guest; outside it is this test.
    fails_inside(&sandbox, "perl -e 'open(F, \"<\", \"/proc/$ARGV[0]/mem\") or exit 1' $PPID").await;
    let outcome = run(&sandbox, "cat /run/herm/socket/token").await;
    assert_ne!(outcome.exit, Exit::Code(0), "{}", text(&outcome.stdout));
    // It was there for the guest, and is still there for the servers to come.
    let token = std::fs::read_to_string(host.dir.path().join("sandboxes/one/token")).unwrap();
    assert_eq!(token.len(), 32);
    host.stop().await;
}

async fn kernel_keyrings_are_not_reached(host: Host) {
    let sandbox = host.sandbox("one").await;
    let add = r#"perl -e '$t="user"; $d="herm"; $p="x"; exit(syscall(248, $t, $d, $p, 1, -2) > 0 ? 0 : 1)'"#;
    fails_inside(&sandbox, add).await;
    fails_inside(&sandbox, &call(250, "0, -3, 1")).await;
    host.stop().await;
}

async fn there_are_no_namespaces_to_be_made(host: Host) {
    let sandbox = host.sandbox("one").await;
    for flags in ["0x10000000", "0x00020000", "0x40000000", "0x20000000"] {
        fails_inside(&sandbox, &format!("perl -e 'exit(syscall(272, {flags}) == 0 ? 0 : 1)'")).await;
        // By `clone` too, whose child ends at once.
        let clone = format!(
            "perl -e '$r = syscall(56, {flags} | 17, 0, 0, 0, 0); exit 0 if $r == 0; exit($r > 0 ? 0 : 1)'"
        );
        fails_inside(&sandbox, &clone).await;
    }
    host.stop().await;
}

async fn device_nodes_cannot_be_made(host: Host) {
    let sandbox = host.sandbox("one").await;
    for kind in ["b 8 0", "c 1 1", "c 10 229"] {
        let make = |dir: &str| format!("mknod {dir}/herm-node-$$ {kind} && rm {dir}/herm-node-$$");
        fails(&sandbox, &make("/workspace"), &make("/var/tmp")).await;
        fails(&sandbox, &make("/tmp"), &make("/var/tmp")).await;
    }
    host.stop().await;
}

async fn a_program_with_the_setuid_bit_changes_nobody(host: Host) {
    let sandbox = host.sandbox("one").await;
    // As if somebody had managed to put one there.
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
    assert_ne!(said(&sandbox, "./identity -u").await, "0\n");
    host.stop().await;
}

/// With arguments that make no sense; a kernel that has the call says so, outside.
async fn calls_for_administrators_are_not_there(host: Host) {
    let sandbox = host.sandbox("one").await;
    let calls = [
        101, 155, 161, 163, 165, 166, 167, 175, 179, 248, 249, 250, 272, 298, 304, 308, 310, 311, 312, 321,
        323, 425, 428, 429, 430, 438, 442,
    ];
    // Kernels are built without some of them.
    let (known, unknown): (Vec<_>, Vec<_>) =
        calls.into_iter().partition(|number| succeeds_outside(&call(*number, "0, 0, 0, 0, 0, 0")));
    assert!(known.len() >= 20, "the controls of {unknown:?} fail");
    for number in known {
        fails_inside(&sandbox, &call(number, "0, 0, 0, 0, 0, 0")).await;
    }
    host.stop().await;
}

async fn the_kernels_settings_and_log_are_out_of_reach(host: Host) {
    let sandbox = host.sandbox("one").await;
    for file in
        ["/proc/sys/kernel/core_pattern", "/proc/sys/vm/overcommit_memory", "/proc/sys/kernel/hostname"]
    {
        let open = format!("perl -e 'open(F, \">\", \"{file}\") or exit 1'");
        fails(&sandbox, &format!("{open} && echo x > {file}"), &open).await;
    }
    fails_inside(&sandbox, &call(103, "3, 0, 0")).await;
    fails_inside(&sandbox, "test -e /sys/kernel/mm").await;
    host.stop().await;
}

async fn the_servers_processes_are_not_seen(host: Host) {
    let sandbox = host.sandbox("one").await;
    let own = std::process::id();
    let named = std::fs::read_to_string(format!("/proc/{own}/comm")).unwrap();
    fails_inside(&sandbox, &format!("grep -qx '{}' /proc/[0-9]*/comm", named.trim())).await;
    let seen = said(&sandbox, "set -- /proc/[0-9]*; echo $#").await;
    assert!(seen.trim().parse::<u32>().unwrap() < 10, "{seen}");
    host.stop().await;
}

async fn what_is_put_into_the_workspace_does_not_lead_the_host_out(host: Host) {
    let sandbox = host.sandbox("one").await;
    let secret = host.dir.path().join("secret");
    std::fs::File::create(&secret).unwrap().write_all(b"secret").unwrap();
    let traps = format!(
        "ln -s {0} link; ln -s {1} dir; ln -s /proc/self/root root; mkfifo fifo; \
         perl -e 'use Socket; socket(S, PF_UNIX, SOCK_STREAM, 0); bind(S, pack_sockaddr_un(\"socket\")) or die'",
        secret.display(),
        host.dir.path().display()
    );
    said(&sandbox, &traps).await;
    let dir = host.workspace("one");
    assert_eq!(
        std::fs::read_to_string(dir.join("link")).unwrap(),
        "secret",
        "the control: followed, it leads out"
    );
    let path = |text: &str| WorkspacePath::parse(text).unwrap();
    let read = tokio::task::spawn_blocking(move || {
        let workspace = Workspace::create(&dir).unwrap();
        for trap in ["link", "dir/secret", "root/etc/passwd", "fifo", "socket"] {
            assert!(workspace.read(&path(trap), 100).is_err(), "{trap}");
            assert!(workspace.list(&path(trap)).is_err(), "{trap}");
        }
        // A file in the place of a link is a file in the workspace.
        workspace.write_atomic(&path("link"), b"mine", 100).unwrap();
        assert!(workspace.write_atomic(&path("dir/secret"), b"mine", 100).is_err());
    });
    read.await.unwrap();
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
    assert_eq!(said(&sandbox, "cat link").await, "mine");
    host.stop().await;
}

async fn nothing_outside_is_linked_into_the_workspace(host: Host) {
    let sandbox = host.sandbox("one").await;
    for source in
        ["/run/herm/guest", "/run/herm/ca.pem", "/etc/passwd", "/proc/1/exe", "/run/herm/socket/guest.sock"]
    {
        let attack = format!("ln {source} /workspace/linked-$$");
        let outcome = run(&sandbox, &attack).await;
        assert_ne!(outcome.exit, Exit::Code(0), "{attack}");
    }
    // The control: what is inside can be linked.
    said(&sandbox, "echo x > file; ln file linked; ln -s file symlinked").await;
    host.stop().await;
}
