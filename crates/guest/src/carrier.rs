//! The way out: a proxy's address inside the sandbox, whose connections are carried to the server as they are. The
//! server decides what they reach.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use herm_guest::protocol::{FromGuest, PROXY_PORT, VERSION};

use crate::link::Server;

/// Connections that are carried at the same time; one more is closed at once.
const MAX_CARRIED: usize = 256;
/// The stack of a thread that carries one direction of a connection.
const STACK_BYTES: usize = 64 * 1024;

/// Counts the connections that are carried.
struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Carries what comes, on threads of its own.
pub(crate) fn start(server: Arc<Server>) -> io::Result<()> {
    let listener = TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, PROXY_PORT))?;
    let taken = Arc::new(AtomicUsize::new(0));
    spawn(move || {
        // A connection that fails before it is taken is the program's to notice.
        for stream in listener.incoming().flatten() {
            taken.fetch_add(1, Ordering::AcqRel);
            let seat = Seat(Arc::clone(&taken));
            if taken.load(Ordering::Acquire) <= MAX_CARRIED {
                let server = Arc::clone(&server);
                // Without a thread, or a server, the connection is closed.
                let _ = spawn(move || drop(carry(&stream, &server, seat)));
            }
        }
    })
}

fn carry(program: &TcpStream, server: &Server, _seat: Seat) -> io::Result<()> {
    let outside = server.dial(&FromGuest::Carry { version: VERSION, token: server.token.clone() })?;
    // A host that takes its time is no fault.
    outside.set_write_timeout(None)?;
    program.set_nodelay(true)?;
    let (from_program, to_server) = (program.try_clone()?, outside.try_clone()?);
    let outward = thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
        // Broken or ended: either way the other side learns that no more comes.
        let _ = io::copy(&mut &from_program, &mut &to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    })?;
    let _ = io::copy(&mut &outside, &mut &*program);
    let _ = program.shutdown(Shutdown::Write);
    close_when_quiet(outward, program, &outside);
    Ok(())
}

/// A program may go on sending after it has heard the end; the server says when that is of no use.
fn close_when_quiet(outward: thread::JoinHandle<()>, program: &TcpStream, outside: &UnixStream) {
    let _ = outward.join();
    let _ = outside.shutdown(Shutdown::Both);
    let _ = program.shutdown(Shutdown::Both);
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().stack_size(STACK_BYTES).spawn(work).map(drop)
}
