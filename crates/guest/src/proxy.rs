//! Makes the server's egress proxy reachable inside the sandbox. The guest listens on a loopback port and forwards each
//! connection unchanged to the server, which decides which hosts may be reached.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use herm_guest::protocol::{FromGuest, PROXY_PORT, VERSION};

use crate::link::Server;

/// The maximum number of connections that are forwarded at the same time. Further connections are immediately closed.
const MAX_CONNECTIONS: usize = 256;
/// The stack size of each thread that forwards one direction of a connection, in bytes.
const STACK_BYTES: usize = 64 * 1024;

/// Exists as long as a connection is active. Decrements the number of active connections when dropped.
struct ConnectionGuard(Arc<AtomicUsize>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Listens on the proxy port and forwards every connection to the server. Returns immediately; background threads do
/// the work.
pub(crate) fn start(server: Arc<Server>) -> io::Result<()> {
    let listener = TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, PROXY_PORT))?;
    let active = Arc::new(AtomicUsize::new(0));
    spawn(move || {
        // Ignore errors of `accept`: the program that opened the connection notices the failure itself.
        for stream in listener.incoming().flatten() {
            active.fetch_add(1, Ordering::AcqRel);
            let guard = ConnectionGuard(Arc::clone(&active));
            if active.load(Ordering::Acquire) <= MAX_CONNECTIONS {
                let server = Arc::clone(&server);
                // On an error, the connection is closed. Either no thread could be started, or the server could not be
                // reached.
                let _ = spawn(move || drop(forward(&stream, &server, guard)));
            }
        }
    })
}

fn forward(program: &TcpStream, server: &Server, _guard: ConnectionGuard) -> io::Result<()> {
    let outside = server.dial(&FromGuest::Carry { version: VERSION, token: server.token.clone() })?;
    // Remove the write timeout that `dial` has set: a slow destination is not an error.
    outside.set_write_timeout(None)?;
    program.set_nodelay(true)?;
    let (from_program, to_server) = (program.try_clone()?, outside.try_clone()?);
    let outward = thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
        // Tell the server that no more data follows, even if copying failed.
        let _ = io::copy(&mut &from_program, &mut &to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    })?;
    let _ = io::copy(&mut &outside, &mut &*program);
    let _ = program.shutdown(Shutdown::Write);
    close_after_upload(outward, program, &outside);
    Ok(())
}

/// Waits until the upload has finished, then closes both connections. The wait is needed because a program may still
/// send data after the download has ended. The upload also ends when the server closes its side.
fn close_after_upload(outward: thread::JoinHandle<()>, program: &TcpStream, outside: &UnixStream) {
    let _ = outward.join();
    let _ = outside.shutdown(Shutdown::Both);
    let _ = program.shutdown(Shutdown::Both);
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().stack_size(STACK_BYTES).spawn(work).map(drop)
}
