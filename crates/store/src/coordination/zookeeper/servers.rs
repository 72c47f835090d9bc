//! What each server of the ensemble says of itself, for people.
//!
//! Owns one question, `srvr`, by which a server that is asked without a session tells how it stands.
//! Never waits long, and decides nothing.

use std::time::Duration;

use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Settings;
use crate::coordination::{ServerFacts, ServerState};

/// How long a server may take, the connection included.
const PATIENCE: Duration = Duration::from_millis(250);
/// Longest answer that is read.
const LONGEST: u64 = 4096;

/// Asks all servers at once.
pub(super) async fn ask(settings: &Settings) -> Vec<ServerFacts> {
    let servers = settings.servers().unwrap_or_default();
    let is_plain = settings.tls.is_none();
    let asked = servers.into_iter().map(|address| async move {
        let state = if is_plain {
            let answer = timeout(PATIENCE, srvr(&address)).await;
            let answer = answer.map_err(|_| "does not answer".to_owned());
            answer.and_then(|answer| answer.map_err(|error| error.to_string()))
        } else {
            Err("is not asked over TLS".to_owned())
        };
        ServerFacts {
            state: state.and_then(|answer| read(&answer)),
            address,
        }
    });
    join_all(asked).await
}

async fn srvr(address: &str) -> std::io::Result<String> {
    let mut connection = TcpStream::connect(address).await?;
    connection.write_all(b"srvr").await?;
    let mut answer = String::new();
    connection.take(LONGEST).read_to_string(&mut answer).await?;
    Ok(answer)
}

/// What an answer tells, or why it tells nothing.
fn read(answer: &str) -> Result<ServerState, String> {
    let fact = |name: &str| {
        let mut lines = answer.lines();
        let found = lines.find_map(|line| line.strip_prefix(name))?;
        Some(found.trim().to_owned())
    };
    let Some(role) = fact("Mode:") else {
        return Err(if answer.contains("whitelist") {
            "does not allow `srvr`: set 4lw.commands.whitelist=srvr".to_owned()
        } else if answer.contains("not currently serving") {
            "serves nobody: it has no leader".to_owned()
        } else {
            "gives an answer that says nothing".to_owned()
        });
    };
    let version = fact("Zookeeper version:").unwrap_or_default();
    let version = version.split(['-', ',', ' ']).next().unwrap_or_default();
    Ok(ServerState {
        role,
        version: version.to_owned(),
        latency: fact("Latency min/avg/max:").unwrap_or_default(),
        connections: fact("Connections:").and_then(|number| number.parse().ok()),
        outstanding: fact("Outstanding:").and_then(|number| number.parse().ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read() {
        let answer = "Zookeeper version: 3.9.4-7246445ec281f3dbf53dc54e970c914f39713903, built on \
            2025-08-19 19:53 UTC\nLatency min/avg/max: 0/0.5312/21\nReceived: 51\nSent: 50\n\
            Connections: 3\nOutstanding: 0\nZxid: 0x100000005\nMode: follower\nNode count: 5\n";
        let state = read(answer).unwrap();
        assert_eq!(state.role, "follower");
        assert_eq!(state.version, "3.9.4");
        assert_eq!(state.latency, "0/0.5312/21");
        assert_eq!((state.connections, state.outstanding), (Some(3), Some(0)));
        for (answer, why) in [
            (
                "srvr is not executed because it is not in the whitelist.\n",
                "allow",
            ),
            (
                "This ZooKeeper instance is not currently serving requests\n",
                "leader",
            ),
            ("HTTP/1.1 400 Bad Request\r\n", "nothing"),
            ("", "nothing"),
        ] {
            assert!(
                read(answer).is_err_and(|said| said.contains(why)),
                "{answer}"
            );
        }
    }
}
