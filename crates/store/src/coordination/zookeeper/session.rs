//! The beginning of a session, and why there is none.
//!
//! Owns the order of the first requests and the words for operators. Never tries again by itself:
//! that is the keeper's.

use std::path::PathBuf;
use std::time::Duration;

use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use zookeeper_client::{
    AddWatchMode, Client, CreateMode, Error, MultiWriteResult, PersistentWatcher,
};

use super::settings::Settings;
use super::{NOWHERE, REPLY, time};
use crate::coordination::NodePath;

/// How long a server may take to accept a connection when we look for the reason of a failure.
const PROBE: Duration = Duration::from_secs(1);

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The settings cannot be meant so.
    #[error("ZooKeeper settings: {reason}")]
    Setting {
        /// What is wrong.
        reason: String,
    },
    /// A file with certificates or a key cannot be used.
    #[error("{} cannot be used for ZooKeeper", .path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No server gave a session in time.
    #[error("no session with ZooKeeper: {}", .servers.join("; "))]
    Unreachable {
        /// What each server did.
        servers: Vec<String>,
    },
    /// The servers that answer have lost the others and only let read.
    #[error("ZooKeeper at {hosts} is read-only: most of its servers are down or out of its reach")]
    ReadOnly {
        /// The servers.
        hosts: String,
    },
    /// The servers do not accept who we say we are.
    #[error("ZooKeeper at {hosts} does not accept the password of {identity}")]
    Authentication {
        /// The servers.
        hosts: String,
        /// Who we said we are.
        identity: String,
    },
    /// The servers lack what we need.
    #[error(
        "ZooKeeper at {hosts} is too old: it has no recursive watches. \
         Run version 3.6 or later, best 3.9.4 or later"
    )]
    TooOld {
        /// The servers.
        hosts: String,
    },
    /// The access list of a node does not let us in.
    #[error(
        "ZooKeeper at {hosts} does not let {identity} use {path}: \
         look at its access list (getAcl), or use the identity that made it"
    )]
    Access {
        /// The servers.
        hosts: String,
        /// Who we are to them.
        identity: String,
        /// The node.
        path: String,
    },
    /// The session began, but broke off before it could be used.
    #[error("ZooKeeper at {hosts} broke off")]
    Lost {
        /// The servers.
        hosts: String,
        /// How.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl OpenError {
    pub(super) fn setting(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self::Setting { reason }
    }

    /// What an error in the first requests tells an operator.
    pub(super) fn from_request(settings: &Settings, path: &str, error: Error) -> Self {
        let hosts = settings.hosts.clone();
        let identity = settings.identity.to_string();
        match error {
            Error::AuthFailed => Self::Authentication { hosts, identity },
            Error::NoAuth | Error::InvalidAcl => {
                let path = path.to_owned();
                Self::Access {
                    hosts,
                    identity,
                    path,
                }
            }
            Error::Unimplemented => Self::TooOld { hosts },
            Error::NotReadOnly => Self::ReadOnly { hosts },
            error => Self::Lost {
                hosts,
                source: error.into(),
            },
        }
    }
}

/// A session that can be used.
pub(super) struct Session {
    /// Sees the chroot as the root.
    pub(super) client: Client,
    /// A watch of nothing, which tells of the session's own fate in line with all replies.
    pub(super) lifeline: PersistentWatcher,
    /// When the session began by the leader's clock, in milliseconds.
    pub(super) began: i64,
}

/// Begins a session and proves that it can be used.
pub(super) async fn open(settings: &Settings) -> Result<Session, OpenError> {
    let client = connect(settings).await?;
    let chroot = settings.chroot()?;
    match timeout(REPLY, prepare(settings, client, &chroot)).await {
        Ok(session) => session,
        Err(_) => Err(OpenError::from_request(settings, "", Error::Timeout)),
    }
}

/// Makes everything that the session's leader accepted so far visible to its later reads. A
/// `sync` would not do, for its answer is not a quorum's; a check alone in a multi is a proposal
/// like any other.
pub(super) async fn catch_up(client: &Client) -> Result<(), Error> {
    client.new_check_writer("/", None)?.commit().await?;
    Ok(())
}

async fn connect(settings: &Settings) -> Result<Client, OpenError> {
    let servers = settings.servers()?;
    settings.chroot()?;
    let connector = settings.connector()?;
    let session = async {
        match settings.tls {
            None => connector.connect(&settings.hosts).await,
            Some(_) => connector.secure_connect(&settings.hosts).await,
        }
    };
    // The client's own limit is the session's timeout; this one is for all that it forgets.
    match timeout(settings.session_timeout + PROBE, session).await {
        Ok(Ok(client)) => Ok(client),
        Ok(Err(Error::AuthFailed)) => Err(OpenError::from_request(settings, "", Error::AuthFailed)),
        Ok(Err(_)) | Err(_) => Err(diagnose(settings, &servers).await),
    }
}

/// Looks for the reason why no server gives a session.
async fn diagnose(settings: &Settings, servers: &[String]) -> OpenError {
    let is_plain = settings.tls.is_none();
    let findings = join_all(servers.iter().map(|server| probe(server, is_plain))).await;
    if findings.contains(&Finding::ReadOnly) {
        let hosts = settings.hosts.clone();
        return OpenError::ReadOnly { hosts };
    }
    let findings = servers.iter().zip(findings);
    let servers = findings.map(|(server, finding)| finding.to_text(server));
    OpenError::Unreachable {
        servers: servers.collect(),
    }
}

/// What a server does that gives no session.
#[derive(PartialEq, Eq)]
enum Finding {
    Refuses(String),
    Silent,
    ReadOnly,
    Leaderless,
    Unclear,
}

impl Finding {
    fn to_text(&self, server: &str) -> String {
        match self {
            Self::Refuses(error) => format!("{server}: {error}"),
            Self::Silent => format!("{server} does not answer"),
            Self::ReadOnly => format!("{server} is read-only"),
            Self::Leaderless => format!("{server} has no leader: most servers are down"),
            Self::Unclear => format!(
                "{server} accepts connections but gives no session: it has no leader, or one of \
                 us uses TLS and the other does not, or a certificate is refused"
            ),
        }
    }
}

/// Calls a server, and asks it by a word of four letters whether it can be written. Not every
/// server answers that, and none does so over TLS.
async fn probe(server: &str, is_plain: bool) -> Finding {
    let mut connection = match timeout(PROBE, TcpStream::connect(server)).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return Finding::Refuses(error.to_string()),
        Err(_) => return Finding::Silent,
    };
    if !is_plain {
        return Finding::Unclear;
    }
    let answer = async {
        let mut answer = String::new();
        connection.write_all(b"isro").await?;
        connection.take(64).read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    match timeout(PROBE, answer).await {
        Ok(Ok(answer)) if answer == "ro" => Finding::ReadOnly,
        Ok(Ok(answer)) if answer == "null" => Finding::Leaderless,
        _ => Finding::Unclear,
    }
}

async fn prepare(
    settings: &Settings,
    client: Client,
    chroot: &NodePath,
) -> Result<Session, OpenError> {
    let bad = |path: &str| {
        let path = path.to_owned();
        move |error| OpenError::from_request(settings, &path, error)
    };
    let top = client.clone();
    let not_a_path = |_| OpenError::setting("the chroot is no path");
    let client = client.chroot(chroot.as_str()).map_err(not_a_path)?;
    let lifeline = client.watch(NOWHERE, AddWatchMode::PersistentRecursive);
    let lifeline = lifeline.await.map_err(bad(chroot.as_str()))?;
    make_chroot(settings, &top, chroot).await?;
    let began = try_out(settings, &client).await;
    Ok(Session {
        began: began.map_err(bad(chroot.as_str()))?,
        lifeline,
        client,
    })
}

async fn make_chroot(
    settings: &Settings,
    client: &Client,
    chroot: &NodePath,
) -> Result<(), OpenError> {
    let options = CreateMode::Persistent.with_acls(settings.identity.acls());
    let above = std::iter::successors(Some(chroot.clone()), NodePath::parent);
    let mut levels: Vec<_> = above.filter(|path| !path.is_root()).collect();
    levels.reverse();
    for level in levels {
        let path = level.as_str();
        // A level that is there may forbid what making it would need.
        let made = match client.check_stat(path).await {
            Ok(Some(_)) => continue,
            Ok(None) => client.create(path, &[], &options).await.map(drop),
            Err(error) => Err(error),
        };
        match made {
            Ok(()) | Err(Error::NodeExists) => {}
            Err(error) => return Err(OpenError::from_request(settings, path, error)),
        }
    }
    Ok(())
}

/// Does everything that a session must be allowed to do, and leaves nothing.
async fn try_out(settings: &Settings, client: &Client) -> Result<i64, Error> {
    const TRIAL: &str = "/.trial";
    let options = CreateMode::Ephemeral.with_acls(settings.identity.acls());
    client.list_children("/").await?;
    let mut writer = client.new_multi_writer();
    writer.add_create(TRIAL, &[], &options)?;
    writer.add_set_data(TRIAL, &[], None)?;
    writer.add_delete(TRIAL, None)?;
    let results: Vec<MultiWriteResult> = writer.commit().await?;
    Ok(results.iter().filter_map(time).max().unwrap_or_default())
}
