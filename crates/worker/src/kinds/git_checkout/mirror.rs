//! What this worker already has of a repository.
//!
//! Owns `git/<hash of the address>`: a bare repository that one attempt at a time may change, and
//! that anybody may delete while no worker runs. Never trusted to be current: whether it is enough
//! is asked for each commit.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use tokio::time::sleep;

use super::git::{Git, refused};
use super::reference::Wanted;
use super::url::Repository;
use crate::kinds::Assignment;
use crate::trouble::{Trouble, blocking, doing};

/// Between two tries to get the lock; a fetch of news takes longer.
const PATIENCE: Duration = Duration::from_millis(50);

/// The mirror of one repository, locked.
pub(in crate::kinds) struct Mirror<'a> {
    git: &'a Git<'a>,
    repository: &'a Repository,
    path: PathBuf,
    _lock: Flock<File>,
}

impl<'a> Mirror<'a> {
    /// The mirror of `repository`; empty if there was none. Waits for whoever uses it.
    pub(in crate::kinds) async fn open(
        assignment: &Assignment<'_>,
        git: &'a Git<'a>,
        repository: &'a Repository,
    ) -> Result<Self, Trouble> {
        let hash = blake3::hash(repository.address().as_bytes()).to_hex();
        let name = hash.get(..32).unwrap_or(&hash);
        let mirrors = std::path::absolute(assignment.worker.settings.directory.join("git"));
        let mirrors = mirrors.map_err(doing("git mirrors"))?;
        tokio::fs::create_dir_all(&mirrors)
            .await
            .map_err(doing("git mirrors"))?;
        let lock = assignment
            .bound(lock(assignment, mirrors.join(format!("{name}.lock"))))
            .await?;
        let mirror = Self {
            git,
            repository,
            path: mirrors.join(name),
            _lock: lock,
        };
        mirror.prepare().await?;
        Ok(mirror)
    }

    pub(in crate::kinds) fn path(&self) -> &Path {
        &self.path
    }

    /// The id of the commit that is wanted, which the mirror has afterwards.
    pub(in crate::kinds) async fn obtain(&self, wanted: &Wanted) -> Result<String, Trouble> {
        let known = match wanted {
            Wanted::Reference { object, .. } => self.commit(object).await?,
            Wanted::Commit(id) => self.commit(id).await?,
            // What is unique here may not be unique there, so the news are needed first.
            Wanted::Abbreviation(_) => None,
        };
        if let Some(commit) = known {
            return Ok(commit);
        }
        self.fetch(wanted).await?;
        match wanted {
            Wanted::Reference { name, object } => {
                // The name may have moved on since it was asked for.
                let fetched = self.commit(name).await?;
                let found = if fetched.is_some() {
                    fetched
                } else {
                    self.commit(object).await?
                };
                found.ok_or_else(|| refused(format!("{name} is no commit")))
            }
            Wanted::Commit(id) => self.exact(id).await,
            Wanted::Abbreviation(start) => {
                let found = self.commit(start).await?;
                found.ok_or_else(|| self.unknown(start))
            }
        }
    }

    async fn prepare(&self) -> Result<(), Trouble> {
        if self.path.join("HEAD").is_file() {
            // Files by which a git that was killed kept others out. Nobody else is here now.
            let path = self.path.clone();
            return blocking(move || -> Result<(), Trouble> {
                unlock(&path);
                Ok(())
            })
            .await;
        }
        let path = self.path.to_string_lossy();
        let init = ["init", "--quiet", "--bare", &path];
        self.git.run(Path::new("/"), &init).await
    }

    /// Begins again with an empty mirror.
    pub(in crate::kinds) async fn renew(&self) -> Result<(), Trouble> {
        let removed = tokio::fs::remove_dir_all(&self.path).await;
        removed.map_err(doing("git mirror"))?;
        self.prepare().await
    }

    /// All branches, all tags, and what is wanted if it is neither.
    async fn fetch(&self, wanted: &Wanted) -> Result<(), Trouble> {
        let address = self.repository.address();
        let mut fetch = vec!["fetch", "--prune", "--force", "--no-write-fetch-head", "--"];
        fetch.extend([
            address,
            "+refs/heads/*:refs/heads/*",
            "+refs/tags/*:refs/tags/*",
        ]);
        let other = match wanted {
            Wanted::Reference { name, .. } => Some(format!("+{name}:{}", kept_as(name))),
            Wanted::Commit(_) | Wanted::Abbreviation(_) => None,
        };
        let other = other
            .filter(|spec| !spec.starts_with("+refs/heads/") && !spec.starts_with("+refs/tags/"));
        fetch.extend(other.as_deref());
        self.git.run(&self.path, &fetch).await
    }

    /// A commit that no branch or tag leads to has to be asked for by its id.
    async fn exact(&self, id: &str) -> Result<String, Trouble> {
        if let Some(commit) = self.commit(id).await? {
            return Ok(commit);
        }
        let address = self.repository.address();
        let fetch = ["fetch", "--no-write-fetch-head", "--", address, id];
        self.git.run(&self.path, &fetch).await?;
        self.commit(id).await?.ok_or_else(|| self.unknown(id))
    }

    async fn commit(&self, name: &str) -> Result<Option<String>, Trouble> {
        let name = if name.starts_with("refs/") || name == "HEAD" {
            kept_as(name)
        } else {
            name.into()
        };
        self.git.commit(&self.path, &name).await
    }

    fn unknown(&self, id: &str) -> Trouble {
        refused(format!(
            "{} has no commit {id}, or more than one",
            self.repository.address()
        ))
    }
}

/// A detached `HEAD` over there is not the `HEAD` of the mirror.
fn kept_as(name: &str) -> String {
    if name == "HEAD" {
        "refs/distci/head".to_owned()
    } else {
        name.to_owned()
    }
}

async fn lock(assignment: &Assignment<'_>, path: PathBuf) -> Result<Flock<File>, Trouble> {
    let mut said = false;
    let mut file = File::create(path).map_err(doing("git mirror"))?;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((file, nix::errno::Errno::EWOULDBLOCK)) => file,
            Err((_, errno)) => return Err(Trouble::local("git mirror", &errno.into())),
        };
        if !std::mem::replace(&mut said, true) {
            assignment
                .console
                .say("waiting for another checkout of the same repository")
                .await;
        }
        sleep(PATIENCE).await;
    }
}

fn unlock(mirror: &Path) {
    let walk = walkdir::WalkDir::new(mirror).into_iter();
    // Objects are many and have no such files. Their folders have names of two letters.
    let in_objects = |path: &Path| {
        path.parent()
            .is_some_and(|above| above.ends_with("objects"))
    };
    let walk = walk.filter_entry(|entry| entry.file_name().len() != 2 || !in_objects(entry.path()));
    for entry in walk.flatten() {
        if entry
            .path()
            .extension()
            .is_some_and(|extension| extension == "lock")
        {
            match std::fs::remove_file(entry.path()) {
                Ok(()) => tracing::info!("removed {}", entry.path().display()),
                Err(error) => tracing::warn!("{}: {error}", entry.path().display()),
            }
        }
    }
}
