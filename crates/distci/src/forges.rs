//! The forges that a worker may tell of commits, `distci worker --forges FILE`.
//!
//! Owns the file's form and the reading of the tokens that it names. Never holds a token from the
//! file itself, and never shows one.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use distci_forge::{Credential, Forge, Kind};
use distci_model::capability::Host;
use serde::Deserialize;

use crate::exit::Ended;

/// One forge, by its host.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Section {
    /// Whose API it speaks.
    kind: Kind,
    /// Where its API is; left out, where such forges usually have it.
    api: Option<String>,
    /// The file that holds its token, relative to the folder of this one.
    token_file: PathBuf,
}

/// The forges that a file describes; none without a file.
///
/// # Errors
/// What is wrong with the file or a token's.
pub(crate) fn load(file: Option<&Path>) -> Result<BTreeMap<Host, Forge>> {
    let Some(file) = file else {
        return Ok(BTreeMap::new());
    };
    let place = || format!("forges {}", file.display());
    let text = std::fs::read_to_string(file).with_context(place)?;
    let sections: BTreeMap<Host, Section> = toml::from_str(&text)
        .map_err(|error| Ended::unusable(format!("{}: {error}", file.display())))?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let forge = |(host, section): (Host, Section)| {
        let place = || format!("{}: {host}", file.display());
        let forge = open(folder, &host, &section).with_context(place)?;
        Ok((host, forge))
    };
    sections.into_iter().map(forge).collect()
}

fn open(folder: &Path, host: &Host, section: &Section) -> Result<Forge> {
    let file = folder.join(&section.token_file);
    let token = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let mode = std::fs::metadata(&file).map(|file| file.permissions().mode());
    if mode.is_ok_and(|mode| mode & 0o077 != 0) {
        tracing::warn!("{} can be read by others: chmod 600 it", file.display());
    }
    let token = token.trim();
    anyhow::ensure!(!token.is_empty(), "{} is empty", file.display());
    let credential = Credential::new(token.to_owned());
    let api = section.api.as_deref();
    Ok(Forge::new(section.kind, host.as_str(), api, &credential)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(text: &str) -> Result<BTreeMap<Host, Forge>> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("token"), "verysecret\n")?;
        std::fs::write(folder.path().join("empty"), " \n")?;
        let file = folder.path().join("forges.toml");
        std::fs::write(&file, text)?;
        load(Some(&file))
    }

    #[test]
    fn each_host_has_its_forge() -> Result<()> {
        let forges = load_text(
            "['github.com']\nkind = 'github'\ntoken-file = 'token'\n\
             ['git.example.org:3000']\nkind = 'gitea'\napi = 'http://git.example.org:3000/api/v1'\n\
             token-file = 'token'\n",
        )?;
        let hosts: Vec<_> = forges.keys().map(Host::as_str).collect();
        assert_eq!(hosts, ["git.example.org:3000", "github.com"]);
        assert!(!format!("{forges:?}").contains("verysecret"));
        assert!(load(None)?.is_empty());
        Ok(())
    }

    #[test]
    fn what_is_wrong_is_said_without_the_token() {
        for (text, said) in [
            ("['h']\nkind = 'svn'\ntoken-file = 'token'", "svn"),
            ("['h']\nkind = 'github'\ntoken = 'verysecret'", "token"),
            ("['h']\nkind = 'github'", "token-file"),
            ("['H H']\nkind = 'github'\ntoken-file = 'token'", "H H"),
            ("['h']\nkind = 'github'\ntoken-file = 'nowhere'", "nowhere"),
            ("['h']\nkind = 'github'\ntoken-file = 'empty'", "empty"),
            (
                "['h']\nkind = 'github'\napi = 'https://a:b@h'\ntoken-file = 'token'",
                "credentials",
            ),
        ] {
            let error = format!("{:#}", load_text(text).unwrap_err());
            assert!(error.contains(said), "{error}");
        }
    }
}
