//! The seccomp filter. A system call that is not allowed fails with `ENOSYS`, as if the kernel did not support it.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

use super::calls::{ALLOWED, ARCHITECTURE_ALLOWED};

/// The flags of `clone` that create namespaces. A `clone` call with any of them is denied.
const NEW_NAMESPACES: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;
/// The bits of the `type` argument of `socket` that contain the socket type. The other bits are flags such as
/// `SOCK_CLOEXEC`.
const SOCKET_TYPE_MASK: u64 = 0xf;
/// The allowed arguments of `personality`: 0 sets the default personality, and 0xffffffff queries the current one.
const PERSONALITIES: [u64; 2] = [0, 0xffff_ffff];

pub(super) fn apply() -> io::Result<()> {
    let program = program().map_err(io::Error::other)?;
    apply_filter(&program).map_err(io::Error::other)
}

fn program() -> Result<BpfProgram, Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().chain(ARCHITECTURE_ALLOWED).map(|call| (*call, Vec::new())).collect();
    rules.insert(libc::SYS_clone, vec![rule([condition(0, masked(NEW_NAMESPACES), 0)?])?]);
    rules.insert(libc::SYS_socket, sockets()?);
    rules.insert(libc::SYS_personality, alternatives(0, &SeccompCmpOp::Eq, &PERSONALITIES)?);
    // Allow `mknod` for FIFOs, sockets and regular files, but not for device nodes.
    let kinds = [libc::S_IFIFO, libc::S_IFREG, libc::S_IFSOCK, 0].map(u64::from);
    let kind = SeccompCmpOp::MaskedEq(u64::from(libc::S_IFMT));
    rules.insert(libc::SYS_mknodat, alternatives(2, &kind, &kinds)?);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_mknod, alternatives(1, &kind, &kinds)?);
    let absent = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let architecture = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, absent, SeccompAction::Allow, architecture)?;
    Ok(filter.try_into()?)
}

/// Allows Unix, IPv4 and IPv6 sockets, except raw sockets. Also allows route netlink sockets, with which programs list
/// network addresses.
fn sockets() -> Result<Vec<SeccompRule>, Error> {
    let stream_or_datagram = |domain| {
        [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET].map(|kind| {
            let kind = condition(1, SeccompCmpOp::MaskedEq(SOCKET_TYPE_MASK), number(kind))?;
            rule([condition(0, SeccompCmpOp::Eq, number(domain))?, kind])
        })
    };
    let mut rules: Vec<SeccompRule> = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6]
        .into_iter()
        .flat_map(stream_or_datagram)
        .collect::<Result<_, Error>>()?;
    let netlink = condition(0, SeccompCmpOp::Eq, number(libc::AF_NETLINK))?;
    rules.push(rule([netlink, condition(2, SeccompCmpOp::Eq, number(libc::NETLINK_ROUTE))?])?);
    Ok(rules)
}

fn masked(bits: i32) -> SeccompCmpOp {
    SeccompCmpOp::MaskedEq(number(bits))
}

/// Converts a C constant to the value of a system call argument. The constant must not be negative.
fn number(constant: i32) -> u64 {
    u64::from(constant.cast_unsigned())
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, Error> {
    Ok(SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?)
}

/// Creates a rule that allows a system call if all of the conditions are met.
fn rule(conditions: impl Into<Vec<SeccompCondition>>) -> Result<SeccompRule, Error> {
    Ok(SeccompRule::new(conditions.into())?)
}

/// Creates rules that allow a system call if the given argument matches one of the values.
fn alternatives(argument: u8, operator: &SeccompCmpOp, values: &[u64]) -> Result<Vec<SeccompRule>, Error> {
    values.iter().map(|value| rule([condition(argument, operator.clone(), *value)?])).collect()
}
