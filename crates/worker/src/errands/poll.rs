//! Looking where the refs of a repository are.
//!
//! Owns what is asked of git and what of its answer counts. What the patterns of a trigger mean is
//! the model's to say; git is only asked for no more than may fit them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use distci_model::config::ref_fits;
use distci_model::errand::{ErrandResult, MAX_HEADS, MAX_REF};
use tokio::time::Instant;

use super::Errand;
use crate::cell::{Cell, Limits};
use crate::kinds::git_checkout::{Git, Place, Repository, is_commit_id, reason, refused};
use crate::kinds::git_secrets;
use crate::room::Room;
use crate::trouble::{Trouble, blocking};

/// Longest that a look may take.
const LONGEST: Duration = Duration::from_mins(1);
/// Most bytes of what a repository tells of its refs: a hundred thousand.
const MOST: usize = 8 * 1024 * 1024;

impl Errand<'_> {
    /// Looks, once.
    pub(super) async fn poll(
        &self,
        repository: &str,
        refs: &[String],
    ) -> Result<ErrandResult, Trouble> {
        let repository = Repository::new(repository)?;
        let (rooms, held) = (self.worker.rooms.clone(), self.held.clone());
        let room = blocking(move || rooms.enter(&held, None)).await?;
        let looked = match Cell::of_worker(self.worker, &room).await {
            Ok(cell) => {
                let listing = self.list(&room, &cell, &repository, refs).await;
                cell.close().await;
                listing.map(|listing| heads(&listing, refs))
            }
            Err(trouble) => Err(trouble),
        };
        let left = tokio::task::spawn_blocking(|| room.leave()).await;
        if let Err(error) = left {
            tracing::warn!(ticket = %self.held.ticket, "the room was not left: {error}");
        }
        judge(looked?)
    }

    /// What the repository tells of its refs.
    async fn list(
        &self,
        room: &Room,
        cell: &Cell,
        repository: &Repository,
        refs: &[String],
    ) -> Result<String, Trouble> {
        let limits = Limits {
            deadline: Instant::now() + LONGEST,
            interrupts: self.interrupts.clone(),
        };
        let git = Git::at(Place {
            room,
            cell,
            limits: &limits,
            timeout: LONGEST.as_secs(),
            credentials: self.worker.settings.git_credentials.as_deref(),
        });
        let asked = asked(refs);
        let mut list = vec!["ls-remote", "--symref", "--", repository.address()];
        list.extend(asked.iter().map(String::as_str));
        let answer = git.await?.ask_much(Path::new("/"), &list, MOST).await?;
        if !answer.yes {
            return Err(refused(reason(&answer.text)));
        }
        if answer.text.len() >= MOST {
            let detail = "it has too many refs to look at: narrow `refs`";
            return Err(refused(detail.to_owned()));
        }
        Ok(answer.text)
    }

    /// What may be shown of a text that git said.
    pub(super) async fn shown(&self, text: String) -> String {
        let Some(credentials) = &self.worker.settings.git_credentials else {
            return text;
        };
        let Ok(mask) = git_secrets(credentials).await else {
            return "the git credentials of this worker cannot be read".to_owned();
        };
        let mut text = BytesMut::from(text.as_bytes());
        String::from_utf8_lossy(&mask.finish(&mut text)).into_owned()
    }
}

fn judge(heads: BTreeMap<String, String>) -> Result<ErrandResult, Trouble> {
    let count = heads.len();
    if count > MAX_HEADS {
        return Err(refused(format!(
            "{count} refs fit, and a poll follows at most {MAX_HEADS}: narrow `refs`"
        )));
    }
    Ok(ErrandResult::Looked { heads })
}

/// What git is asked for. Its patterns fit the end of a name, and their `*` crosses slashes: what it
/// gives is never less than what fits.
fn asked(refs: &[String]) -> Vec<String> {
    if refs.is_empty() {
        return vec!["HEAD".to_owned()];
    }
    let wanted: Vec<&String> = refs.iter().filter(|name| !name.starts_with('!')).collect();
    if wanted.is_empty() {
        return vec!["refs/heads/*".to_owned(), "refs/tags/*".to_owned()];
    }
    wanted.into_iter().map(|name| loosely(name)).collect()
}

/// A pattern of ours as git understands it: what git has no word for may be anything.
fn loosely(pattern: &str) -> String {
    match pattern.find(['{', '[', '\\', '?']) {
        Some(special) => format!("{}*", &pattern[..special]),
        None => pattern.to_owned(),
    }
}

/// The commits of the refs that fit, by their full names.
fn heads(listing: &str, refs: &[String]) -> BTreeMap<String, String> {
    // "COMMIT\tNAME" each; for HEAD also "ref: BRANCH\tHEAD", and for a tag with a note of its own
    // also the commit, as "NAME^{}".
    let entries = || listing.lines().filter_map(|line| line.split_once('\t'));
    let branch = entries().find_map(|(target, name)| match name {
        "HEAD" => target.strip_prefix("ref: "),
        _ => None,
    });
    let mut heads = BTreeMap::new();
    for (object, name) in entries().filter(|(object, _)| is_commit_id(object)) {
        let (name, is_peeled) = match name.strip_suffix("^{}") {
            Some(name) => (name, true),
            None => (name, false),
        };
        let (name, fits) = if refs.is_empty() {
            (branch.unwrap_or("HEAD"), name == "HEAD")
        } else {
            (name, name.starts_with("refs/") && ref_fits(refs, name))
        };
        if fits && name.len() <= MAX_REF && (is_peeled || !heads.contains_key(name)) {
            heads.insert(name.to_owned(), object.to_owned());
        }
    }
    heads
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(patterns: &[&str]) -> Vec<String> {
        patterns.iter().map(|&pattern| pattern.to_owned()).collect()
    }

    #[test]
    fn without_patterns_the_default_branch_counts() {
        let one = "1".repeat(40);
        let listing = format!("warning: noise\nref: refs/heads/trunk\tHEAD\n{one}\tHEAD\n");
        let expected = [("refs/heads/trunk".to_owned(), one.clone())].into();
        assert_eq!(heads(&listing, &[]), expected);
        let elsewhere = format!("{listing}{one}\trefs/remotes/origin/HEAD\n");
        assert_eq!(heads(&elsewhere, &[]), expected);
        assert_eq!(heads("", &[]), BTreeMap::new());
    }

    #[test]
    fn a_tag_is_the_commit_that_it_points_to() {
        let (tag, commit) = ("1".repeat(40), "2".repeat(40));
        let listing = format!("{tag}\trefs/tags/v1\n{commit}\trefs/tags/v1^{{}}\n");
        let found = heads(&listing, &list(&["v*"]));
        assert_eq!(found, [("refs/tags/v1".to_owned(), commit)].into());
    }

    #[test]
    fn only_what_fits_counts() {
        let one = "1".repeat(40);
        let names = [
            "refs/heads/main",
            "refs/heads/x/main",
            "refs/pull/1/head",
            "HEAD",
        ];
        let listing: String = names.map(|name| format!("{one}\t{name}\n")).concat();
        let names = |refs: &[&str]| heads(&listing, &list(refs)).into_keys().collect::<Vec<_>>();
        assert_eq!(names(&["main"]), ["refs/heads/main"]);
        assert_eq!(
            names(&["**", "!main", "!refs/pull/**"]),
            ["refs/heads/x/main"]
        );
        assert_eq!(names(&["refs/pull/*/head"]), ["refs/pull/1/head"]);
    }

    #[test]
    fn git_is_asked_for_no_less_than_what_fits() {
        assert_eq!(asked(&list(&["main", "!x"])), ["main"]);
        assert_eq!(asked(&list(&["v[0-9]", "{a,b}"])), ["v*", "*"]);
        assert_eq!(asked(&list(&["!x"])), ["refs/heads/*", "refs/tags/*"]);
        assert_eq!(asked(&[]), ["HEAD"]);
    }
}
