//! The kind `git-checkout`: a revision of a repository in the workspace.
//!
//! Owns the way from a name to a commit and from the commit to files. What was fetched once is kept
//! in a mirror of this worker; the checkout itself knows only the repository, for it travels to
//! other machines.

mod git;
mod mirror;
mod reference;
mod url;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use distci_model::config::GitCheckout;
use distci_model::outcome::{Failure, Outcome, TaskResult};
use tokio::time::Instant;

use super::{Assignment, Perform, seconds};
use crate::trouble::{Trouble, blocking, doing};
use crate::workspace::path::EntryPath;
use crate::workspace::tree::Tree;
pub(crate) use git::{Git, refused};
pub(super) use mirror::Mirror;
use reference::Wanted;
pub(super) use reference::find;
pub(crate) use url::Repository;

pub(crate) use git::{Place, is_commit_id, reason};
pub(crate) use url::secrets;

/// A checkout in the making.
struct Checkout<'a> {
    settings: &'a GitCheckout,
    git: Git<'a>,
    repository: Repository,
    directory: PathBuf,
}

/// What was checked out.
struct Revision {
    commit: String,
    /// The full name by which it was found, unless it was the commit's own.
    reference: Option<String>,
}

#[async_trait]
impl Perform for GitCheckout {
    async fn perform(&self, assignment: &Assignment<'_>) -> Result<TaskResult, Trouble> {
        let begun = Instant::now();
        let checkout = Checkout {
            settings: self,
            git: Git::new(assignment).await?,
            repository: Repository::new(&self.repository)?,
            directory: directory(self, assignment).await?,
        };
        let revision = checkout.run(assignment).await?;
        let commit = &revision.commit;
        let took = seconds(begun.elapsed());
        assignment
            .console
            .say(&format!("checked out {commit} in {took}"))
            .await;
        Ok(result(&checkout.repository, &revision))
    }
}

async fn directory(
    settings: &GitCheckout,
    assignment: &Assignment<'_>,
) -> Result<PathBuf, Trouble> {
    let workspace = assignment.room.workspace();
    let Ok(path) = EntryPath::new(settings.checkout_dir.as_str().as_bytes()) else {
        return Ok(workspace);
    };
    let directory = workspace.join(path.as_path());
    blocking(move || -> Result<(), Trouble> {
        Ok(Tree::open(&workspace)
            .map_err(doing("workspace"))?
            .directory(&path)?)
    })
    .await?;
    Ok(directory)
}

fn result(repository: &Repository, revision: &Revision) -> TaskResult {
    let mut result = TaskResult::of(Outcome::Success);
    let mut export = |name: &str, value: &str| {
        result.exports.insert(name.to_owned(), value.to_owned());
    };
    export("GIT_URL", repository.address());
    export("GIT_COMMIT", &revision.commit);
    export("DISTCI_SHA", &revision.commit);
    if let Some(reference) = &revision.reference {
        export("DISTCI_REF", reference);
        if let Some(branch) = reference.strip_prefix("refs/heads/") {
            export("GIT_BRANCH", branch);
        }
    }
    result
}

impl Checkout<'_> {
    async fn run(&self, assignment: &Assignment<'_>) -> Result<Revision, Trouble> {
        let reference = self.settings.reference.as_deref();
        let reference = reference.unwrap_or(GitCheckout::DEFAULT_REF);
        let url = self.repository.address();
        assignment
            .console
            .say(&format!("git checkout of {reference} from {url}"))
            .await;
        let wanted = find(&self.git, &self.repository, reference).await?;
        self.prepare().await?;
        let revision = match (self.settings.depth, &wanted) {
            (Some(depth), Wanted::Reference { name, .. }) => self.shallow(depth, name).await?,
            // An exact commit is asked for directly; a server may refuse that, or not know what an
            // abbreviation means. Then all is fetched, and cut here.
            (Some(_) | None, wanted) => self.through_mirror(assignment, wanted).await?,
        };
        self.switch(&revision).await?;
        if self.settings.submodules {
            self.submodules().await?;
        }
        Ok(revision)
    }

    /// An empty repository that knows where it comes from.
    async fn prepare(&self) -> Result<(), Trouble> {
        self.git
            .run(&self.directory, &["init", "--quiet", "."])
            .await?;
        let url = ["config", "remote.origin.url", self.repository.address()];
        self.git.run(&self.directory, &url).await?;
        let refs = [
            "config",
            "remote.origin.fetch",
            "+refs/heads/*:refs/remotes/origin/*",
        ];
        self.git.run(&self.directory, &refs).await
    }

    /// Fetches no more than was asked for, and keeps nothing of it on this worker.
    async fn shallow(&self, depth: u32, name: &str) -> Result<Revision, Trouble> {
        let depth = format!("--depth={depth}");
        let refspec = match (
            name.strip_prefix("refs/heads/"),
            name.starts_with("refs/tags/"),
        ) {
            (Some(branch), _) => format!("+{name}:refs/remotes/origin/{branch}"),
            (None, true) => format!("+{name}:{name}"),
            (None, false) => format!("+{name}"),
        };
        let fetch = [
            "fetch",
            "--no-tags",
            &depth,
            "--",
            self.repository.address(),
            &refspec,
        ];
        self.git.run(&self.directory, &fetch).await?;
        let commit = self.git.commit(&self.directory, "FETCH_HEAD").await?;
        let commit = commit.ok_or_else(|| refused(format!("{name} is no commit")))?;
        Ok(Revision {
            commit,
            reference: Some(name.to_owned()),
        })
    }

    async fn through_mirror(
        &self,
        assignment: &Assignment<'_>,
        wanted: &Wanted,
    ) -> Result<Revision, Trouble> {
        let mirror = Mirror::open(assignment, &self.git, &self.repository).await?;
        let commit = match self.supply(&mirror, wanted).await {
            Err(trouble) if is_of_mirror(&trouble, wanted) => {
                renew(&mirror, assignment).await?;
                self.supply(&mirror, wanted).await?
            }
            commit => commit?,
        };
        let reference = match wanted {
            Wanted::Reference { name, .. } => Some(name.clone()),
            Wanted::Commit(_) | Wanted::Abbreviation(_) => None,
        };
        Ok(Revision { commit, reference })
    }

    /// Brings what is wanted through the mirror into the checkout.
    async fn supply(&self, mirror: &Mirror<'_>, wanted: &Wanted) -> Result<String, Trouble> {
        let commit = mirror.obtain(wanted).await?;
        let depth = self.settings.depth.map(|depth| format!("--depth={depth}"));
        let source = mirror.path().to_string_lossy();
        // The logs of the references would name the mirror, which no other machine has.
        let no_logs = ["-c", "core.logAllRefUpdates=false"];
        let mut fetch = [no_logs.as_slice(), &["fetch", "--quiet", "--force"]].concat();
        match &depth {
            Some(depth) => fetch.extend([depth.as_str(), "--no-tags", "--", &source, &commit]),
            None => fetch.extend([
                "--",
                &source,
                &commit,
                "+refs/heads/*:refs/remotes/origin/*",
                "+refs/tags/*:refs/tags/*",
            ]),
        }
        self.git.run(&self.directory, &fetch).await?;
        Ok(commit)
    }

    /// Makes the files those of the commit, on a branch if it was found as one.
    async fn switch(&self, revision: &Revision) -> Result<(), Trouble> {
        let commit = revision.commit.as_str();
        let branch = revision.reference.as_deref();
        let branch = branch.and_then(|name| name.strip_prefix("refs/heads/"));
        if let Some(branch) = branch {
            // The mirror may know a later one than the frontend of the repository told us.
            let tracking = format!("refs/remotes/origin/{branch}");
            self.git
                .run(&self.directory, &["update-ref", &tracking, commit])
                .await?;
            let checkout = [
                "checkout",
                "--quiet",
                "--force",
                "--no-track",
                "-B",
                branch,
                commit,
                "--",
            ];
            self.git.run(&self.directory, &checkout).await?;
        } else {
            let checkout = ["checkout", "--quiet", "--force", "--detach", commit, "--"];
            self.git.run(&self.directory, &checkout).await?;
        }
        forget_source(&self.directory).await
    }

    async fn submodules(&self) -> Result<(), Trouble> {
        let mut update = vec!["submodule", "update", "--init", "--recursive", "--force"];
        let depth = self.settings.depth.map(|depth| format!("--depth={depth}"));
        update.extend(depth.as_deref());
        self.git.run(&self.directory, &update).await
    }
}

/// Whether it is the mirror that is no good: the repository has just shown to us what is wanted.
pub(super) fn is_of_mirror(trouble: &Trouble, wanted: &Wanted) -> bool {
    let refused = matches!(trouble, Trouble::Failure(Failure::Checkout { .. }));
    refused && matches!(wanted, Wanted::Reference { .. })
}

pub(super) async fn renew(mirror: &Mirror<'_>, assignment: &Assignment<'_>) -> Result<(), Trouble> {
    assignment
        .console
        .say("fetching anew, without what this worker had")
        .await;
    mirror.renew().await
}

/// The file names the mirror, which no other machine has.
async fn forget_source(directory: &Path) -> Result<(), Trouble> {
    match tokio::fs::remove_file(directory.join(".git/FETCH_HEAD")).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Trouble::local("checkout", &error))
        }
        _ => Ok(()),
    }
}
