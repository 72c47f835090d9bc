//! The configuration of a frontend, `distci frontend --config FILE`.
//!
//! Owns the file's form, its defaults, and the reading of the secrets that it names. Everything
//! that is wrong is told at once, with its place. Never holds a secret from the file itself, and
//! never shows one.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use distci_client::Token;
use distci_frontend::HookSecrets;
use distci_model::config::ConfigProblem;
use distci_model::event::Source;

use crate::document::{Document, Section, Wrong};
use crate::exit::Ended;

/// The commented sample: the file with everything that can be said.
pub(crate) const SAMPLE: &str = include_str!("config/sample.toml");

/// Where a frontend listens unless it is told.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7171);
/// Seconds of ZooKeeper's session.
const SESSION: u64 = 10;
/// The port of ZooKeeper.
const ZOOKEEPER_PORT: u16 = 2181;
/// The region of an S3 store that has none.
const REGION: &str = "us-east-1";
const TOKEN_ADVICE: &str = "all frontends of a cluster share one token; make it by \
     `(umask 077; openssl rand -hex 32 > token)`";

/// What a frontend is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// Where to listen.
    pub(crate) listen: Vec<SocketAddr>,
    /// Where people reach this DistCI, if that is told.
    pub(crate) public_url: Option<String>,
    /// What opens the API; without one, that of the data folder.
    pub(crate) token: Option<Token>,
    /// The shared store; without one, that of the data folder.
    pub(crate) cluster: Option<Cluster>,
    /// The secrets of forges whose webhooks are taken.
    pub(crate) hooks: HookSecrets,
    /// Files with secrets that others can read.
    pub(crate) exposed: Vec<PathBuf>,
}

/// The shared store of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cluster {
    pub(crate) zookeeper: ZooKeeper,
    pub(crate) s3: S3,
}

/// `[zookeeper]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ZooKeeper {
    /// Each with its port.
    pub(crate) hosts: Vec<String>,
    pub(crate) chroot: String,
    pub(crate) session_timeout: Duration,
    pub(crate) identity: Option<Identity>,
    pub(crate) tls: Option<Tls>,
}

/// Who we are to ZooKeeper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) mechanism: Mechanism,
    pub(crate) user: String,
    pub(crate) password: Secret,
}

/// How ZooKeeper is told who we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mechanism {
    /// ZooKeeper's own scheme of users and passwords.
    Digest,
    /// SASL with DIGEST-MD5.
    Sasl,
}

/// `[zookeeper.tls]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tls {
    pub(crate) ca: PathBuf,
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

/// `[s3]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct S3 {
    pub(crate) endpoints: Vec<String>,
    pub(crate) bucket: String,
    pub(crate) region: String,
    pub(crate) access_key: String,
    pub(crate) secret_key: Secret,
    pub(crate) prefix: Option<String>,
    pub(crate) signed_urls: bool,
}

/// What must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    /// The secret itself, for whom it is meant.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

impl Default for Config {
    /// What holds without a file.
    fn default() -> Self {
        Self {
            listen: vec![LISTEN],
            public_url: None,
            token: None,
            cluster: None,
            hooks: HookSecrets::default(),
            exposed: Vec::new(),
        }
    }
}

impl Config {
    /// Reads the file and the secrets that it names.
    ///
    /// # Errors
    /// One line for each thing that is wrong.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let place = || format!("configuration {}", path.display());
        let text = std::fs::read_to_string(path).with_context(place)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self::parse(&text, folder, &environment).map_err(|problems| wrong_file(path, &problems))
    }

    fn parse(
        text: &str,
        folder: &Path,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Vec<ConfigProblem>> {
        let around = Around {
            folder,
            environment,
        };
        let config = Document::read(text, |top| around.config(top))?;
        for file in &config.exposed {
            tracing::warn!("{} can be read by others: chmod 600 it", file.display());
        }
        Ok(config)
    }
}

/// One line for each thing that is wrong in a file of settings.
pub(crate) fn wrong_file(path: &Path, problems: &[ConfigProblem]) -> anyhow::Error {
    let file = path.display();
    let lines = problems
        .iter()
        .map(|problem| format!("\n  {file}:{problem}"));
    let lines = lines.collect::<String>();
    Ended::unusable(format!("the configuration is wrong:{lines}"))
}

/// What a configuration refers to beside its own text.
struct Around<'a> {
    folder: &'a Path,
    environment: &'a dyn Fn(&str) -> Option<String>,
}

/// What is read may be missing because it is wrong, which was told then: each part is read before
/// any is given up.
impl Around<'_> {
    fn config(&self, top: &Section<'_, '_>) -> Option<Config> {
        let mut exposed = Vec::new();
        let listen = if top.has("listen") {
            top.texts("listen", address)
        } else {
            Some(vec![LISTEN])
        };
        let public_url = top.text("public-url", public_url);
        top.refuse_secret(
            "token",
            "write it into a file and name that as `token-file`",
        );
        let token = top.text("token-file", |name| {
            let secret = self.secret(name, &mut exposed);
            let secret = secret.map_err(|wrong| wrong.with_help(TOKEN_ADVICE))?;
            let token: Result<Token, _> = secret.0.parse();
            token.map_err(|error| Wrong::new(error.to_string()))
        });
        let hooks = top.section("hooks", |hooks| Some(self.hooks(hooks, &mut exposed)));
        let zookeeper = top.section("zookeeper", |zookeeper| {
            self.zookeeper(zookeeper, &mut exposed)
        });
        let s3 = top.section("s3", |s3| self.s3(s3, &mut exposed));
        for (there, other) in [("zookeeper", "s3"), ("s3", "zookeeper")] {
            if top.has(there) && !top.has(other) {
                let wrong = Wrong::new(format!("a cluster needs `[{other}]`, too"));
                top.complain_of(there, wrong);
            }
        }
        let shared = top.has("zookeeper") || top.has("s3");
        if shared && !top.has("token-file") {
            top.complain_of(
                "token-file",
                Wrong::new("is missing").with_help(TOKEN_ADVICE),
            );
        }
        let cluster = match (shared, zookeeper, s3) {
            (false, _, _) => None,
            (true, zookeeper, s3) => Some(Cluster {
                zookeeper: zookeeper?,
                s3: s3?,
            }),
        };
        Some(Config {
            listen: listen?,
            public_url,
            token,
            cluster,
            hooks: hooks.unwrap_or_default(),
            exposed,
        })
    }

    fn hooks(&self, section: &Section<'_, '_>, exposed: &mut Vec<PathBuf>) -> HookSecrets {
        let mut secrets = HookSecrets::default();
        for (source, key, bare) in [
            (Source::Github, "github-secret-file", "github-secret"),
            (Source::Gitlab, "gitlab-secret-file", "gitlab-secret"),
            (Source::Gitea, "gitea-secret-file", "gitea-secret"),
            (
                Source::Bitbucket,
                "bitbucket-secret-file",
                "bitbucket-secret",
            ),
        ] {
            let advice = format!("write it into a file and name that as `{key}`");
            section.refuse_secret(bare, &advice);
            let secret = section.text(key, |name| self.secret(name, exposed));
            if let Some(lines) = secret {
                secrets.add(source, lines.reveal());
            }
        }
        secrets
    }

    fn zookeeper(
        &self,
        section: &Section<'_, '_>,
        exposed: &mut Vec<PathBuf>,
    ) -> Option<ZooKeeper> {
        let hosts = section.needed_texts("hosts", host);
        let chroot = section.needed("chroot", chroot);
        let seconds = section.number("session-timeout", 4..=40);
        let identity = self.identity(section, exposed);
        let tls = section.section("tls", |tls| self.tls(tls, exposed));
        Some(ZooKeeper {
            hosts: hosts?,
            chroot: chroot?,
            session_timeout: Duration::from_secs(seconds.unwrap_or(SESSION)),
            identity,
            tls,
        })
    }

    fn identity(&self, section: &Section<'_, '_>, exposed: &mut Vec<PathBuf>) -> Option<Identity> {
        section.refuse_secret(
            "password",
            "write it into a file and name that as `password-file`",
        );
        let user = section.text("user", |user| match filled(user)? {
            user if user.contains(':') => Err(Wrong::new("a user has no colon in its name")),
            user => Ok(user),
        });
        let password = section.text("password-file", |name| self.secret(name, exposed));
        let mechanism = section.text("mechanism", |mechanism| match mechanism {
            "digest" => Ok(Mechanism::Digest),
            "sasl" => Ok(Mechanism::Sasl),
            _ => Err(Wrong::new("expected \"digest\" or \"sasl\"")),
        });
        let (has_user, has_password) = (section.has("user"), section.has("password-file"));
        for (missing, others) in [("user", has_password), ("password-file", has_user)] {
            if !section.has(missing) && (others || section.has("mechanism")) {
                section.complain_of(missing, Wrong::new("is missing"));
            }
        }
        Some(Identity {
            mechanism: mechanism.unwrap_or(Mechanism::Digest),
            user: user?,
            password: password?,
        })
    }

    fn tls(&self, section: &Section<'_, '_>, exposed: &mut Vec<PathBuf>) -> Option<Tls> {
        let ca = section.needed("ca", |name| self.file(name));
        let certificate = section.text("certificate", |name| self.file(name));
        let key = section.text("key", |name| {
            let file = self.file(name)?;
            note_exposed(&file, exposed);
            Ok(file)
        });
        for (there, other) in [("certificate", "key"), ("key", "certificate")] {
            if section.has(there) && !section.has(other) {
                section.complain_of(other, Wrong::new(format!("`{there}` needs it")));
            }
        }
        Some(Tls {
            ca: ca?,
            certificate,
            key,
        })
    }

    fn s3(&self, section: &Section<'_, '_>, exposed: &mut Vec<PathBuf>) -> Option<S3> {
        let endpoints = section.needed_texts("endpoints", endpoint);
        let bucket = section.needed("bucket", filled);
        let region = section.text("region", filled);
        let access_key = section.text("access-key", filled);
        for key in ["secret-key", "secret-access-key"] {
            let advice = "write it into a file and name that as `secret-key-file`, or give \
                          AWS_SECRET_ACCESS_KEY";
            section.refuse_secret(key, advice);
        }
        let secret_key = section.text("secret-key-file", |name| self.secret(name, exposed));
        let access_key =
            self.or_environment(section, "access-key", access_key, "AWS_ACCESS_KEY_ID");
        let secret_key = secret_key.map(|secret| secret.0);
        let variable = "AWS_SECRET_ACCESS_KEY";
        let secret_key = self.or_environment(section, "secret-key-file", secret_key, variable);
        let prefix = section.text("prefix", prefix);
        let signed_urls = section.flag("signed-urls").unwrap_or(false);
        Some(S3 {
            endpoints: endpoints?,
            bucket: bucket?,
            region: region.unwrap_or_else(|| REGION.to_owned()),
            access_key: access_key?,
            secret_key: Secret(secret_key?),
            prefix,
            signed_urls,
        })
    }

    /// What the file says of `key`; if it says nothing, the variable.
    fn or_environment(
        &self,
        section: &Section<'_, '_>,
        key: &'static str,
        given: Option<String>,
        variable: &str,
    ) -> Option<String> {
        if section.has(key) {
            return given;
        }
        let value = (self.environment)(variable);
        if value.is_none() {
            let wrong = Wrong::new("is missing");
            section.complain_of(key, wrong.with_help(format!("or give {variable}")));
        }
        value
    }

    /// The content of a file that holds a secret and nothing else.
    fn secret(&self, name: &str, exposed: &mut Vec<PathBuf>) -> Result<Secret, Wrong> {
        let file = self.folder.join(name);
        let text = std::fs::read_to_string(&file);
        let text = text.map_err(|error| Wrong::new(format!("{}: {error}", file.display())))?;
        note_exposed(&file, exposed);
        let secret = text.trim();
        if secret.is_empty() {
            return Err(Wrong::new(format!("{} is empty", file.display())));
        }
        Ok(Secret(secret.to_owned()))
    }

    /// A file that somebody else will read.
    fn file(&self, name: &str) -> Result<PathBuf, Wrong> {
        let file = self.folder.join(name);
        match std::fs::File::open(&file) {
            Ok(_) => Ok(file),
            Err(error) => Err(Wrong::new(format!("{}: {error}", file.display()))),
        }
    }
}

fn note_exposed(file: &Path, exposed: &mut Vec<PathBuf>) {
    let mode = std::fs::metadata(file).map(|file| file.permissions().mode());
    if mode.is_ok_and(|mode| mode & 0o077 != 0) {
        exposed.push(file.to_owned());
    }
}

fn address(text: &str) -> Result<SocketAddr, Wrong> {
    text.parse()
        .map_err(|_| Wrong::new("expected an address and a port, such as \"0.0.0.0:7171\""))
}

/// An address that people follow: it may have a path.
fn public_url(text: &str) -> Result<String, Wrong> {
    let text = text.trim_end_matches('/');
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    let plain = |rest: &&str| {
        !rest.is_empty() && !rest.contains(|c: char| "@?#".contains(c) || c.is_whitespace())
    };
    match rest.filter(plain) {
        Some(_) => Ok(text.to_owned()),
        None => Err(Wrong::new(
            "expected an address, such as \"https://ci.example.org\"",
        )),
    }
}

pub(crate) fn filled(text: &str) -> Result<String, Wrong> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Wrong::new("is empty"));
    }
    Ok(text.to_owned())
}

/// A server, with its port.
fn host(text: &str) -> Result<String, Wrong> {
    let wrong = || Wrong::new("expected a host and a port, such as \"zk1.example.org:2181\"");
    let (name, port) = match text.rsplit_once(':') {
        // The colons of an IPv6 address are within its brackets.
        Some((name, port)) if !port.ends_with(']') => (name, port.parse().map_err(|_| wrong())?),
        Some(_) | None => (text, ZOOKEEPER_PORT),
    };
    let bracketed = name.starts_with('[') && name.ends_with(']');
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if port == 0 || name.is_empty() || !(bracketed || name.bytes().all(plain)) {
        return Err(wrong());
    }
    Ok(format!("{name}:{port}"))
}

fn chroot(text: &str) -> Result<String, Wrong> {
    let named = text.strip_prefix('/').is_some_and(|names| {
        names
            .split('/')
            .all(|name| !matches!(name, "" | "." | ".."))
    });
    if !named {
        return Err(Wrong::new(
            "expected the path of a node, such as \"/distci\"",
        ));
    }
    Ok(text.to_owned())
}

pub(crate) fn endpoint(text: &str) -> Result<String, Wrong> {
    let text = text.trim_end_matches('/');
    let wrong = || Wrong::new("expected an address, such as \"https://rgw1.example.org:7480\"");
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    let authority = rest.filter(|rest| !rest.is_empty()).ok_or_else(wrong)?;
    if authority.contains('@') {
        let advice = "give `access-key` and `secret-key-file`";
        return Err(Wrong::new("an address holds no credentials").with_help(advice));
    }
    if authority.contains(|c: char| c == '/' || c == '?' || c == '#' || c.is_whitespace()) {
        return Err(wrong());
    }
    Ok(text.to_owned())
}

fn prefix(text: &str) -> Result<String, Wrong> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let text = text.trim_matches('/');
    let segment = |name: &str| !matches!(name, "" | "." | "..") && name.chars().all(plain);
    if !text.split('/').all(segment) {
        return Err(Wrong::new(
            "expected plain names with slashes between, such as \"ci/main\"",
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests;
