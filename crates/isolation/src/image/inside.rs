//! Commands that are run in an image while it is made.
//!
//! Not in a cell, whose changes would be lost: in the tree itself, with namespaces of its own for
//! mounts, processes and names, and the machine's network. That keeps leftovers away from the
//! machine, not a command that means harm: it is as trusted as whoever builds.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use super::build::BuildError;
use super::tools::{Tools, find, missing};
use super::tree::{Below, Rights, Tree};
use crate::cell::Ended;

/// What every image has, because something is mounted there.
const MOUNT_POINTS: [(&str, u32); 5] = [
    ("proc", 0o555),
    ("sys", 0o555),
    ("dev", 0o755),
    ("tmp", 0o1777),
    ("run", 0o755),
];
const RESOLVER: &str = "etc/resolv.conf";

/// Arguments: the root, a file to be made when all is set up, chroot, the command, the environment.
const SETUP: &str = r#"
root=$1 began=$2 chroot=$3 command=$4
shift 4
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 dev "$root/dev"
for node in null zero full random urandom tty; do
    : > "$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir -m 1777 "$root/dev/shm"
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"
ln -s fd/1 "$root/dev/stdout"
ln -s fd/2 "$root/dev/stderr"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
mount -t tmpfs -o mode=755 run "$root/run"
if [ -f /etc/resolv.conf ]; then
    mount --bind /etc/resolv.conf "$root/etc/resolv.conf"
fi
: > "$began"
exec env -i "$@" "$chroot" "$root" /bin/sh -c "cd /; $command"
"#;

/// Sees to it that everything is there, as itself and not as a link to elsewhere, that cells and
/// commands mount over.
pub(super) fn complete(root: &Path) -> io::Result<()> {
    let tree = Tree::at(root)?;
    let rights = |mode| Rights {
        owner: 0,
        group: 0,
        mode,
    };
    for (name, mode) in MOUNT_POINTS {
        if let Some(path) = Below::of(Path::new(name))?
            && !tree.is_folder(&path)?
        {
            tree.folder(&path, rights(mode))?;
        }
    }
    if let Some(path) = Below::of(Path::new(RESOLVER))? {
        if let Some(folder) = path.parent()
            && !tree.is_folder(&folder)?
        {
            tree.folder(&folder, rights(0o755))?;
        }
        // As the machine has it now. Who makes cells may show them what it has then.
        let machine = fs::read(Path::new("/").join(RESOLVER)).unwrap_or_default();
        tree.file(&path, rights(0o644), |file| file.write_all(&machine))?;
    }
    Ok(())
}

/// Runs the `number`th command in the tree at `root`.
///
/// # Errors
/// [`BuildError::Command`], if it does not end with 0.
pub(super) async fn run(
    (number, command): (usize, &str),
    env: &[(String, String)],
    (root, scratch): (&Path, &Path),
    tools: &Tools<'_>,
    tell: &mut (dyn FnMut(&[u8]) + Send),
) -> Result<(), BuildError> {
    let began = scratch.join("began");
    let chroot = find("chroot").ok_or_else(|| missing("there is no chroot on this machine"))?;
    let unshare = "unshare --pid --fork --kill-child --ipc --uts -- sh -ec";
    let mut argv: Vec<OsString> = unshare.split(' ').map(OsString::from).collect();
    argv.extend([SETUP.into(), "sh".into(), root.into(), began.clone().into()]);
    argv.extend([chroot.into(), command.into()]);
    let usual = [
        (
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ),
        ("HOME", "/root"),
        ("DEBIAN_FRONTEND", "noninteractive"),
    ];
    let pair = |(name, value): (&str, &str)| OsString::from(format!("{name}={value}"));
    argv.extend(usual.map(pair));
    argv.extend(env.iter().map(|(name, value)| pair((name, value))));
    let said = tools.run(argv, scratch, tell).await?;
    let ran = fs::exists(&began)?;
    if ran {
        fs::remove_file(&began)?;
    }
    let how = match said.ended {
        Ended::Exit(0) if ran => return Ok(()),
        Ended::Exit(code) => format!("ended with {code}"),
        Ended::Signal(signal) => format!("was ended by signal {signal}"),
        Ended::NotStarted(why) => why,
        Ended::Stopped => return Err(BuildError::Stopped),
    };
    if !ran {
        let said = format!("{how}: {}", said.last);
        return Err(BuildError::Tool {
            tool: "unshare",
            said,
        });
    }
    Err(BuildError::Command {
        number,
        how,
        said: said.last,
    })
}
