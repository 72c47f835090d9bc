//! The forges that a worker may tell of commits, `distci worker --forges FILE`.
//!
//! Owns the file's form and the reading of the tokens and keys that it names. Never holds one from
//! the file itself, and never shows one.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use distci_forge::{App, AppKey, Credential, Forge, Kind};
use distci_model::capability::Host;
use serde::Deserialize;

use crate::clock::now;
use crate::exit::Ended;

/// Most bytes of a token's or a key's file.
const MAX_SECRET: u64 = 64 * 1024;

/// One forge, by its host.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Section {
    /// Whose API it speaks.
    kind: Kind,
    /// Where its API is; left out, where such forges usually have it.
    api: Option<String>,
    /// The file that holds its token, relative to the folder of this one.
    token_file: Option<PathBuf>,
    /// Instead of a token: the id or the client id of an app of GitHub.
    app_id: Option<AppId>,
    /// The file that holds the app's private key.
    private_key_file: Option<PathBuf>,
    /// The one installation of the app that counts; left out, each repository's own.
    installation_id: Option<u64>,
}

/// The id of an app is a number, its client id is a word.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "app-id is the number of an app, or its client id in quotes"
)]
enum AppId {
    Number(u64),
    Word(String),
}

/// The forges that a file describes; none without a file.
///
/// # Errors
/// What is wrong with the file, or with a token's or a key's.
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
        let unusable = |error| {
            let error: anyhow::Error = error;
            Ended::unusable(format!("{}: {host}: {error:#}", file.display()))
        };
        let forge = open(folder, &host, &section).map_err(unusable)?;
        Ok((host, forge))
    };
    sections.into_iter().map(forge).collect()
}

fn open(folder: &Path, host: &Host, section: &Section) -> Result<Forge> {
    let credential = credential(folder, section)?;
    let api = section.api.as_deref();
    Ok(Forge::new(section.kind, host.as_str(), api, &credential)?)
}

fn credential(folder: &Path, section: &Section) -> Result<Credential> {
    let app = (&section.app_id, &section.private_key_file);
    match (&section.token_file, app, section.installation_id) {
        (Some(file), (None, None), None) => {
            let token = secret(&folder.join(file))?;
            Ok(Credential::new(token.trim().to_owned()))
        }
        (None, (Some(id), Some(file)), installation) => {
            let id = word(id)?;
            let file = folder.join(file);
            let pem = secret(&file)?;
            let key = AppKey::from_pem(&pem).with_context(|| file.display().to_string())?;
            Ok(Credential::app(App::new(id, key, installation, now)))
        }
        (None, (None, None), None) => {
            bail!("it needs a token-file; or, of an app of GitHub, app-id and private-key-file")
        }
        (None, (Some(_), None), _) => bail!("an app needs its private-key-file, too"),
        (None, (None, _), _) => bail!("an app needs its app-id, too"),
        (Some(_), _, _) => bail!(
            "it has a token-file and something of an app: leave out the one, or app-id, \
             private-key-file and installation-id"
        ),
    }
}

fn word(id: &AppId) -> Result<String> {
    match id {
        AppId::Number(number) => Ok(number.to_string()),
        AppId::Word(word) => {
            let fits = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
            let fits = !word.is_empty() && word.bytes().all(fits);
            ensure!(
                fits,
                "app-id is the number of the app or its client id, as its page at GitHub has them"
            );
            Ok(word.clone())
        }
    }
}

/// What a file holds that others should not read.
fn secret(file: &Path) -> Result<String> {
    let place = || file.display().to_string();
    let about = std::fs::metadata(file).with_context(place)?;
    ensure!(about.is_file(), "{} is no file", file.display());
    ensure!(
        about.len() <= MAX_SECRET,
        "{} is too long for a token or a key",
        file.display()
    );
    if about.permissions().mode() & 0o077 != 0 {
        tracing::warn!("{} can be read by others: chmod 600 it", file.display());
    }
    let bytes = std::fs::read(file).with_context(place)?;
    // The bytes themselves are not told.
    let text = String::from_utf8(bytes).ok();
    let text = text.with_context(|| format!("{} holds no text", file.display()))?;
    ensure!(!text.trim().is_empty(), "{} is empty", file.display());
    Ok(text)
}

#[cfg(test)]
mod tests {
    use distci_components::FakeApp;

    use super::*;

    fn load_text(text: &str) -> Result<BTreeMap<Host, Forge>> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("token"), "verysecret\n")?;
        std::fs::write(folder.path().join("empty"), " \n")?;
        std::fs::write(folder.path().join("bytes"), [0xff, 0xfe])?;
        std::fs::write(folder.path().join("app.pem"), FakeApp::new(1)?.pem()?)?;
        let public = "-----BEGIN PUBLIC KEY-----\nverysecret\n-----END PUBLIC KEY-----\n";
        std::fs::write(folder.path().join("public.pem"), public)?;
        let file = folder.path().join("forges.toml");
        std::fs::write(&file, text)?;
        load(Some(&file))
    }

    #[test]
    fn each_host_has_its_forge() -> Result<()> {
        let forges = load_text(
            "['github.com']\nkind = 'github'\ntoken-file = 'token'\n\
             ['git.example.org:3000']\nkind = 'gitea'\napi = 'http://git.example.org:3000/api/v1'\n\
             token-file = 'token'\n\
             ['ghe.example.org']\nkind = 'github'\napp-id = 12\nprivate-key-file = 'app.pem'\n\
             ['two.example.org']\nkind = 'github'\napp-id = 'Iv23li.x'\ninstallation-id = 7\n\
             private-key-file = 'app.pem'\n",
        )?;
        let hosts: Vec<_> = forges.keys().map(Host::as_str).collect();
        let expected = [
            "ghe.example.org",
            "git.example.org:3000",
            "github.com",
            "two.example.org",
        ];
        assert_eq!(hosts, expected);
        let shown = format!("{forges:?}");
        assert!(!shown.contains("verysecret") && !shown.contains("BEGIN"));
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
            ("['h']\nkind = 'github'\ntoken-file = 'bytes'", "no text"),
            ("['h']\nkind = 'github'\ntoken-file = '.'", "is no file"),
        ] {
            refused(text, said);
        }
    }

    #[test]
    fn what_is_wrong_with_an_app_is_said_without_its_key() {
        let (id, key) = ("app-id = 1\n", "private-key-file = 'app.pem'\n");
        let token = "token-file = 'token'\n";
        let at = |file: &str| format!("{id}private-key-file = '{file}'\n");
        for (kind, text, said) in [
            ("github", id.to_owned(), "private-key-file, too"),
            ("github", key.to_owned(), "app-id, too"),
            ("github", format!("{token}{id}{key}"), "token-file and"),
            (
                "github",
                format!("{token}installation-id = 7"),
                "token-file and",
            ),
            ("github", format!("app-id = 'a b'\n{key}"), "client id"),
            ("github", format!("app-id = -1\n{key}"), "in quotes"),
            (
                "github",
                format!("{id}{key}private-key = 'x'"),
                "private-key",
            ),
            ("github", at("nowhere.pem"), "nowhere.pem"),
            ("github", at("token"), "token: there is no line -----BEGIN"),
            ("github", at("empty"), "empty is empty"),
            ("github", at("public.pem"), "line 1: it holds PUBLIC KEY"),
            ("gitea", format!("{id}{key}"), "give a token"),
        ] {
            refused(&format!("['h']\nkind = '{kind}'\n{text}"), said);
        }
    }

    fn refused(text: &str, said: &str) {
        let error = format!("{:#}", load_text(text).unwrap_err());
        assert!(error.contains(said), "{error}");
        assert!(error.contains("forges.toml"), "{error}");
        assert!(
            !error.contains("verysecret") || text.contains("verysecret"),
            "{error}"
        );
    }
}
