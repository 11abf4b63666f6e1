//! The filter of system calls: what is not on the list is answered as if this kernel had no such call.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

use super::calls::{ALLOWED, ARCHITECTURE_ALLOWED};

/// Flags of `clone` that make a namespace.
const NEW_NAMESPACES: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;
/// Bits of a socket's type that are not flags.
const SOCKET_TYPE_MASK: u64 = 0xf;
/// `personality` with these arguments asks, or says what is so anyway.
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
    // Devices can't be made; FIFOs and files can.
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

/// Sockets between processes and over the network, but no raw ones; of the kernel's own, the one that tells which
/// addresses there are.
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

/// The bits of a C constant; all that are used here are not negative.
fn number(constant: i32) -> u64 {
    u64::from(constant.cast_unsigned())
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, Error> {
    Ok(SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?)
}

/// Lets a call pass if all conditions hold.
fn rule(conditions: impl Into<Vec<SeccompCondition>>) -> Result<SeccompRule, Error> {
    Ok(SeccompRule::new(conditions.into())?)
}

/// Lets a call pass if an argument is one of these values.
fn alternatives(argument: u8, operator: &SeccompCmpOp, values: &[u64]) -> Result<Vec<SeccompRule>, Error> {
    values.iter().map(|value| rule([condition(argument, operator.clone(), *value)?])).collect()
}
