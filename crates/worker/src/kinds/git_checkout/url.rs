//! The address of a repository.
//!
//! Owns that nothing in it is secret, and what of the worker's credentials must never be shown.

use std::path::Path;

use distci_model::outcome::Failure;

use crate::console::Mask;
use crate::trouble::{Trouble, doing};

/// A user name as long as this is a token in disguise.
const TOKEN: usize = 20;

/// Where a repository is: nothing of it is secret.
#[derive(Debug)]
pub(crate) struct Repository {
    address: String,
}

impl Repository {
    /// The repository that the job names; a relative path begins where the worker was started.
    ///
    /// # Errors
    /// A failure if it holds credentials, which would be seen in the arguments of git. A job file
    /// that does is refused at the door, but not what a parameter brings.
    pub(crate) fn new(text: &str) -> Result<Self, Trouble> {
        if credentials(text).is_some_and(|user| user.contains(':') || text.starts_with("http")) {
            let detail = "the address of the repository holds credentials".to_owned();
            return Err(Failure::Configuration { detail }.into());
        }
        let address = if is_local(text) {
            let path = std::path::absolute(text).map_err(doing("repository"))?;
            path.to_string_lossy().into_owned()
        } else {
            text.to_owned()
        };
        Ok(Self { address })
    }

    /// As git needs it, and people may see it.
    pub(crate) fn address(&self) -> &str {
        &self.address
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

/// Everything in a file of credentials that must not appear on a console.
pub(crate) async fn secrets(file: &Path) -> Result<Mask, Trouble> {
    let known = tokio::fs::read_to_string(file).await;
    let known = known.map_err(doing("git credentials"))?;
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
    fn an_address_holds_no_secret() {
        let address = |text: &str| Repository::new(text).unwrap().address().to_owned();
        for plain in [
            "git@host:r.git",
            "ssh://APKAEIBAERJR2EXAMPLE@host/r",
            "/r.git",
        ] {
            assert_eq!(address(plain), plain);
        }
        assert!(Path::new(&address("r.git")).is_absolute());
        for secret in [
            "https://me:pw@host/r",
            "https://token@host/r",
            "ssh://a:b@host/r",
        ] {
            assert!(Repository::new(secret).is_err(), "{secret} was accepted");
        }
    }

    #[tokio::test]
    async fn no_form_of_a_password_is_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines = "https://me:pa%20ss@host\nhttps://x:token1@host\n";
        std::fs::write(file.path(), lines).unwrap();
        let mask = secrets(file.path()).await.unwrap();
        let mut text = BytesMut::from("me pa%20ss pa ss token1");
        assert_eq!(mask.finish(&mut text), "me *** *** ***");
    }
}
