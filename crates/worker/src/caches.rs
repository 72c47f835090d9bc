//! The caches of a task: folders that earlier builds may have left.
//!
//! Owns their way in before the task and out after it. A cache saves time and is never needed: what
//! goes wrong with one is said on the console, and the task goes on without it.

use std::path::PathBuf;

use distci_client::Client;
use distci_isolation::Shared;
use distci_model::cache::MAX_CACHE;
use distci_model::config::Cache;
use distci_model::id::TaskName;
use distci_model::wire::Held;

use crate::console::Console;
use crate::room::{Room, remove_tree};
use crate::trouble::{Trouble, blocking, doing};
use crate::workspace::{self, snapshot::Snapshot};

/// Whose caches, and where they are.
#[derive(Clone, Copy)]
pub(crate) struct Caches<'a> {
    pub(crate) client: &'a Client,
    pub(crate) held: &'a Held,
    pub(crate) task: &'a TaskName,
    pub(crate) room: &'a Room,
    pub(crate) console: &'a Console,
}

/// The caches of a task that is about to run, or has run.
pub(crate) struct Laid<'a> {
    caches: Caches<'a>,
    folders: Vec<Folder>,
}

/// The folder of one cache.
struct Folder {
    cache: Cache,
    /// Where it is while it is not in the workspace.
    outside: PathBuf,
    /// Where it is in the workspace, if it is to be there.
    in_workspace: Option<PathBuf>,
    before: Snapshot,
}

impl<'a> Caches<'a> {
    /// Brings each to its place, empty if there is nothing to bring.
    ///
    /// # Errors
    /// [`Trouble`] of the machine itself: not one of a cache.
    pub(crate) async fn restore(self, caches: &[Cache]) -> Result<Laid<'a>, Trouble> {
        let mut folders = Vec::with_capacity(caches.len());
        for (index, cache) in caches.iter().enumerate() {
            let outside = self.room.cache(&index.to_string());
            if let Err(trouble) = self.fetch(cache, &outside).await {
                pass_on(&trouble)?;
                self.say(cache, "was not restored", &trouble).await;
                empty(outside.clone()).await?;
            }
            let probe = self.room.file("probe");
            let before = workspace::look_at(outside.clone(), probe).await?;
            let in_workspace = (!cache.path.starts_with(['/', '~']))
                .then(|| self.room.workspace().join(&cache.path));
            let folder = Folder {
                cache: cache.clone(),
                outside,
                in_workspace,
                before,
            };
            if folder.enter_workspace().await? {
                folders.push(folder);
            } else {
                let why = format!("the workspace has {:?} already", cache.path);
                self.console
                    .say(&format!("cache {}: {why}", cache.name))
                    .await;
            }
        }
        Ok(Laid {
            caches: self,
            folders,
        })
    }

    async fn fetch(&self, cache: &Cache, folder: &std::path::Path) -> Result<(), Trouble> {
        empty(folder.to_owned()).await?;
        let Some(found) = self.client.find_cache(self.held, &cache.name).await? else {
            let what = format!("cache {}: there is none yet", cache.name);
            self.console.say(&what).await;
            return Ok(());
        };
        let download = self
            .client
            .get_cache(self.held, &cache.name, &found)
            .await?;
        workspace::unpack(download, self.task, folder).await?;
        let build = found.id.split('.').next().unwrap_or_default();
        let build = build.trim_start_matches('0');
        let what = format!(
            "cache {}: {} bytes, as build {build} left it",
            cache.name, found.bytes
        );
        self.console.say(&what).await;
        Ok(())
    }

    async fn say(&self, cache: &Cache, what: &str, trouble: &Trouble) {
        let text = format!("cache {} {what}: {trouble}", cache.name);
        self.console.say(&text).await;
    }
}

impl Laid<'_> {
    /// What a cell has to show in other places. Paths below the home folder are root's: that is who
    /// runs in an image.
    pub(crate) fn shared(&self) -> Vec<Shared> {
        let elsewhere = self
            .folders
            .iter()
            .filter(|folder| folder.in_workspace.is_none());
        let shared = elsewhere.map(|folder| {
            let path = &folder.cache.path;
            let inside = match path.strip_prefix('~') {
                Some(below) => format!("/root/{}", below.trim_start_matches('/')),
                None => path.clone(),
            };
            Shared {
                outside: folder.outside.clone(),
                inside: inside.into(),
            }
        });
        shared.collect()
    }

    /// Takes them out of the workspace, and stores those that are different, if the task did well.
    pub(crate) async fn save(self, succeeded: bool) -> Result<(), Trouble> {
        for (index, folder) in self.folders.into_iter().enumerate() {
            let name = folder.cache.clone();
            let saved = async {
                folder.leave_workspace().await?;
                if succeeded {
                    let file = self.caches.room.file(&format!("cache-{index}"));
                    self.caches.store(folder, file).await?;
                }
                Ok(())
            };
            if let Err(trouble) = saved.await {
                pass_on(&trouble)?;
                self.caches.say(&name, "was not saved", &trouble).await;
            }
        }
        Ok(())
    }
}

impl Caches<'_> {
    async fn store(&self, folder: Folder, file: PathBuf) -> Result<(), Trouble> {
        let Folder {
            cache,
            outside,
            before,
            ..
        } = folder;
        let packed = workspace::pack_whole(before, outside, file.clone()).await?;
        let what = match packed {
            None => return Ok(()),
            Some(bytes) if bytes > MAX_CACHE => {
                format!("not saved: {bytes} bytes, and at most {MAX_CACHE} are kept")
            }
            Some(_) => {
                let bytes = self.client.put_cache(self.held, &cache.name, &file).await?;
                format!("{bytes} bytes saved")
            }
        };
        self.console
            .say(&format!("cache {}: {what}", cache.name))
            .await;
        let removed = blocking(move || std::fs::remove_file(file).map_err(doing("cache")));
        removed.await
    }
}

impl Folder {
    /// Moves it to its place in the workspace, if it has one there. Says whether it could: nothing
    /// may be in its way.
    async fn enter_workspace(&self) -> Result<bool, Trouble> {
        let (Some(inside), outside) = (self.in_workspace.clone(), self.outside.clone()) else {
            return Ok(true);
        };
        let enter = move || {
            if inside.symlink_metadata().is_ok() {
                return Ok(false);
            }
            let parent = inside.parent().unwrap_or(&inside);
            std::fs::create_dir_all(parent)?;
            // A link on the way there would lead out of the workspace.
            if parent.canonicalize()? != parent {
                return Ok(false);
            }
            std::fs::rename(outside, inside).map(|()| true)
        };
        blocking(move || enter().map_err(doing("cache"))).await
    }

    /// Moves it back, so that it does not become part of the workspace's layer.
    async fn leave_workspace(&self) -> Result<(), Trouble> {
        let (Some(inside), outside) = (self.in_workspace.clone(), self.outside.clone()) else {
            return Ok(());
        };
        blocking(move || {
            let moved = match inside.symlink_metadata() {
                Ok(found) if found.is_dir() => std::fs::rename(&inside, &outside),
                // The task has put something else in its place, or nothing.
                Ok(_) | Err(_) => std::fs::create_dir(&outside),
            };
            moved.map_err(doing("cache"))
        })
        .await
    }
}

async fn empty(folder: PathBuf) -> Result<(), Trouble> {
    let make = move || {
        remove_tree(&folder)?;
        std::fs::create_dir_all(&folder)
    };
    blocking(move || make().map_err(doing("cache"))).await
}

/// Whoever wants the attempt to end is not answered with a word about a cache.
fn pass_on(trouble: &Trouble) -> Result<(), Trouble> {
    match trouble {
        Trouble::Interrupted(interrupt) => Err((*interrupt).into()),
        Trouble::Failure(_) | Trouble::Fault(_) => Ok(()),
    }
}
