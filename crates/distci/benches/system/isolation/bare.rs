//! The same by the bare tools, as somebody would begin them by hand who knows what is needed: the
//! same command on the same image, with a fresh root, no network, and nothing left.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use distci_model::isolation::Driver;
use nix::mount::{MsFlags, mount, umount};
use nix::sys::resource::{Resource, getrlimit};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::{Bench, COMMAND, TIMES, Took};

/// Runs the command once by the tool that `driver` uses.
pub(super) async fn run(bench: &Bench, driver: Driver) -> anyhow::Result<Took<Duration>> {
    match driver {
        Driver::Process => Begun::now().ended(tool(COMMAND[0]).arg(COMMAND[1])).await,
        Driver::Bubblewrap => bubblewrap(bench).await,
        Driver::Lxc => lxc(bench).await,
        Driver::Qemu => qemu(bench, FIRST).await,
        Driver::Podman => {
            // It loses what a container prints that ends before somebody listens: that does not count.
            for _ in 0..TIMES {
                if let Ok(took) = podman(bench).await {
                    return Ok(took);
                }
            }
            podman(bench).await
        }
        Driver::Docker => docker(bench).await,
    }
}

/// Boots a machine that has no more than the kernel and the command.
pub(super) async fn boot(bench: &Bench) -> anyhow::Result<Took<Duration>> {
    qemu(bench, NOTHING_ELSE).await
}

async fn bubblewrap(bench: &Bench) -> anyhow::Result<Took<Duration>> {
    let begun = Begun::now();
    let overlay = Overlay::over(bench, &bench.image()?.root())?;
    let mut bwrap = tool("bwrap");
    bwrap.args(["--unshare-all", "--die-with-parent", "--hostname", "distci"]);
    bwrap.arg("--bind").arg(overlay.root()).arg("/");
    bwrap.args(["--proc", "/proc", "--dev", "/dev", "--dir", "/workspace"]);
    bwrap.arg("--bind").arg(overlay.path("workspace"));
    bwrap.args(["/workspace", "--chdir", "/workspace", "--"]);
    begun.over(overlay, bwrap.args(COMMAND)).await
}

async fn lxc(bench: &Bench) -> anyhow::Result<Took<Duration>> {
    // As the driver left it: the image with the owners of a container.
    let lower = derived(bench, "lxc-")?;
    let begun = Begun::now();
    let overlay = Overlay::over(bench, &lower)?;
    let owner = fs::metadata(&lower)?;
    let (uid, gid) = (owner.uid(), owner.gid());
    chown(overlay.root(), Some(uid), Some(gid))?;
    let config = format!(
        "lxc.rootfs.path = dir:{}\n\
         lxc.uts.name = distci\n\
         lxc.idmap = u 0 {uid} 65536\n\
         lxc.idmap = g 0 {gid} 65536\n\
         lxc.net.0.type = empty\n\
         lxc.net.0.flags = up\n\
         lxc.mount.auto = proc:mixed sys:ro\n\
         lxc.mount.entry = {} workspace none bind,create=dir,idmap=container 0 0\n\
         lxc.init.cwd = /workspace\n\
         lxc.apparmor.profile = unconfined\n\
         lxc.seccomp.profile = /usr/share/lxc/config/common.seccomp\n\
         lxc.cap.drop = mac_admin mac_override sys_time sys_module sys_rawio\n\
         lxc.tty.max = 0\n",
        overlay.root().display(),
        overlay.path("workspace").display()
    );
    fs::write(overlay.path("config"), config)?;
    let mut execute = tool("lxc-execute");
    execute.arg("-P").arg(overlay.path(""));
    execute.arg("-f").arg(overlay.path("config"));
    execute.args(["-n", &overlay.name(), "--"]);
    begun.over(overlay, execute.args(COMMAND)).await
}

async fn podman(bench: &Bench) -> anyhow::Result<Took<Duration>> {
    let folder = bench.path("podman");
    let begun = Begun::now();
    let workspace = TempDir::new_in(bench.folder.path())?;
    let mut podman = tool("podman");
    // Where the driver keeps its records, and with its settings.
    podman.env("CONTAINERS_CONF", folder.join("containers.conf"));
    for (option, name) in [
        ("--root", "root"),
        ("--runroot", "run"),
        ("--tmpdir", "tmp"),
    ] {
        podman.arg(option).arg(folder.join(name));
    }
    podman.args(["run", "--rm", "--network=none", "--log-driver=none"]);
    podman.args(["--cgroups=no-conmon", "--security-opt=label=disable"]);
    // Podman's own defaults are more than every root may have.
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    podman.arg(format!("--ulimit=nofile={soft}:{hard}"));
    podman.arg("--ulimit=nproc=8192:8192");
    let bind = format!("{}:/workspace", workspace.path().display());
    podman.args(["--volume", &bind, "--workdir", "/workspace"]);
    let root = bench.image()?.root();
    podman.arg("--rootfs").arg(format!("{}:O", root.display()));
    begun.ended(podman.args(COMMAND)).await
}

async fn docker(bench: &Bench) -> anyhow::Result<Took<Duration>> {
    let host = bench.docker.as_ref().context("no daemon")?.host();
    let begun = Begun::now();
    let workspace = TempDir::new_in(bench.folder.path())?;
    let bind = format!("{}:/workspace", workspace.path().display());
    let mut docker = tool("docker");
    docker.args(["--host", &host, "run", "--rm", "--network=none"]);
    docker.args(["--log-driver=none", "--pull=never"]);
    docker.args(["--volume", &bind, "--workdir", "/workspace"]);
    begun
        .ended(docker.arg("distci:busybox").args(COMMAND))
        .await
}

/// The first program in the initial file system, as the kernel is told of it.
const FIRST: &str = "/by-hand/init";
/// The same if there were nothing but the kernel and the command.
const NOTHING_ELSE: &str = "/by-hand/busybox -- echo here";
/// What boots beside the modules and the agent of the driver's initial file system.
const INIT: &str = "#!/by-hand/busybox sh\n\
    b=/by-hand/busybox; m=\"$b mount -t\"\n\
    $m proc none /proc; $m sysfs none /sys; $m devtmpfs none /dev\n\
    for f in /modules/*; do $b insmod $f; done\n\
    $b mkdir -p /low /up /new\n\
    $m squashfs -o ro /dev/vda /low; $m tmpfs none /up; $b mkdir /up/up /up/work\n\
    $m overlay -o lowerdir=/low,upperdir=/up/up,workdir=/up/work none /new\n\
    $b chroot /new echo here\n\
    $b reboot -f\n";

async fn qemu(bench: &Bench, first: &str) -> anyhow::Result<Took<Duration>> {
    let initrd = initrd(bench)?;
    let disk = derived(bench, "root.squashfs")?.display().to_string();
    let processors = std::thread::available_parallelism()?.to_string();
    // What the driver finds out by trial: there is no use for one that does not help.
    let helps = fs::read_to_string("/proc/cpuinfo")?;
    let helps = helps.contains(" vmx ") || helps.contains(" svm ");
    let (accelerator, processor) = if helps && Path::new("/dev/kvm").exists() {
        ("kvm", "max")
    } else {
        ("tcg,thread=multi", "qemu64")
    };
    let append = format!(
        "console=ttyS0 quiet loglevel=4 panic=-1 reboot=t nokaslr mitigations=off tsc=reliable \
         no_timer_check {} rdinit={first}",
        clock()?
    );
    let begun = Begun::now();
    let mut qemu = tool("qemu-system-x86_64");
    qemu.args(["-accel", accelerator, "-cpu", processor, "-M", "q35"]);
    // As much of everything as a machine of the driver has.
    qemu.args(["-smp", &processors, "-m", "2208M", "-display", "none"]);
    qemu.args(["-monitor", "none", "-nodefaults", "-no-user-config"]);
    qemu.args(["-no-reboot", "-serial", "file:/dev/stdout"]);
    qemu.args(["-append", &append, "-device", "virtio-rng-pci"]);
    let drive = format!("if=none,id=image,format=raw,readonly=on,file.locking=off,file={disk}");
    qemu.args(["-drive", &drive, "-device", "virtio-blk-pci,drive=image"]);
    qemu.arg("-kernel").arg(bench.kernel().join("vmlinux"));
    begun.killed(qemu.arg("-initrd").arg(initrd)).await
}

/// The driver's initial file system with another one behind it, as kernels take them.
fn initrd(bench: &Bench) -> anyhow::Result<PathBuf> {
    let path = bench.path("initrd");
    if path.exists() {
        return Ok(path);
    }
    let folder = bench.path("by-hand");
    fs::create_dir(&folder)?;
    fs::copy("/bin/busybox", folder.join("busybox"))?;
    fs::write(folder.join("init"), INIT)?;
    fs::set_permissions(folder.join("init"), Permissions::from_mode(0o755))?;
    let mut bytes = fs::read(beginning(&bench.kernel(), "initrd-")?)?;
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    let pack = "find by-hand | busybox cpio -o -H newc 2>/dev/null";
    let mut packed = std::process::Command::new("sh");
    let packed = packed.args(["-c", pack]).current_dir(bench.folder.path());
    let packed = packed.output()?;
    ensure!(packed.status.success(), "{pack}: {}", packed.status);
    bytes.extend(packed.stdout);
    fs::File::create(&path)?.write_all(&bytes)?;
    Ok(path)
}

/// How fast the processor's clock counts: emulated, it is not steady enough to be measured.
fn clock() -> anyhow::Result<String> {
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let mut lines = processors.lines();
    let speed = lines.find_map(|line| line.strip_prefix("cpu MHz"));
    let speed = speed.context("no speed in /proc/cpuinfo")?;
    let hertz: String = speed.chars().filter(char::is_ascii_digit).collect();
    let khz: u64 = hertz.parse()?;
    Ok(format!("tsc_early_khz={khz} lpj={}", khz * 2))
}

/// The form of the image that a driver made.
fn derived(bench: &Bench, prefix: &str) -> anyhow::Result<PathBuf> {
    beginning(bench.image()?.folder(), prefix)
}

fn beginning(folder: &Path, prefix: &str) -> anyhow::Result<PathBuf> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // Beside it are locks.
        let is_lock = path.extension().is_some_and(|end| end == "lock");
        if name.starts_with(prefix) && !is_lock {
            return Ok(path);
        }
    }
    bail!("no {prefix} in {}", folder.display())
}

/// A tool with nothing of ours but the path.
fn tool(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// A root over an image, which is what one needs who has no overlay by the tool itself.
struct Overlay(TempDir);

impl Overlay {
    fn over(bench: &Bench, lower: &Path) -> anyhow::Result<Self> {
        let overlay = Self(TempDir::new_in(bench.folder.path())?);
        for name in ["upper", "work", "root", "workspace"] {
            fs::create_dir(overlay.path(name))?;
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            overlay.path("upper").display(),
            overlay.path("work").display()
        );
        let (kind, none) = (Some("overlay"), MsFlags::empty());
        let options = Some(options.as_str());
        mount(kind, &overlay.root(), kind, none, options).context("mounting an overlay")?;
        Ok(overlay)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn root(&self) -> PathBuf {
        self.path("root")
    }

    fn name(&self) -> String {
        let name = self.0.path().file_name().unwrap_or_default();
        format!("by-hand-{}", name.to_string_lossy().trim_start_matches('.'))
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        umount(&self.root()).ok();
    }
}

/// Since when the time is taken.
struct Begun(Instant);

impl Begun {
    fn now() -> Self {
        Self(Instant::now())
    }

    /// Until the command has ended by itself.
    async fn ended(self, command: &mut Command) -> anyhow::Result<Took<Duration>> {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut output = child.stdout.take().context("no output")?;
        let first = self.word(&mut output).await?;
        let ended = child.wait_with_output().await?;
        let said = String::from_utf8_lossy(&ended.stderr);
        let program = command.as_std().get_program().display();
        ensure!(
            ended.status.success(),
            "{program}: {}: {said}",
            ended.status
        );
        let whole = self.0.elapsed();
        Ok(Took {
            first: first.with_context(|| format!("{program}: {said}"))?,
            whole,
        })
    }

    /// The same, and until the overlay is gone too.
    async fn over(self, overlay: Overlay, command: &mut Command) -> anyhow::Result<Took<Duration>> {
        let begun = self.0;
        let took = self.ended(command).await?;
        drop(overlay);
        let whole = begun.elapsed();
        Ok(Took { whole, ..took })
    }

    /// Until it was killed as soon as the command had said its word.
    async fn killed(self, command: &mut Command) -> anyhow::Result<Took<Duration>> {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let mut output = child.stdout.take().context("no output")?;
        let first = self
            .word(&mut output)
            .await?
            .context("the machine said nothing")?;
        child.kill().await?;
        let whole = self.0.elapsed();
        Ok(Took { first, whole })
    }

    /// When the word of the command came; a machine may say others before.
    async fn word(
        &self,
        output: &mut (impl AsyncReadExt + Unpin),
    ) -> anyhow::Result<Option<Duration>> {
        let (mut said, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            let read = output.read(&mut buffer).await?;
            said.extend_from_slice(buffer.get(..read).unwrap_or_default());
            if said.windows(4).any(|word| word == COMMAND[1].as_bytes()) {
                return Ok(Some(self.0.elapsed()));
            }
            if read == 0 {
                return Ok(None);
            }
        }
    }
}
