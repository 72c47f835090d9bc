//! From what a job calls a revision to what a repository calls it.

use std::path::Path;

use super::git::{Git, is_commit_id, reason, refused};
use super::url::Repository;
use crate::trouble::Trouble;

/// Shortest abbreviation of a commit's id that git takes.
const SHORTEST: usize = 4;

/// What to check out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kinds) enum Wanted {
    /// What the repository has under a full name, now at this object.
    Reference {
        /// `refs/…`, or `HEAD` if that is no branch.
        name: String,
        /// The id of a commit or of an annotated tag.
        object: String,
    },
    /// A commit by its whole id.
    Commit(String),
    /// A commit by the beginning of its id.
    Abbreviation(String),
}

/// What `reference` means in `repository`. A branch comes before a tag of the same name.
pub(in crate::kinds) async fn find(
    git: &Git<'_>,
    repository: &Repository,
    reference: &str,
) -> Result<Wanted, Trouble> {
    if is_commit_id(reference) {
        return Ok(Wanted::Commit(reference.to_ascii_lowercase()));
    }
    let names = candidates(reference);
    let mut list = vec!["ls-remote", "--symref", "--", repository.address()];
    list.extend(names.iter().map(String::as_str));
    let answer = git.ask(Path::new("/"), &list).await?;
    if !answer.yes {
        return Err(refused(reason(&answer.text)));
    }
    if let Some(wanted) = choose(&names, &answer.text) {
        return Ok(wanted);
    }
    let is_hex = reference.bytes().all(|b| b.is_ascii_hexdigit());
    if reference.len() >= SHORTEST && is_hex {
        return Ok(Wanted::Abbreviation(reference.to_ascii_lowercase()));
    }
    let shown = repository.address();
    Err(refused(format!(
        "{shown} has no branch, tag or ref {reference:?}"
    )))
}

fn candidates(reference: &str) -> Vec<String> {
    if reference == "HEAD" || reference.starts_with("refs/") {
        return vec![reference.to_owned()];
    }
    ["refs/heads/", "refs/tags/", "refs/"]
        .map(|prefix| format!("{prefix}{reference}"))
        .into()
}

/// The first of `names` that the listing has, with `HEAD` replaced by the branch that it means.
fn choose(names: &[String], listing: &str) -> Option<Wanted> {
    // "OBJECT\tNAME" each, and for HEAD also "ref: BRANCH\tHEAD".
    let entries = || listing.lines().filter_map(|line| line.split_once('\t'));
    names.iter().find_map(|name| {
        let of_name = || entries().filter(|(_, listed)| listed == name);
        let object = of_name()
            .map(|(object, _)| object)
            .find(|object| is_commit_id(object))?;
        let branch = of_name().find_map(|(target, _)| target.strip_prefix("ref: "));
        let name = branch.unwrap_or(name).to_owned();
        Some(Wanted::Reference {
            name,
            object: object.to_owned(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(name: &str, object: &str) -> Wanted {
        Wanted::Reference {
            name: name.to_owned(),
            object: object.to_owned(),
        }
    }

    #[test]
    fn a_branch_comes_before_a_tag() {
        let (one, two) = ("1".repeat(40), "2".repeat(40));
        let listing =
            format!("{two}\trefs/tags/v\n{one}\trefs/heads/v\n{one}\trefs/heads/x/refs/heads/v\n");
        assert_eq!(
            choose(&candidates("v"), &listing),
            Some(reference("refs/heads/v", &one))
        );
        assert_eq!(
            choose(&candidates("refs/tags/v"), &listing),
            Some(reference("refs/tags/v", &two))
        );
        assert_eq!(choose(&candidates("w"), &listing), None);
    }

    #[test]
    fn head_is_the_branch_that_it_means() {
        let one = "1".repeat(40);
        let listing = format!("warning: noise\nref: refs/heads/main\tHEAD\n{one}\tHEAD\n");
        assert_eq!(
            choose(&candidates("HEAD"), &listing),
            Some(reference("refs/heads/main", &one))
        );
        let detached = format!("{one}\tHEAD\n");
        assert_eq!(
            choose(&candidates("HEAD"), &detached),
            Some(reference("HEAD", &one))
        );
    }
}
