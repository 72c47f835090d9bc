//! A way to a frontend that a test can shut: one of several, as a worker sees it.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Carries connections to a frontend, while it is open.
pub(crate) struct Door {
    at: SocketAddr,
    frontend: String,
    silent: Arc<watch::Sender<bool>>,
    serving: JoinSet<()>,
}

impl Door {
    /// An open door to the frontend at `address`.
    pub(crate) async fn to(address: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut door = Self {
            at: listener.local_addr().unwrap(),
            frontend: address.strip_prefix("http://").unwrap().to_owned(),
            silent: Arc::new(watch::Sender::new(false)),
            serving: JoinSet::new(),
        };
        door.serve(listener);
        door
    }

    pub(crate) fn address(&self) -> String {
        format!("http://{}", self.at)
    }

    /// As if the frontend were killed: connections break, and no new one is made.
    pub(crate) async fn shut(&mut self) {
        self.serving.shutdown().await;
    }

    /// As if it were started again, or went on.
    pub(crate) async fn open(&mut self) {
        self.silent.send_replace(false);
        if self.serving.is_empty() {
            self.serve(TcpListener::bind(self.at).await.unwrap());
        }
    }

    /// As if it were stopped: connections are made, and nothing comes of them.
    pub(crate) fn silence(&self) {
        self.silent.send_replace(true);
    }

    fn serve(&mut self, listener: TcpListener) {
        let (frontend, silent) = (self.frontend.clone(), Arc::clone(&self.silent));
        self.serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((connection, _)) = listener.accept().await {
                connections.spawn(carry(connection, frontend.clone(), silent.subscribe()));
            }
        });
    }
}

async fn carry(mut from: TcpStream, frontend: String, mut silent: watch::Receiver<bool>) {
    silent.wait_for(|silent| !silent).await.unwrap();
    let mut to = TcpStream::connect(frontend).await.unwrap();
    let mut carrying = std::pin::pin!(copy_bidirectional(&mut from, &mut to));
    loop {
        tokio::select! {
            biased;
            // What was asked before is not answered either.
            () = hush(&mut silent) => {}
            carried = &mut carrying => return drop(carried),
        }
    }
}

/// Waits for silence, and for its end.
async fn hush(silent: &mut watch::Receiver<bool>) {
    for now in [true, false] {
        silent.wait_for(|silent| *silent == now).await.unwrap();
    }
}
