//! The address of a repository.
//!
//! Owns what of it may be shown: a name and a password that somebody wrote into it never are.

use std::io;
use std::path::Path;

use crate::console::Mask;
use crate::trouble::{Trouble, doing};

/// A user name as long as this is a token in disguise.
const TOKEN: usize = 20;

/// Where a repository is.
#[derive(Debug)]
pub(super) struct Repository {
    address: String,
    shown: String,
}

impl Repository {
    /// The repository that the job names; a relative path begins where the worker was started.
    pub(super) fn new(text: &str) -> io::Result<Self> {
        let address = if is_local(text) {
            let path = std::path::absolute(text)?;
            path.to_string_lossy().into_owned()
        } else {
            text.to_owned()
        };
        let shown = match credentials(&address) {
            Some(credentials) => address.replacen(&format!("{credentials}@"), "", 1),
            None => address.clone(),
        };
        Ok(Self { address, shown })
    }

    /// As git needs it.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// As people may see it.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }
}

/// Git's own rule: a colon before the first slash makes a host, unless it begins a scheme.
fn is_local(text: &str) -> bool {
    let before_slash = text.split('/').next().unwrap_or_default();
    !text.contains("://") && !before_slash.contains(':')
}

/// `user:password` of `scheme://user:password@host`.
fn credentials(address: &str) -> Option<&str> {
    let (_, rest) = address.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    authority
        .rsplit_once('@')
        .map(|(credentials, _)| credentials)
}

/// Everything that must not appear on the console of a checkout of `repository`.
pub(crate) async fn secrets(repository: &str, file: Option<&Path>) -> Result<Mask, Trouble> {
    let mut known = repository.to_owned();
    if let Some(file) = file {
        known.push('\n');
        known += &tokio::fs::read_to_string(file)
            .await
            .map_err(doing("git credentials"))?;
    }
    let secrets = known.lines().filter_map(credentials).flat_map(secrets_of);
    // Git shows a password as it is, and as it stands in an address.
    let both = secrets.flat_map(|secret| [decode(&secret), secret.into_bytes()]);
    Ok(Mask::new(both))
}

fn secrets_of(credentials: &str) -> Vec<String> {
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let token = (user.len() >= TOKEN).then_some(user);
    let all = token.into_iter().chain([password]);
    all.filter(|secret| !secret.is_empty())
        .map(str::to_owned)
        .collect()
}

fn decode(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| first == b'%');
        let byte = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(byte.unwrap_or(first));
        rest = if byte.is_some() {
            after.get(2..).unwrap_or_default()
        } else {
            after
        };
    }
    decoded
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        let shown = |text: &str| Repository::new(text).unwrap().shown().to_owned();
        assert_eq!(shown("https://me:secret@host/r.git"), "https://host/r.git");
        assert_eq!(shown("git@host:r.git"), "git@host:r.git");
        assert_eq!(shown("/srv/r.git"), "/srv/r.git");
        assert!(Path::new(&shown("r.git")).is_absolute());
    }

    #[tokio::test]
    async fn no_form_of_a_password_is_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "https://me:pa%20ss@host\n").unwrap();
        let mask = secrets("https://x:token1@host/r", Some(file.path()))
            .await
            .unwrap();
        let mut text = BytesMut::from("me pa%20ss pa ss token1");
        assert_eq!(mask.finish(&mut text), "me *** *** ***");
    }
}
