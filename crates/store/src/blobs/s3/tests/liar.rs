//! Something that listens where a gateway should.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Gives every connection the same answer, until it is dropped.
pub(super) struct Liar {
    address: SocketAddr,
    _serving: JoinSet<()>,
}

impl Liar {
    /// Answers every request with these bytes and closes the connection; with none, never.
    pub(super) async fn saying(answer: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                open.spawn(talk(stream, answer.clone()));
            }
        });
        Self {
            address,
            _serving: serving,
        }
    }

    /// Answers in HTTP.
    pub(super) async fn answering(status: &str, headers: &str, body: &str) -> Self {
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n\
             {body}"
        );
        Self::saying(Some(answer)).await
    }

    pub(super) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn talk(mut stream: TcpStream, answer: Option<String>) {
    let mut request = [0; 4096];
    let _heard = stream.read(&mut request).await;
    match answer {
        Some(answer) => {
            let _said = stream.write_all(answer.as_bytes()).await;
        }
        None => std::future::pending().await,
    }
}
