//! The folder of images on the disk: names, editions, what is being built, and who may remove what.
//!
//! `NAME` is a link to `.editions/NAME/ID`; `.fresh/…` is built, or removed; `.lock` is held by whoever
//! changes what is where, for that moment. An edition has its own `lock`: who uses it shares it, who
//! makes or removes it has it alone.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use distci_model::isolation::ImageName;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::syncfs;

const EDITIONS: &str = ".editions";
const FRESH: &str = ".fresh";
const LOCK: &str = "lock";
/// What is known about an edition.
pub(super) const NOTE: &str = "image.json";

/// A lock on one edition, as long as it is there.
#[derive(Debug)]
pub(super) struct Hold {
    lock: Flock<File>,
}

impl Hold {
    /// One of many. `None` if the edition is not there any more.
    pub(super) fn shared(edition: &Path) -> io::Result<Option<Self>> {
        let path = edition.join(LOCK);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && edition.is_dir() => {
                OpenOptions::new().create(true).append(true).open(&path)
            }
            opened => opened,
        };
        let file = match file {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let lock = Flock::lock(file, FlockArg::LockShared).map_err(|(_, errno)| errno)?;
        let there = fs::metadata(&path).is_ok_and(|there| {
            let locked = lock.metadata();
            locked.is_ok_and(|locked| (locked.dev(), locked.ino()) == (there.dev(), there.ino()))
        });
        Ok(there.then_some(Self { lock }))
    }

    /// Lets others in.
    fn share(&self) -> io::Result<()> {
        Ok(self.lock.relock(FlockArg::LockShared)?)
    }

    /// The only one. `None` if there are others.
    fn exclusive(edition: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(edition.join(LOCK))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Self { lock })),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno.into()),
        }
    }
}

/// What is being built. It goes when this is dropped, unless it was [published](Fresh::publish); if
/// we are killed, with the next [`collect`].
#[derive(Debug)]
pub(super) struct Fresh {
    images: PathBuf,
    folder: PathBuf,
    hold: Hold,
    published: bool,
}

impl Fresh {
    /// A new folder among the images.
    pub(super) fn begin(images: &Path) -> io::Result<Self> {
        fs::create_dir_all(images)?;
        let _lock = lock(images)?;
        collect(images)?;
        let folder = unused(&images.join(FRESH))?;
        fs::create_dir_all(&folder)?;
        let hold = Hold::exclusive(&folder)?;
        Ok(Self {
            images: images.to_owned(),
            folder,
            hold: hold.ok_or_else(|| io::Error::other("a new folder is somebody else's"))?,
            published: false,
        })
    }

    /// Where the root file system belongs.
    pub(super) fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// A place for what is not needed afterwards.
    pub(super) fn scratch(&self) -> io::Result<PathBuf> {
        let scratch = self.folder.join("scratch");
        fs::create_dir_all(&scratch)?;
        Ok(scratch)
    }

    /// Makes it the image of that name, once it is on the disk, and says where it is and that it is
    /// in use. If that image has the same content already, only what is noted about it changes.
    pub(super) fn publish(
        mut self,
        name: &ImageName,
        (id, note): (&str, &[u8]),
    ) -> io::Result<(PathBuf, Hold)> {
        remove(&self.folder.join("scratch"))?;
        fs::write(self.folder.join(NOTE), note)?;
        syncfs(File::open(&self.folder)?)?;
        let images = self.images.clone();
        let place = images.join(name.as_str());
        let _lock = lock(&images)?;
        if fs::symlink_metadata(&place).is_ok_and(|found| found.is_dir()) {
            let why = format!("{} is a folder that was not built here", place.display());
            return Err(io::Error::other(why));
        }
        let edition = images.join(EDITIONS).join(name.as_str()).join(id);
        if edition.join("root").is_dir() {
            fs::rename(self.folder.join(NOTE), edition.join(NOTE))?;
        } else {
            fs::create_dir_all(images.join(EDITIONS).join(name.as_str()))?;
            fs::rename(&self.folder, &edition)?;
            // Without a name it would be found by the next to collect.
            self.published = true;
            self.hold.share()?;
        }
        let link = unused(&images.join(FRESH))?;
        symlink(Path::new(EDITIONS).join(name.as_str()).join(id), &link)?;
        fs::rename(link, place)?;
        File::open(&images)?.sync_all()?;
        collect(&images)?;
        let hold = Hold::shared(&edition)?;
        let gone = || io::Error::other("what was built is gone");
        Ok((edition, hold.ok_or_else(gone)?))
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        // Not while somebody looks at what may be collected.
        let removed = lock(&self.images).and_then(|_lock| remove(&self.folder));
        if let Err(error) = removed {
            let folder = self.folder.display();
            tracing::warn!("{folder}: {error}; the next build or removal tries again");
        }
    }
}

/// Waits until nobody else changes what is where.
pub(super) fn lock(images: &Path) -> io::Result<Flock<File>> {
    lock_file(&images.join(".lock"))
}

/// Waits for a file's lock.
pub(super) fn lock_file(path: &Path) -> io::Result<Flock<File>> {
    let file = File::create(path)?;
    Ok(Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?)
}

/// Removes what nobody builds, and the editions that no name leads to and nobody uses. Whoever calls
/// has the lock.
pub(super) fn collect(images: &Path) -> io::Result<()> {
    for edition in entries(&images.join(EDITIONS))?
        .iter()
        .map(|name| entries(name))
        .collect::<io::Result<Vec<_>>>()?
        .concat()
    {
        let name = edition
            .parent()
            .and_then(Path::file_name)
            .unwrap_or_default();
        let named = fs::canonicalize(images.join(name)).ok();
        if named.is_some() && named == fs::canonicalize(&edition).ok() {
            continue;
        }
        if let Some(hold) = Hold::exclusive(&edition)? {
            // Out of the way first: an edition is there as a whole or not at all.
            fs::create_dir_all(images.join(FRESH))?;
            let gone = unused(&images.join(FRESH))?;
            fs::rename(&edition, &gone)?;
            drop(hold);
        }
    }
    for fresh in entries(&images.join(FRESH))? {
        let is_folder = fs::symlink_metadata(&fresh)?.is_dir();
        let hold = if is_folder {
            Hold::exclusive(&fresh)?
        } else {
            None
        };
        if hold.is_some() || !is_folder {
            remove(&fresh)?;
        }
    }
    Ok(())
}

/// The names in the folder of images, sorted.
pub(super) fn names(images: &Path) -> io::Result<Vec<ImageName>> {
    let names = entries(images)?;
    let name = |path: &PathBuf| path.file_name()?.to_str()?.parse().ok();
    Ok(names.iter().filter_map(name).collect())
}

/// The forms of an edition beside its root.
pub(super) fn forms(edition: &Path) -> io::Result<Vec<String>> {
    let own = ["root", LOCK, NOTE];
    let entries = entries(edition)?;
    let names = entries.iter().filter_map(|path| path.file_name()?.to_str());
    let forms = names.filter(|name| {
        let passing = Path::new(name)
            .extension()
            .is_some_and(|end| end == "lock" || end == "new");
        !own.contains(name) && !passing
    });
    Ok(forms.map(str::to_owned).collect())
}

/// How many hold an edition, as the kernel counts them. Those in other containers may be missing.
pub(super) fn holders(edition: &Path) -> io::Result<usize> {
    let inode = fs::metadata(edition.join(LOCK))?.ino();
    let locks = fs::read_to_string("/proc/locks")?;
    let suffix = format!(":{inode}");
    let holds = |line: &&str| {
        let mut words = line.split_whitespace().skip(1);
        let flock = words.next() == Some("FLOCK");
        flock && words.nth(3).is_some_and(|file| file.ends_with(&suffix))
    };
    Ok(locks.lines().filter(holds).count())
}

/// Removes whatever is there, if anything is.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let found = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        found => found?,
    };
    let mut entries = found
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<_>>>()?;
    entries.sort();
    Ok(entries)
}

/// A name that nobody has there. Whoever calls has the lock of the images.
fn unused(folder: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let mut names = (0..u32::MAX).map(|number| folder.join(number.to_string()));
    let free = names.find(|path| fs::symlink_metadata(path).is_err());
    free.ok_or_else(|| io::Error::other("too many builds"))
}
