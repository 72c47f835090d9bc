//! How the command line finds the frontends and the token.
//!
//! Owns the data directory's two files for it: `url`, where the standalone here listens, and
//! `token`, which lets in. The token of this machine is never sent to another address.

use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use data_encoding::HEXLOWER;
use distci_client::{Client, ClientError, Token, normal_address};

use crate::exit::Ended;

/// How long a person waits for a frontend that does not answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where to find DistCI.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// Address of a frontend; several may be given
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "DISTCI_URL",
        value_delimiter = ','
    )]
    pub(crate) url: Vec<String>,
    /// File that holds the token; or give the token itself in `DISTCI_TOKEN`
    #[arg(long, global = true, value_name = "FILE", env = "DISTCI_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Folder of a standalone's data
    ///
    /// Commands find its address and token there. `exec` keeps its store there, and without it in
    /// a folder that it removes; for all others `DISTCI_DATA` may name it, too. [default: distci
    /// in the user's data folder]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

impl Connection {
    /// A client for a person at a terminal, who does not wait for long.
    pub(crate) fn client(&self) -> Result<Client> {
        let client = self.patient_client()?.with_deadline(PATIENCE);
        Ok(if io::stderr().is_terminal() {
            client.with_notice(say_waiting)
        } else {
            client
        })
    }

    /// A client with the usual patience.
    pub(crate) fn patient_client(&self) -> Result<Client> {
        let (urls, token) = self.found()?;
        Ok(Client::new(urls, token)?)
    }

    /// The addresses of frontends, and what lets in there.
    pub(crate) fn found(&self) -> Result<(Vec<String>, Option<Token>)> {
        let home = self.data_directory().map(Home::at);
        let home = home.as_ref();
        let (urls, local) = if self.url.is_empty() {
            let url = home
                .and_then(Home::url)
                .with_context(|| nobody_here(home))?;
            (vec![url], true)
        } else {
            let here = home.and_then(Home::url);
            let here = here.map(|url| normal_address(&url)).transpose()?;
            let is_here = |url: &String| normal_address(url).map(|url| here == Some(url));
            let all_here = self
                .url
                .iter()
                .map(is_here)
                .collect::<Result<Vec<_>, _>>()?;
            (self.url.clone(), !all_here.contains(&false))
        };
        let token = match self.given_token()? {
            Some(token) => Some(token),
            None if local => home.map(Home::token).transpose()?.flatten(),
            None => None,
        };
        Ok((urls, token))
    }

    /// What may be wrong, beside what an error says itself: who was killed took nothing back.
    pub(crate) fn advice(&self, error: &anyhow::Error) -> Option<String> {
        let unreachable = error.downcast_ref().is_some_and(ClientError::is_passing);
        if !unreachable || !self.url.is_empty() {
            return None;
        }
        let home = Home::at(self.data_directory()?);
        home.url()?;
        Some(format!(
            "the address comes from {}, which is stale if that standalone was killed",
            home.url_file().display()
        ))
    }

    /// The folder of a standalone's data: as given, or the user's.
    ///
    /// The variable is for the commands that look for a standalone: `exec` takes no notice of it.
    pub(crate) fn data_directory(&self) -> Option<PathBuf> {
        let named = || std::env::var_os("DISTCI_DATA").filter(|name| !name.is_empty());
        if let Some(given) = self.data.clone().or_else(|| named().map(PathBuf::from)) {
            return Some(given);
        }
        let user = user_directory("XDG_DATA_HOME", ".local/share")?;
        Some(user.join("distci"))
    }

    fn given_token(&self) -> Result<Option<Token>> {
        if let Some(file) = &self.token_file {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("token file {}", file.display()))?;
            let token = text.parse();
            return Ok(Some(token.with_context(|| file.display().to_string())?));
        }
        // Not an argument: arguments are seen by everybody on the machine.
        match std::env::var("DISTCI_TOKEN") {
            Ok(text) if !text.is_empty() => Ok(Some(text.parse().context("DISTCI_TOKEN")?)),
            _ => Ok(None),
        }
    }
}

fn say_waiting(why: &str) {
    // Nobody is left to hear of trouble with standard error itself.
    drop(writeln!(
        io::stderr(),
        "no frontend answers ({why}); trying again…"
    ));
}

fn nobody_here(home: Option<&Home>) -> anyhow::Error {
    let place = home.map_or_else(String::new, |home| {
        format!(" and no standalone runs on {}", home.directory.display())
    });
    anyhow!("no --url or DISTCI_URL is given{place}: `distci standalone` starts one")
}

/// A folder of the user, as XDG has it.
pub(crate) fn user_directory(variable: &str, below_home: &str) -> Option<PathBuf> {
    let given = std::env::var_os(variable).map(PathBuf::from);
    given
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::home_dir().map(|home| home.join(below_home)))
}

/// The data directory of a standalone, as far as the command line knows it.
#[derive(Debug)]
pub(crate) struct Home {
    directory: PathBuf,
}

impl Home {
    /// The data directory at `directory`; nothing is touched.
    pub(crate) fn at(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Makes the directory, for its user alone.
    pub(crate) fn create(&self) -> Result<()> {
        let mut builder = std::fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&self.directory);
        made.with_context(|| format!("data folder {}", self.directory.display()))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.directory
    }

    /// Where the token is.
    pub(crate) fn token_file(&self) -> PathBuf {
        self.directory.join("token")
    }

    /// The address of the standalone that runs on it, if one does.
    pub(crate) fn url(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.url_file()).ok()?;
        let url = text.trim();
        (!url.is_empty()).then(|| url.to_owned())
    }

    /// Tells the command line the address, until [`Home::forget_url`].
    pub(crate) fn announce_url(&self, url: &str) -> Result<()> {
        let file = self.private_file(&format!("{url}\n"))?;
        file.persist(self.url_file()).context("the file `url`")?;
        Ok(())
    }

    /// Takes the address back.
    pub(crate) fn forget_url(&self) -> io::Result<()> {
        std::fs::remove_file(self.url_file())
    }

    /// The token, if there is one.
    pub(crate) fn token(&self) -> Result<Option<Token>> {
        let file = self.token_file();
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| file.display().to_string()),
        };
        let mode = std::fs::metadata(&file)?.permissions().mode();
        if mode & 0o077 != 0 {
            tracing::warn!("{} can be read by others: chmod 600 it", file.display());
        }
        Ok(Some(
            text.parse().with_context(|| file.display().to_string())?,
        ))
    }

    /// The token; at the first start, a new one.
    pub(crate) fn token_or_new(&self) -> Result<Token> {
        if let Some(token) = self.token()? {
            return Ok(token);
        }
        let token = new_token()?;
        let file = self.private_file(&format!("{}\n", token.reveal()))?;
        match file.persist_noclobber(self.token_file()) {
            Ok(_) => Ok(token),
            // Somebody else was faster; there is one token.
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                let token = self.token()?;
                token.ok_or_else(|| Ended::failed("the file `token` came and went"))
            }
            Err(error) => Err(error.error).context("the file `token`"),
        }
    }

    /// A file with this content that has no name yet; whole or absent, and its user's alone.
    fn private_file(&self, content: &str) -> Result<tempfile::NamedTempFile> {
        let place = || format!("data folder {}", self.directory.display());
        let mut file = tempfile::NamedTempFile::new_in(&self.directory).with_context(place)?;
        file.write_all(content.as_bytes()).with_context(place)?;
        file.as_file().sync_all().with_context(place)?;
        Ok(file)
    }

    fn url_file(&self) -> PathBuf {
        self.directory.join("url")
    }
}

/// A token of 256 random bits.
pub(crate) fn new_token() -> Result<Token> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).context("no randomness")?;
    Ok(HEXLOWER.encode(&bytes).parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_made_once_and_for_its_user_alone() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::at(directory.path().join("a/b"));
        home.create().unwrap();
        assert!(home.token().unwrap().is_none());
        let token = home.token_or_new().unwrap();
        assert_eq!(token.reveal().len(), 64);
        assert_eq!(home.token_or_new().unwrap(), token);
        let mode = std::fs::metadata(home.token_file())
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_address_is_there_while_it_is_announced() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::at(directory.path().to_owned());
        assert_eq!(home.url(), None);
        home.announce_url("http://127.0.0.1:1").unwrap();
        assert_eq!(home.url().as_deref(), Some("http://127.0.0.1:1"));
        home.forget_url().unwrap();
        assert_eq!(home.url(), None);
    }
}
