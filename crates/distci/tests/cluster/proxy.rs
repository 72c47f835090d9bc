//! A network that can be cut: a TCP proxy between one party and the servers it talks to.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, spawn};

use anyhow::Result;

/// What becomes of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// They pass.
    Open,
    /// They are held back, as when a cable is out: sockets stay open, and what was sent arrives
    /// after the healing, late.
    Silent,
    /// Connections are ended, and new ones end at once.
    Refused,
}

/// The line, and whose connections are on it.
struct State {
    line: Line,
    streams: Vec<TcpStream>,
    over: bool,
}

struct Switch {
    state: Mutex<State>,
    changed: Condvar,
}

impl Switch {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the line is not silent; says whether bytes pass.
    fn passes(&self) -> bool {
        let silent = |state: &mut State| state.line == Line::Silent && !state.over;
        let waited = self.changed.wait_while(self.lock(), silent);
        let state = waited.unwrap_or_else(PoisonError::into_inner);
        state.line == Line::Open && !state.over
    }

    fn turn(&self, line: Line) {
        let mut state = self.lock();
        state.line = line;
        if line == Line::Refused || state.over {
            for stream in state.streams.drain(..) {
                // It may have ended by itself.
                drop(stream.shutdown(Shutdown::Both));
            }
        }
        drop(state);
        self.changed.notify_all();
    }
}

/// A proxy for several servers with one switch. Dropped, it ends its connections.
pub(crate) struct Proxy {
    switch: Arc<Switch>,
    ports: Vec<u16>,
    listeners: Vec<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on one port for each of the servers.
    pub(crate) fn to(servers: &[u16]) -> Result<Self> {
        let state = Mutex::new(State {
            line: Line::Open,
            streams: Vec::new(),
            over: false,
        });
        let changed = Condvar::new();
        let mut proxy = Self {
            switch: Arc::new(Switch { state, changed }),
            ports: Vec::new(),
            listeners: Vec::new(),
        };
        for server in servers {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            proxy.ports.push(listener.local_addr()?.port());
            let switch = Arc::clone(&proxy.switch);
            let server = SocketAddr::from((Ipv4Addr::LOCALHOST, *server));
            let listening = spawn(move || listen(&listener, server, &switch));
            proxy.listeners.push(listening);
        }
        Ok(proxy)
    }

    /// Where the servers are, seen from the other side.
    pub(crate) fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// Cuts the line without a word.
    pub(crate) fn cut(&self) {
        self.switch.turn(Line::Silent);
    }

    /// Ends all connections and refuses new ones.
    pub(crate) fn refuse(&self) {
        self.switch.turn(Line::Refused);
    }

    /// Opens the line again. What was held back goes on its way.
    pub(crate) fn heal(&self) {
        self.switch.turn(Line::Open);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.switch.lock().over = true;
        self.switch.turn(Line::Refused);
        for port in &self.ports {
            // Wakes whoever waits for a connection.
            drop(TcpStream::connect((Ipv4Addr::LOCALHOST, *port)));
        }
        for listener in self.listeners.drain(..) {
            drop(listener.join());
        }
    }
}

fn listen(listener: &TcpListener, server: SocketAddr, switch: &Arc<Switch>) {
    for incoming in listener.incoming() {
        let passes = switch.passes();
        if switch.lock().over {
            return;
        }
        let Ok(incoming) = incoming else { continue };
        if passes && let Ok(outgoing) = TcpStream::connect(server) {
            // No descriptor is left: the peer sees its connection end.
            drop(join(&incoming, &outgoing, switch));
        }
    }
}

fn join(incoming: &TcpStream, outgoing: &TcpStream, switch: &Arc<Switch>) -> std::io::Result<()> {
    for stream in [incoming, outgoing] {
        stream.set_nodelay(true)?;
        let mut state = switch.lock();
        // Those that have ended have no peer any more.
        state.streams.retain(|stream| stream.peer_addr().is_ok());
        state.streams.push(stream.try_clone()?);
    }
    for (from, to) in [(incoming, outgoing), (outgoing, incoming)] {
        let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
        let switch = Arc::clone(switch);
        // Ends with its sockets, at the latest when the proxy is dropped.
        drop(spawn(move || {
            pump(&mut from, &mut to, &switch);
            drop(to.shutdown(Shutdown::Write));
            drop(from.shutdown(Shutdown::Read));
        }));
    }
    Ok(())
}

fn pump(from: &mut TcpStream, to: &mut TcpStream, switch: &Switch) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = match from.read(&mut buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => 0,
        };
        // The end of a connection is news too, and passes only where bytes do.
        if !switch.passes() || read == 0 || to.write_all(&buffer[..read]).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_line_is_silent_and_a_healed_one_delivers() -> Result<()> {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let proxy = Proxy::to(&[server.local_addr()?.port()])?;
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.ports()[0]))?;
        let (mut peer, _) = server.accept()?;
        let mut byte = [0];
        client.write_all(b"a")?;
        peer.read_exact(&mut byte)?;

        proxy.cut();
        client.write_all(b"b")?;
        peer.set_read_timeout(Some(std::time::Duration::from_millis(200)))?;
        assert!(peer.read(&mut byte).is_err(), "it came through");
        proxy.heal();
        peer.set_read_timeout(None)?;
        peer.read_exact(&mut byte)?;
        assert_eq!(&byte, b"b");

        proxy.refuse();
        assert_eq!(client.read(&mut byte).unwrap_or(0), 0);
        Ok(())
    }
}
