//! What an operator says about an ensemble.
//!
//! Owns the settings and their checks. Never prints a password.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zookeeper_client::{Acls, Client, Connector, SaslOptions, TlsOptions};

use super::session::OpenError;
use crate::coordination::NodePath;

/// Where the ensemble is, and who we are.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its servers: `host:port`, with commas between them.
    pub hosts: String,
    /// The node below which everything is, for example `/distci`; made if it is missing.
    pub chroot: String,
    /// How long the ensemble waits for a silent session before it ends it. Servers bend it into
    /// their own limits, 2 to 20 ticks if not configured.
    pub session_timeout: Duration,
    /// Who we are.
    pub identity: Identity,
    /// Certificates, if the servers are reached over TLS.
    pub tls: Option<Tls>,
}

/// Who a session is. With an identity, whatever it creates is for this identity only.
#[derive(Clone, PartialEq, Eq)]
pub enum Identity {
    /// Nobody: nodes are open to everybody who reaches the servers.
    Anonymous,
    /// A name and password that the servers do not check, but tell apart by (scheme `digest`).
    Digest {
        /// The name, without a colon.
        user: String,
        /// The password.
        password: String,
    },
    /// A name and password that the servers know (SASL with DIGEST-MD5).
    Sasl {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
}

/// The files, in PEM, for connections over TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Who vouches for the servers.
    pub ca: PathBuf,
    /// Our certificate, if the servers ask for one.
    pub certificate: Option<PathBuf>,
    /// The key of our certificate.
    pub key: Option<PathBuf>,
}

impl Settings {
    /// A connector with everything but the hosts.
    pub(super) fn connector(&self) -> Result<Connector, OpenError> {
        let connector = Client::connector().with_session_timeout(self.session_timeout);
        let connector = match &self.identity {
            Identity::Anonymous => connector,
            Identity::Digest { user, .. } if user.contains(':') => {
                return Err(OpenError::setting("the user has a colon in its name"));
            }
            Identity::Digest { user, password } => {
                connector.with_auth("digest", format!("{user}:{password}").as_bytes())
            }
            Identity::Sasl { user, password } => {
                connector.with_sasl(SaslOptions::digest_md5(user.clone(), password.clone()))
            }
        };
        match &self.tls {
            None => Ok(connector),
            Some(tls) => Ok(connector.with_tls(tls.options()?)),
        }
    }

    /// The chroot as a path, which is not the servers' own root: that holds what is not ours.
    pub(super) fn chroot(&self) -> Result<NodePath, OpenError> {
        match NodePath::parse(&self.chroot) {
            Ok(chroot) if !chroot.is_root() => Ok(chroot),
            Ok(_) => Err(OpenError::setting("the chroot must not be /")),
            Err(error) => Err(OpenError::setting(format!("as chroot, {error}"))),
        }
    }

    /// The servers, each with its port.
    pub(super) fn servers(&self) -> Result<Vec<String>, OpenError> {
        let fault = |host: &str| host.is_empty() || host.contains('/') || host.contains(' ');
        if let Some(host) = self.hosts.split(',').find(|host| fault(host)) {
            let reason = format!("{host:?} is not host:port");
            return Err(OpenError::setting(reason));
        }
        Ok(self.hosts.split(',').map(str::to_owned).collect())
    }
}

impl Identity {
    /// Who may use what we create.
    pub(super) const fn acls(&self) -> Acls<'static> {
        match self {
            Self::Anonymous => Acls::anyone_all(),
            Self::Digest { .. } | Self::Sasl { .. } => Acls::creator_all(),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("a client without identity"),
            Self::Digest { user, .. } | Self::Sasl { user, .. } => write!(f, "{user:?}"),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, user) = match self {
            Self::Anonymous => return f.write_str("Anonymous"),
            Self::Digest { user, .. } => ("Digest", user),
            Self::Sasl { user, .. } => ("Sasl", user),
        };
        let mut identity = f.debug_struct(name);
        identity.field("user", user).finish_non_exhaustive()
    }
}

impl Tls {
    fn options(&self) -> Result<TlsOptions, OpenError> {
        let bad = |path: &Path| {
            let path = path.to_owned();
            move |error: zookeeper_client::Error| OpenError::Certificate {
                path,
                source: error.into(),
            }
        };
        let options = TlsOptions::new().with_pem_ca(&read(&self.ca)?);
        let options = options.map_err(bad(&self.ca))?;
        match (&self.certificate, &self.key) {
            (None, None) => Ok(options),
            (Some(certificate), Some(key)) => options
                .with_pem_identity(&read(certificate)?, &read(key)?)
                .map_err(bad(certificate)),
            _ => Err(OpenError::setting(
                "a certificate needs its key, and a key its certificate",
            )),
        }
    }
}

fn read(path: &Path) -> Result<String, OpenError> {
    std::fs::read_to_string(path).map_err(|error| OpenError::Certificate {
        path: path.to_owned(),
        source: error.into(),
    })
}
